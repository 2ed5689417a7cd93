"""Every backend gives the bits of the reference: cutoff, density and eta, on rows made to trip it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from exact_cases import (
    DTYPES,
    EXACT,
    KINDS,
    SAMPLED,
    TILE,
    Engine,
    assert_same_bits,
    assert_same_density,
    assert_same_pool,
    assert_same_top2,
    case,
    class_vectors,
    reference_pool,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proto_engine.backends import exact
from proto_engine.backends.base import density_order, error_bound, eta_of

# On and beside the edges of a tile.
SIZES = (1, TILE - 1, TILE, TILE + 1, 2 * TILE + 3)
assert SAMPLED * (SAMPLED - 1) // 2 > exact.KEEP_ALL_PAIRS


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("kind", KINDS)
def test_pool_has_the_reference_bits_on_every_kind_of_rows(backend, kind):
    for m, dim in zip(SIZES, (8, 9, 16, 23, 33), strict=True):
        x, reference = case(kind, m, dim)
        assert_same_pool(Engine(backend), x, reference)


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("kind", KINDS)
def test_pool_has_the_reference_bits_through_a_sampled_bracket(backend, kind):
    x, reference = case(kind, SAMPLED, 12)
    assert_same_pool(Engine(backend, tile=None), x, reference, (0.0, 0.6, 1.0))


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("kind", ["normal", "binary"])
def test_pool_of_many_rows_has_the_reference_bits(backend, kind):
    """Several groups of rows and slices of the order in eta, and for binary rows more ties than are kept."""
    x, reference = case(kind, 1500, 6)
    num_pairs = 1500 * 1499 // 2
    assert num_pairs > exact.MIN_CAPACITY
    assert_same_pool(Engine(backend, tile=None), x, reference, (0.6,))


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("dim", range(1, 9))
def test_pool_has_the_reference_bits_in_few_dimensions(backend, dim):
    for m in (2, 2 * TILE + 3):
        x, reference = case("normal", m, dim)
        assert_same_pool(Engine(backend), x, reference, (0.0, 0.6))


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["normal", "duplicates", "close"])
def test_pool_has_the_reference_bits_for_every_dtype(backend, dtype, kind):
    for dim in (16, 21):
        x, reference = case(kind, TILE + 1, dim, dtype)
        assert_same_pool(Engine(backend), x, reference)


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("size", [1e200, 1e-200, 1e300, 1e-300, 1e100, 1e-100, 1e75, 1e-75, 1e30, 1e-30])
def test_pool_has_the_reference_bits_for_extreme_float64(backend, size):
    x = case("normal", TILE + 1, 9, "float64")[0] * size
    assert_same_pool(Engine(backend), x, reference_pool(x))
    mixed = x.copy()
    mixed[::2] /= size
    assert_same_pool(Engine(backend), mixed, reference_pool(mixed))


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_pool_reads_views_of_any_layout(backend, dtype):
    big = case("normal", 2 * TILE + 3, 24, dtype)[0]
    unaligned = np.zeros(big.nbytes + 1, np.uint8)[1:].view(big.dtype).reshape(big.shape)
    unaligned[:] = big
    for x in (big[::2], big[:, ::2], big[:, 3:20], big.T, big[::-1], big[:, ::-1], np.asfortranarray(big), unaligned):
        reference = reference_pool(np.ascontiguousarray(x))
        assert_same_pool(Engine(backend), x, reference, (0.6,))


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("kind", ["normal", "binary"])
def test_threads_and_tiles_do_not_change_a_bit(backend, kind):
    x, reference = case(kind, SAMPLED, 20)
    for threads in (1, 2):
        for tile in (64, 97, None):
            assert_same_pool(Engine(backend, threads, tile), x, reference, (0.6,))


@pytest.mark.parametrize("backend", EXACT)
def test_calls_from_several_threads_do_not_disturb_each_other(backend):
    x, reference = case("normal", SAMPLED, 20)
    wanted = reference.density(0.6)
    engine = Engine(backend, threads=2, tile=64)
    pool = engine.pool(x)
    found: list[tuple[float, np.ndarray]] = []
    callers = [threading.Thread(target=lambda: found.append(pool.density(0.6))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 4
    for result in found:
        assert_same_density(result, wanted)


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("m", [363, 1025, 2500])
def test_sample_leaves_one_pass(backend, m, monkeypatch):
    """A bracket that misses, or that holds most pairs, changes no result: only the time would tell."""
    pool = Engine(backend, tile=None).pool(np.random.default_rng(m).standard_normal((m, 16)).astype(np.float32) + 0.2)
    passes = []
    count = pool.count_bracket

    def counted(lo, hi, capacity):
        passes.append(count(lo, hi, capacity))
        return passes[-1]

    monkeypatch.setattr(pool, "count_bracket", counted)
    num_pairs = m * (m - 1) // 2
    for quantile in (0.0, 0.02, 0.6, 0.98, 1.0):
        pool.density(quantile)
        assert len(passes) == 1 and passes.pop().num_inside < 0.12 * num_pairs


def test_sample_pairs_each_row_equally_often_and_never_with_itself():
    class Seen:
        m, pairs = 1000, []

        def between(self, first, second):
            self.pairs += [(i, j) for a, b in zip(first, second, strict=True) for i in a for j in b]
            return np.zeros((*first.shape, first.shape[1]))

    exact._sample(Seen())
    pairs = np.array(Seen.pairs)
    assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs) and (pairs[:, 0] != pairs[:, 1]).all()
    assert set(np.bincount(pairs.ravel(), minlength=1000)) == {2 * exact.SAMPLED_PAIRS_PER_ROW[0]}


@pytest.mark.parametrize("backend", EXACT)
def test_bracket_that_misses_is_widened(backend):
    for kind in ("normal", "duplicates", "binary"):
        x, reference = case(kind, SAMPLED, 12)
        pool = Engine(backend, tile=64).pool(x)
        for quantile in (0.0, 0.6, 1.0):
            wanted = reference.density(quantile)
            near = wanted[0]
            for bracket in ((near - 0.3, near - 0.2), (near + 0.2, near + 0.3), (near, near), (5.0, 6.0), (-6.0, -5.0)):
                assert_same_density(exact.cutoff_and_density(pool, quantile, bracket=bracket), wanted)


@pytest.mark.parametrize("backend", EXACT)
def test_more_pairs_inside_than_can_be_kept_are_closed_in_on(backend):
    for kind in ("normal", "duplicates", "equal", "binary", "close"):
        x, reference = case(kind, SAMPLED, 12)
        pool = Engine(backend, tile=64).pool(x)
        for quantile in (0.0, 0.6, 1.0):
            wanted = reference.density(quantile)
            for bracket in (None, (wanted[0] - 1e-3, wanted[0] + 1e-3), (-0.5, 0.1)):
                found = exact.cutoff_and_density(pool, quantile, bracket=bracket, capacity=3)
                assert_same_density(found, wanted)


@pytest.mark.parametrize("backend", EXACT)
def test_count_bracket_counts_all_and_keeps_no_more_than_its_capacity(backend):
    pool = Engine(backend, threads=2, tile=64).pool(case("normal", SAMPLED, 12)[0])
    i, j = np.triu_indices(SAMPLED, 1)
    s32 = np.asarray(pool.similarity())
    lo, hi = map(float, np.sort(s32[i, j])[[30_000, 45_000]])  # both ends are entries
    wanted = {(a, b): s32[a, b] for a, b in zip(i, j, strict=True) if lo <= s32[a, b] <= hi}
    for capacity in (len(wanted), len(wanted) - 1, 0):
        inside = pool.count_bracket(lo, hi, capacity)
        assert_same_bits(inside.above, (s32 > np.float32(hi)).sum(axis=1) - 1)  # less the diagonal
        assert inside.num_inside == len(wanted)
        assert inside.row.dtype == inside.column.dtype == np.int32 and inside.s32.dtype == np.float32
        if capacity < len(wanted):
            assert len(inside.row) == len(inside.column) == len(inside.s32) <= capacity
    inside = pool.count_bracket(lo, hi, len(wanted))
    assert dict(zip(zip(inside.row, inside.column, strict=True), inside.s32, strict=True)) == wanted


@pytest.mark.parametrize("backend", EXACT)
def test_histogram_places_every_pair(backend):
    x, reference = case("close", 2 * TILE + 3, 12)
    pool = Engine(backend, threads=2).pool(x)
    pairs = reference.s[np.triu_indices(pool.m, 1)]
    lo, hi, bins = float(np.quantile(pairs, 0.2)), float(np.sort(pairs)[-20]), 7
    below, count, least, most = pool.histogram(lo, hi, bins)
    inside = pairs[(pairs >= lo) & (pairs <= hi)]
    place = np.minimum(((inside - lo) / (hi - lo) * bins).astype(int), bins - 1)
    assert below == (pairs < lo).sum()
    assert_same_bits(count, np.bincount(place, minlength=bins))
    for b in range(bins):
        values = inside[place == b]
        assert (least[b], most[b]) == ((values.min(), values.max()) if len(values) else (np.inf, -np.inf))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("backend", EXACT)
def test_density_at_any_cutoff_counts_equal_entries_as_neither(backend):
    for kind in ("normal", "close", "binary", "signs"):
        x, reference = case(kind, 2 * TILE + 3, 9)
        pool = Engine(backend).pool(x)
        entries = reference.s[0, [1, 5, TILE, TILE + 1]]
        for cutoff in (*entries, *np.nextafter(entries, 2.0), 0.0, 1.0, -1.0, 7.5, -7.5, 1e300, -1e300):
            assert_same_bits(pool.density_at(float(cutoff)), reference.density_at(float(cutoff)))


@pytest.mark.parametrize("backend", EXACT)
def test_eta_of_chosen_rows_is_the_same_in_any_company(backend):
    for kind in ("normal", "close", "binary"):
        x, reference = case(kind, 2 * TILE + 3, 12)
        pool = Engine(backend).pool(x)
        rho = reference.density(0.6)[1]
        everything = eta_of(reference, rho, np.arange(pool.m))
        order = density_order(rho)
        for rows in (order[:3], order[-1:], np.array([5, 0, 5, TILE]), order[::-1], order[:0]):
            assert_same_bits(eta_of(pool, rho, rows, order), everything[rows])


@pytest.mark.parametrize("backend", EXACT)
def test_pair_similarity_has_the_reference_bits_in_long_lists(backend):
    x, reference = case("normal", SAMPLED, 12)
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, SAMPLED, (2, 40_000))
    found = Engine(backend, threads=2).pool(x).pair_similarity(first, second)
    assert_same_bits(found, reference.s[first, second])


@pytest.mark.parametrize("backend", EXACT)
def test_similarities_between_groups_are_within_the_bound(backend):
    x, reference = case("normal", 60, 24)
    pool = Engine(backend).pool(x)
    first = np.random.default_rng(0).permutation(60).reshape(12, 5)
    second = np.roll(first, -1, axis=0)
    expected = reference.s[first[:, :, None], second[:, None, :]]  # [12, 5, 5]
    np.testing.assert_allclose(pool.between(first, second), expected, atol=pool.bound, rtol=0)


@pytest.mark.parametrize("backend", EXACT)
def test_products_are_rounded_before_they_are_added(backend):
    """A fused multiply-add would leave 2**-60 of the square of 1 + 2**-30 = 1 + 2**-29 + 2**-60."""
    x = np.zeros((2, 16))
    x[0, [0, 8]] = -(1 + 2.0**-29), 1 + 2.0**-30  # lane 0 meets both
    x[1, [0, 8]] = 1.0, 1 + 2.0**-30
    assert Engine(backend).pool(x).pair_similarity(np.array([0]), np.array([1])) == 0.0


@pytest.mark.parametrize("backend", EXACT)
def test_similarity_is_symmetric_with_a_unit_diagonal_and_within_the_bound(backend):
    for kind, m in (("normal", 1), ("normal", 2 * TILE + 3), ("duplicates", TILE), ("normal", SAMPLED)):
        x, reference = case(kind, m, 12)
        pool = Engine(backend).pool(x)
        s32 = np.asarray(pool.similarity())
        assert s32.dtype == np.float32 and s32.shape == (m, m)
        assert_same_bits(s32, s32.T)
        assert (np.diag(s32) == 1).all()
        assert np.abs(s32 - reference.s).max() <= (pool.bound if backend.startswith("cu") else error_bound(12))


@pytest.mark.parametrize("backend", EXACT)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors], derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 40),
    dim=st.integers(1, 20),
    kind=st.sampled_from(sorted(KINDS)),
    dtype=st.sampled_from(sorted(DTYPES)),
    quantile=st.floats(0, 1),
    capacity=st.sampled_from([None, 0, 5]),
    width=st.floats(0, 0.5),
)
@example(seed=0, m=1, dim=1, kind="signs", dtype="float16", quantile=1.0, capacity=0, width=0.0)
def test_density_and_eta_have_the_reference_bits(backend, seed, m, dim, kind, dtype, quantile, capacity, width):
    rng = np.random.default_rng(seed)
    x = KINDS[kind](rng, m, dim).astype(DTYPES[dtype])
    reference = reference_pool(x)
    pool = Engine(backend, tile=int(rng.integers(1, 20))).pool(x)
    cutoff, rho = reference.density(quantile)
    middle = cutoff + float(rng.normal(0, width))
    bracket = (middle - width, middle + width)
    assert_same_density(exact.cutoff_and_density(pool, quantile, bracket=bracket, capacity=capacity), (cutoff, rho))
    assert_same_bits(pool.density_at(middle), reference.density_at(middle))
    rows = rng.integers(0, m, 3)
    assert_same_bits(eta_of(pool, rho, rows), eta_of(reference, rho, rows))


@pytest.mark.skipif("cpu" not in EXACT, reason="the native module was not built")
@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same_bits(name):
    from proto_engine import _core

    before = _core.instruction_set()
    if not _core.use_instruction_set(name):
        pytest.skip(f"this machine has no {name}")
    try:
        assert _core.instruction_set() == name
        engine = Engine("cpu", tile=97)
        for dtype in DTYPES:
            x, reference = case("close", 2 * TILE + 3, 21, dtype)
            assert_same_pool(engine, x, reference, (0.6,))
            folded = class_vectors(np.random.default_rng(0), 37, 21)
            assert_same_top2(engine, x, folded)
        for kind in ("normal", "binary"):
            x, reference = case(kind, SAMPLED, 20)
            assert_same_pool(engine, x, reference, (0.6,))
    finally:
        assert _core.use_instruction_set(before)
