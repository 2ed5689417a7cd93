"""Every backend gives the bits of the reference: cutoff, density, eta, labels and scores, on rows made to trip it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from exact_cases import (
    DTYPES,
    EXACT,
    KINDS,
    REFERENCE,
    SCORING,
    TILE,
    Engine,
    assert_same_bits,
    assert_same_density,
    assert_same_pool,
    case,
    reference_pool,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proto_engine.backends import exact
from proto_engine.backends.base import cutoff_rank, error_bound
from proto_engine.backends.reference import pinned_dot
from proto_engine.ops import density_order, eta_of

# On and beside the edges of a tile; the last goes through the sampled bracket.
SIZES = (1, TILE - 1, TILE, TILE + 1, 2 * TILE + 3)
SAMPLED = 400
assert SAMPLED * (SAMPLED - 1) // 2 > exact.KEEP_ALL_PAIRS


# ---- pools -----------------------------------------------------------------------------------------


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
@pytest.mark.parametrize("size", [1e200, 1e-200, 1e300, 1e-300, 1e30, 1e-30])
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
        s32 = np.asarray(Engine(backend).pool(x).similarity())
        assert s32.dtype == np.float32 and s32.shape == (m, m)
        assert_same_bits(s32, s32.T)
        assert (np.diag(s32) == 1).all()
        assert np.abs(s32 - reference.s).max() <= error_bound(12)


@pytest.mark.parametrize("backend", SCORING)
@pytest.mark.parametrize("dtype", DTYPES)
def test_normalize_gives_unit_rows_to_float32(backend, dtype):
    for dim in (3, 16, 29):
        x, _ = case("normal", TILE + 1, dim, dtype)
        engine = Engine(backend)
        squares = engine.squares(x)
        assert_same_bits(squares, REFERENCE.squared_norms(x))
        unit = np.asarray(engine.backend.normalize(engine.rows(x), squares))
        assert unit.dtype == np.float32
        np.testing.assert_allclose(unit, REFERENCE.normalize(x, squares), rtol=2.0**-23, atol=0)


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


# ---- scores ----------------------------------------------------------------------------------------


def _folded(rng: np.random.Generator, num_classes: int, dim: int) -> np.ndarray:
    """Means of three unit vectors a class; some classes are equal, some differ by less than float32 tells."""
    vectors = rng.standard_normal((num_classes, 3, dim))
    folded = (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).mean(axis=1)
    folded[num_classes // 2] = folded[0]
    folded[-1] = folded[num_classes // 3] * (1 + 1e-12)
    return folded


def _assert_same_top2(engine: Engine, x: np.ndarray, folded: np.ndarray) -> None:
    wanted = REFERENCE.top2(engine.rows(x) if engine.name != "torch" else x, folded)
    for found, right in zip(engine.top2(x, folded), wanted, strict=True):
        assert_same_bits(found, right)


@pytest.mark.parametrize("backend", SCORING)
@pytest.mark.parametrize("num_classes", [1, 2, 3, 7, 40])
def test_top2_has_the_reference_bits_and_ties_go_to_the_lower_class(backend, num_classes):
    rng = np.random.default_rng(num_classes)
    folded = _folded(rng, num_classes, 21)
    for dtype in DTYPES.values():
        x = np.concatenate(
            [
                rng.standard_normal((60, 21)),
                rng.choice([-2.0, 0.5, 4.0], (40, 1)) * folded[rng.integers(0, num_classes, 40)],
            ]
        )
        _assert_same_top2(Engine(backend), x.astype(dtype), folded)


@pytest.mark.parametrize("backend", SCORING)
def test_top2_of_many_rows_is_the_same_for_one_and_two_threads(backend, monkeypatch):
    rng = np.random.default_rng(0)
    x, folded = rng.standard_normal((5000, 33)).astype(np.float32), _folded(rng, 12, 33)
    for threads in (1, 2):
        monkeypatch.setenv("PROTO_ENGINE_NUM_THREADS", str(threads))
        _assert_same_top2(Engine(backend, threads), x, folded)
        _assert_same_top2(Engine(backend, threads), x[::3, ::-1], folded)


@pytest.mark.parametrize("backend", SCORING)
def test_top2_of_classes_that_float32_cannot_tell_apart(backend):
    rng = np.random.default_rng(0)
    for spread in (1e-9, 1e-8, 1e-7):
        folded = np.repeat(_folded(rng, 3, 24), 8, axis=0) * (1 + spread * rng.standard_normal((24, 24)))
        _assert_same_top2(Engine(backend), rng.standard_normal((100, 24)).astype(np.float32), folded)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("backend", SCORING)
def test_read_only_arrays_are_welcome_everywhere(backend):
    x, _ = case("normal", TILE + 1, 21)
    folded = _folded(np.random.default_rng(0), 5, 21)
    folded.flags.writeable = False
    _assert_same_top2(Engine(backend), x, folded)
    assert Engine(backend).score(x, folded).shape == (TILE + 1, 5)
    if backend in EXACT:
        engine = Engine(backend)
        squares = engine.squares(x).copy()
        squares.flags.writeable = False
        pool = engine.backend.pool(engine.rows(x), squares)
        rho = pool.density(0.6)[1]
        order = density_order(rho)
        order.flags.writeable = False
        assert_same_bits(eta_of(pool, rho, order, order), eta_of(reference_pool(x), rho, order))


@pytest.mark.parametrize("backend", SCORING)
def test_top2_where_all_classes_tie(backend):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 8)).astype(np.float32)
    folded = np.repeat(_folded(rng, 3, 8)[:1], 9, axis=0)
    label, best, second = Engine(backend).top2(x, folded)
    assert (label == 0).all()
    assert_same_bits(best, second)
    _assert_same_top2(Engine(backend), x, folded)


BAD_ROWS = {
    "float16": (0.0, np.nan, np.inf, 1e30),
    "float32": (0.0, np.nan, -np.inf),
    "float64": (0.0, np.nan, np.inf, -0.0),
}


@pytest.mark.parametrize("backend", SCORING)
@pytest.mark.parametrize("dtype", BAD_ROWS)
@pytest.mark.filterwarnings("error")
def test_rows_without_a_direction_get_no_label_and_nan(backend, dtype):
    rng = np.random.default_rng(0)
    folded = _folded(rng, 5, 11)
    x = rng.standard_normal((20, 11))
    for at, value in enumerate(BAD_ROWS[dtype]):
        x[3 * at] = 0.0
        x[3 * at, 7] = value
    with np.errstate(over="ignore"):
        x = x.astype(dtype)
    bad = 3 * np.arange(len(BAD_ROWS[dtype]))
    label, best, second = Engine(backend).top2(x, folded)
    sigma = Engine(backend).score(x, folded)
    assert (label[bad] == -1).all() and (label >= 0).sum() == len(x) - len(bad)
    assert np.isnan(best[bad]).all() and np.isnan(second[bad]).all() and np.isnan(sigma[bad]).all()
    assert not np.isnan(np.delete(sigma, bad, axis=0)).any()
    _assert_same_top2(Engine(backend), x, folded)
    _assert_same_top2(Engine(backend), x[bad], folded)


@pytest.mark.parametrize("backend", SCORING)
@pytest.mark.parametrize("dtype", DTYPES)
def test_score_is_within_the_bound(backend, dtype):
    rng = np.random.default_rng(0)
    for n, dim, num_classes in ((1, 1, 1), (33, 40, 5), (1500, 16, 3)):
        folded = _folded(rng, num_classes, dim)
        x = rng.standard_normal((n, dim)).astype(DTYPES[dtype])
        sigma = Engine(backend).score(x, folded)
        assert sigma.dtype == np.float32 and sigma.shape == (n, num_classes)
        assert np.abs(sigma - REFERENCE.score(x, folded)).max() <= error_bound(dim)


# ---- instruction sets ------------------------------------------------------------------------------


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
            folded = _folded(np.random.default_rng(0), 37, 21)
            _assert_same_top2(engine, x, folded)
        for kind in ("normal", "binary"):
            x, reference = case(kind, SAMPLED, 20)
            assert_same_pool(engine, x, reference, (0.6,))
    finally:
        assert _core.use_instruction_set(before)


# ---- the bound -------------------------------------------------------------------------------------


def test_error_bound_is_the_textbook_one():
    u = 2.0**-24
    assert error_bound(512) == 520 * u / (1 - 520 * u)
    assert all(error_bound(d) < error_bound(d + 1) for d in range(1, 100))
    assert 8 * u < error_bound(1) < 1e-6 < error_bound(4096) < 1e-3


@pytest.mark.parametrize("dim", [1, 2, 7, 64, 777, 4096])
def test_error_bound_holds_for_every_order_of_additions(dim):
    rng = np.random.default_rng(dim)
    rows = [
        rng.standard_normal(dim),
        rng.random(dim),
        np.ones(dim),
        rng.random(dim) ** 8,
        10.0 ** rng.uniform(-9, 9, dim),
    ]
    rows += [-rows[1], np.where(np.arange(dim) % 2, 1.0, -1.0) * rows[1], np.sort(rows[1])]
    x = np.array(rows)
    squares = pinned_dot(x, x)
    s = pinned_dot(x[:, None], x[None]) / np.sqrt(squares[:, None] * squares)
    unit = (x / np.sqrt(squares)[:, None]).astype(np.float32)
    product = unit[:, None] * unit[None]  # [n, n, D] float32
    for values in (product, product[..., ::-1], np.sort(product), np.sort(product)[..., ::-1]):
        running = np.cumsum(values, axis=-1, dtype=np.float32)[..., -1]
        assert np.abs(running - s).max() <= error_bound(dim)
    assert np.abs(unit @ unit.T - s).max() <= error_bound(dim)


# ---- the reference by hand -------------------------------------------------------------------------

# Rows of length 5: S_01 = 24/25, S_02 = (9 - 16)/25 = -7/25, S_12 = (12 - 12)/25 = 0.
# The nine entries of S in order: -.28 -.28 0 0 .96 .96 1 1 1.
HAND = np.array([[3.0, 4.0], [4.0, 3.0], [3.0, -4.0]])


def test_reference_similarity_by_hand():
    np.testing.assert_array_equal(reference_pool(HAND).similarity(), [[1, 0.96, -0.28], [0.96, 1, 0], [-0.28, 0, 1]])


@pytest.mark.parametrize(
    ("quantile", "index", "cutoff"),
    [(0, 0, -0.28), (0.4, 3, 0), (0.5, 4, 0.96), (0.6, 4, 0.96), (0.98, 7, 1), (1, 8, 1)],
)
def test_reference_cutoff_by_hand(quantile, index, cutoff):
    assert cutoff_rank(quantile, 3) == index  # floor(8 q)
    assert reference_pool(HAND).density(quantile)[0] == cutoff
    s = reference_pool(HAND).s
    assert cutoff == np.quantile(s, quantile, method="lower")


def test_reference_density_by_hand():
    pool = reference_pool(HAND)
    # Against 0: row 0 has 1 and .96 above, -.28 below; row 1 has 1 and .96 above, 0 equal;
    # row 2 has 1 above, -.28 below, 0 equal.
    assert pool.density_at(0.0).tolist() == [1, 2, 0]
    # Against .96: the diagonal above everywhere; .96 equal; the rest below.
    assert pool.density_at(0.96).tolist() == [0, 0, -1]
    assert pool.density_at(-0.28).tolist() == [2, 3, 2]
    assert pool.density_at(1.0).tolist() == [-2, -2, -2]  # the diagonal is equal
    assert pool.density_at(0.0).dtype == np.int64


def test_reference_eta_by_hand():
    """Row 1 is the densest: its eta is the least of (.96, 1, 0). Row 0 looks at row 1 only, row 2 at both.

    Started from S_ii = 1, rows 0 and 2 would get 1. Compared the wrong way round, row 0 would look at
    row 2 and get -.28, and row 2, then the one without a better, the least of its row: -.28.
    """
    pool = reference_pool(HAND)
    rho = np.array([1, 2, 0])
    assert eta_of(pool, rho, np.arange(3)).tolist() == [0.96, 0.0, 0.0]
    # Equal densities do not shadow each other: rows 0 and 1 are both the densest.
    assert eta_of(pool, np.array([0, 0, -1]), np.arange(3)).tolist() == [-0.28, 0.0, 0.0]


@pytest.mark.parametrize("backend", EXACT)
def test_backends_by_hand(backend):
    pool = Engine(backend).pool(HAND)
    cutoff, rho = pool.density(0.4)
    assert (cutoff, rho.tolist()) == (0.0, [1, 2, 0])
    assert eta_of(pool, rho, np.arange(3)).tolist() == [0.96, 0.0, 0.0]
    assert pool.density(0.6)[1].tolist() == [0, 0, -1]


def test_reference_sum_is_pinned_by_hand():
    """1e16 + 1 is 1e16 in float64: what cancels first decides what is left."""
    ones = np.ones(16)
    a = np.zeros(16)
    a[[0, 8, 1]] = 1e16, -1e16, 1.0  # lane 0 cancels, then lane 1 is added
    assert pinned_dot(a, ones) == 1.0
    a = np.zeros(16)
    a[[0, 1, 4]] = 1e16, 1.0, -1e16  # lanes 0 + 4 first, then (1 + 5)
    assert pinned_dot(a, ones) == 1.0
    a = np.zeros(16)
    a[[0, 1, 7]] = 1.0, 1e16, -1e16  # (1 + 5) + (3 + 7) before the 1 of lane 0
    assert pinned_dot(a, ones) == 1.0
    a = np.zeros(16)
    a[[0, 1, 2]] = 1e16, 1.0, -1e16  # (0 + 4) + (2 + 6) before lane 1
    assert pinned_dot(a, ones) == 1.0
    a = np.zeros(16)
    a[[0, 8, 2]] = 1e16, 1.0, -1e16  # lane 0 takes the 1 in and loses it
    assert pinned_dot(a, ones) == 0.0


def test_reference_scores_by_hand():
    folded = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    rows = np.array([[3.0, 4.0], [4.0, 3.0], [0.0, 0.0], [np.nan, 1.0]])
    label, best, second = REFERENCE.top2(rows, folded)
    assert label.tolist() == [1, 0, -1, -1]  # classes 1 and 2 tie at .8: the lower one
    np.testing.assert_array_equal(best, [0.8, 0.8, np.nan, np.nan])
    np.testing.assert_array_equal(second, [0.8, 0.6, np.nan, np.nan])
    assert REFERENCE.top2(rows[:1], folded[:1])[2].tolist() == [-np.inf]
    np.testing.assert_array_equal(REFERENCE.score(rows, folded)[0], [0.6, 0.8, 0.8])
