"""The CUDA backend from end to end, on the host: the same bits as the reference."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from types import ModuleType

import cuda_host_library
import numpy as np
import pytest
from exact_cases import (
    DTYPES,
    KINDS,
    LONG,
    REFERENCE,
    Engine,
    assert_same_bits,
    assert_same_density,
    assert_same_pool,
    assert_same_sums,
    assert_same_top2,
    case,
    class_vectors,
)

from proto_engine import FeatureBank
from proto_engine.backends import device_backend, device_scan
from proto_engine.backends.base import eta_of
from proto_engine.backends.cuda import CudaBackend
from proto_engine.backends.device import OK, OVERFLOW, TIES
from proto_engine.backends.device_density import ClassBatch
from proto_engine.backends.device_pool import DevicePool
from proto_engine.backends.device_rows import tensor_core_bound
from proto_engine.backends.exact import cutoff_and_density
from proto_engine.backends.outcomes import trusting
from proto_engine.peaks import pick_density_peaks

pytestmark = pytest.mark.skipif(cuda_host_library.missing() is not None, reason=str(cuda_host_library.missing()))
LOOPS = ("simt", "mma", "wgmma", "wgmma-cluster")
SIZES = (130, 1, 300, 2, 128, 40)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The launches, compiled for the host; all memory that is taken is given back."""
    core = cuda_host_library.load(tmp_path_factory)
    yield core
    assert core.live_allocations() == 0


class HostEngine(Engine):
    """The CUDA backend over the launches that were compiled for the host."""

    def __init__(self, core: ModuleType, loop: str) -> None:
        self.name = "cuda"
        self.backend = CudaBackend(loop, core.cuda)

    def rows(self, x: np.ndarray):
        return self.backend.native(x)


# ---- memory --------------------------------------------------------------------------------------------


def test_memory_goes_back_on_its_stream_while_that_is_there(core):
    gc.collect()
    before = core.live_allocations()
    gpu = CudaBackend("simt", core.cuda).gpu(0, 0).new_stream()
    memory = gpu.empty(8)
    del gpu
    assert core.live_allocations() == before + 1
    del memory
    assert core.live_allocations() == before


def test_chunks_of_the_host_leave_no_memory_behind(core):
    x, _ = case("normal", 200, 24)
    backend, folded = CudaBackend("simt", core.cuda), class_vectors(np.random.default_rng(0), 3, 24)
    gc.collect()
    before = core.live_allocations()
    with trusting("cuda/score"):
        chunks = backend.top2_chunks([(0, x[:90]), (90, x[90:150]), (150, x[150:])], folded)
        label = np.concatenate([found[0] for _, found in chunks])
    assert_same_bits(label, REFERENCE.top2(x, folded)[0])
    del chunks
    gc.collect()
    assert core.live_allocations() == before


# ---- one class -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 5, 129])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loop", LOOPS)
def test_pool_has_the_bits_of_the_reference(core, loop, kind, m):
    x, reference = case(kind, m, 24)
    assert_same_pool(HostEngine(core, loop), x, reference, (0.4,) if m == 129 else (0.0, 0.4, 0.98, 1.0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 7, 72])
@pytest.mark.parametrize("loop", LOOPS)
def test_elements_of_any_kind_have_the_bits_of_the_reference(core, loop, dim, dtype):
    x, reference = case("normal", 70, dim, dtype)
    assert_same_pool(HostEngine(core, loop), x, reference, (0.6,))


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_of_the_sums_have_the_bits_of_the_reference(core, dtype):
    """float16 and bfloat16 sums seldom round; their scores do."""
    engine, rng = HostEngine(core, "simt"), np.random.default_rng(0)
    for dim in LONG:
        x, reference = case("normal", 20, dim, dtype)
        assert_same_sums(engine, x, reference)
        with trusting("cuda/score"):
            assert_same_top2(engine, x, class_vectors(rng, 5, dim))


@pytest.mark.parametrize("dim", [257, 520])
@pytest.mark.parametrize("loop", LOOPS)
def test_densities_beyond_a_block_are_the_reference_s(core, loop, dim):
    x, reference = case("close", 40, dim)
    assert_same_pool(HostEngine(core, loop), x, reference, (0.6,))


@pytest.mark.parametrize("exponent", [-120, 60])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_rows_of_any_size_have_the_bits_of_the_reference(core, dtype, exponent):
    """The squares of such bfloat16 rows leave float32, in which tensor cores add."""
    x, reference = case("normal", 70, 16, dtype)
    scaled = x * np.asarray(2.0**exponent, x.dtype)
    assert_same_density(HostEngine(core, "mma").pool(scaled).density(0.6), reference.density(0.6))


@pytest.mark.parametrize("loop", LOOPS)
def test_similarity_is_within_its_bound(core, loop):
    x, reference = case("normal", 129, 40)
    pool = HostEngine(core, loop).pool(x)
    assert np.abs(np.asarray(pool.similarity()) - reference.s).max() <= pool.bound


def test_the_bound_counts_all_products_of_a_chunk():
    """Three for each product that tensor cores add up; split rows of 64 have a chunk of 128 of them."""
    for dim, segments, products in ((8, 1, 8), (128, 1, 128), (2048, 1, 128), (64, 3, 128), (2048, 3, 128)):
        roundings = 3 * products + segments * -(-dim // 128) + 32
        assert tensor_core_bound(dim, segments) == pytest.approx(roundings * 2.0**-24, rel=1e-4)


@pytest.mark.parametrize("loop", LOOPS)
def test_the_quick_way_settles_ordinary_rows(core, loop):
    x, reference = case("normal", 300, 40)
    for quantile in (0.0, 0.4, 0.98, 1.0):
        batch = batch_of(core, loop, x, [300])
        batch.close_in(quantile)
        state = batch.states()[0]
        assert state["status"] == OK
        assert_same_density((float(state["cutoff"]), batch.densities()), reference.density(quantile))


@pytest.mark.parametrize("quantile", [0.1, 0.6])
def test_the_way_of_large_classes_settles_ordinary_rows(core, quantile):
    """Two samples, each narrower, and room for as many pairs as they say."""
    x, reference = case("normal", 700, 16)
    batch = batch_of(core, "simt", x, [700])
    batch.close_in(quantile, careful=True)
    state = batch.states()[0]
    assert state["status"] == OK
    assert state["capacity"] < 700 * 699 // 2
    assert_same_density((float(state["cutoff"]), batch.densities()), reference.density(quantile))


@pytest.mark.parametrize(("kind", "wanted"), [("equal", {OVERFLOW, TIES}), ("signs", {OVERFLOW, TIES})])
def test_the_quick_way_knows_where_it_ends(core, kind, wanted):
    x, _ = case(kind, 300, 40)
    batch = batch_of(core, "simt", x, [300])
    batch.close_in(0.4)
    assert batch.states()["status"][0] in wanted


@pytest.mark.parametrize("bracket", [(0.9, 0.95), (-0.9, -0.8), (-1.0, 1.0), (-np.inf, np.inf)])
@pytest.mark.parametrize("capacity", [100, None])
def test_any_bracket_leads_to_the_bits_of_the_reference(core, bracket, capacity):
    x, reference = case("normal", 129, 24)
    pool = HostEngine(core, "mma").pool(x)
    assert isinstance(pool, DevicePool)
    found = cutoff_and_density(pool, 0.6, bracket=bracket, capacity=capacity)
    assert_same_density(found, reference.density(0.6))


@pytest.mark.parametrize("kind", ["equal", "binary", "normal"])
def test_lists_that_are_too_long_are_made_in_slabs(core, monkeypatch, kind):
    """A tile at a time where all of them together have more pairs than a list holds."""
    monkeypatch.setattr(device_scan, "SLAB_TILES", 1)
    monkeypatch.setattr(device_scan, "SLAB_PAIRS", 128 * 128)
    x, reference = case(kind, 300, 24)
    pool = HostEngine(core, "simt").pool(x)
    cutoff, rho = reference.density(0.4)
    assert_same_density(cutoff_and_density(pool, 0.4, capacity=100), (cutoff, rho))
    assert_same_bits(pool.density_at(cutoff), rho)
    assert_same_bits(eta_of(pool, rho, np.arange(300)), eta_of(reference, rho, np.arange(300)))


# ---- many classes --------------------------------------------------------------------------------------


def test_many_small_classes_go_in_several_batches():
    """Their workspace stays small, and a grid can have as many rows of blocks."""
    pools = [np.array([c]) for c in range(2500)]
    batches = device_backend._batches(pools, bytes_a_row=4096)
    assert [len(batch) for batch in batches] == [1024, 1024, 452]
    assert [int(pool[0]) for batch in batches for pool in batch] == list(range(2500))


def batch_of(core: ModuleType, loop: str, x: np.ndarray, sizes: list[int]) -> ClassBatch:
    ready = HostEngine(core, loop).pool(x)._rows
    return ClassBatch(ready, np.concatenate([[0], np.cumsum(sizes)]))


def assert_same_picks(core: ModuleType, loop: str, x: np.ndarray, eta_max: float = 0.95, p: int = 5) -> int:
    """Picks of classes of SIZES among the rows, some of which must not be picked. How many were found quickly."""
    rng = np.random.default_rng(3)
    order = rng.permutation(len(x))
    pools = np.split(order, np.cumsum(SIZES))[:-1]
    may_pick = rng.random(len(x)) < 0.8
    squares = REFERENCE.squared_norms(x)
    backend = HostEngine(core, loop).backend
    found = backend.pick_classes(FeatureBank(x), squares, pools, p, 0.6, eta_max, may_pick)
    for pool, picks in zip(pools, found, strict=True):
        if picks is None:
            continue
        wanted = pick_density_peaks(REFERENCE.pool(x[pool], squares[pool]), p, 0.6, eta_max, may_pick[pool])
        for field in dataclasses.fields(picks):
            assert_same_bits(getattr(picks, field.name), getattr(wanted, field.name))
    return sum(picks is not None for picks in found)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("loop", LOOPS)
def test_picks_of_many_classes_are_the_reference_s(core, loop, dtype):
    x, _ = case("normal", 640, 40, dtype)
    assert assert_same_picks(core, loop, x) == len(SIZES)


@pytest.mark.parametrize("kind", ["duplicates", "close", "binary"])
def test_picks_among_ties_are_the_reference_s(core, kind):
    assert assert_same_picks(core, "simt", case(kind, 640, 40)[0]) > 0


@pytest.mark.parametrize("eta_max", [0.3, -1.0])
def test_picks_stay_the_same_when_rows_are_turned_down(core, eta_max):
    """Only the class of 300 may be too deep for the quick way."""
    assert assert_same_picks(core, "mma", case("normal", 640, 40)[0], eta_max, p=8) >= len(SIZES) - 1


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("loop", LOOPS)
def test_picks_do_not_depend_on_the_order_of_blocks_and_threads(core, loop, seed):
    core.set_seed(seed)
    try:
        assert assert_same_picks(core, loop, case("normal", 640, 40)[0]) == len(SIZES)
    finally:
        core.set_seed(0)
