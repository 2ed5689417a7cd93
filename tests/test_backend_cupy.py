"""The CuPy backend: its launches, run on the host, give the bits of the reference, and (gpu) so do CuPy's."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cuda_host_library
import cupy_host
import numpy as np
import pytest
from exact_cases import (
    DTYPES,
    KINDS,
    REFERENCE,
    Engine,
    assert_same_bits,
    assert_same_pool,
    assert_same_sums,
    case,
    class_vectors,
)
from problems import has_gpu

from proto_engine.backends import cupy_launches, cupy_programs
from proto_engine.backends import device as mirror
from proto_engine.backends.base import error_bound
from proto_engine.backends.cupy import CupyBackend, CupyGpu, unavailable_reason
from proto_engine.backends.cupy_compiler import Kernel
from proto_engine.backends.cupy_launches import Launches, blocks_for, class_grid
from proto_engine.backends.cupy_programs import by_value
from proto_engine.backends.cupy_score_launches import score_reach
from proto_engine.backends.device import StoredRows, TilePass, TileRows, Work
from proto_engine.backends.device_scoring import SigmaOutput, Top2Output, score, top2

ROOT = Path(__file__).parent.parent
needs_cupy = pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
needs_compiler = pytest.mark.skipif(cuda_host_library.missing() is not None, reason=str(cuda_host_library.missing()))


# ---- launches --------------------------------------------------------------------------------------------


class Recorded:
    """Launches of one program's kernels, on a GPU of 132 processors that run three blocks each."""

    processors = 132

    def __init__(self, launched: list[tuple[Any, ...]], name: str) -> None:
        self._launched, self._name = launched, name

    def launch(
        self, grid: tuple[int, ...], threads: int, shared: int, stream: Any, arguments: Sequence[np.ndarray]
    ) -> None:
        values = tuple(argument.item() for argument in arguments)
        self._launched.append((self._name.split("<")[0], grid, threads, shared, stream, values))

    def most_blocks(self, threads: int, shared: int) -> int:
        return 3 * self.processors


@pytest.fixture
def launched() -> list[tuple[Any, ...]]:
    return []


@pytest.fixture
def launches(launched: list[tuple[Any, ...]]) -> Launches:
    return Launches(lambda program, name: Recorded(launched, name), "stream")  # type: ignore[arg-type, return-value]


ROWS = StoredRows(1 << 40, 1000, 24, 32, 2, 512)


def native_constant(name: str) -> int:
    """Of launch.cuh, which only nvcc compiles."""
    found = re.search(rf"constexpr int64_t {name} = (\d{{2,}});", (ROOT / "csrc/cuda/launch.cuh").read_text())
    assert found is not None
    return int(found[1])


def test_grids_are_those_of_the_native_launches():
    most = native_constant("kMostBlocks")
    assert most == cupy_launches.MOST_BLOCKS
    assert [blocks_for(n, 32) for n in (0, 1, 32, 33, 32 * most, 10**12)] == [1, 1, 1, 2, most, most]
    assert class_grid(14) == (-(-most // 14), 14)
    assert class_grid(5000) == (1, 5000)


@pytest.mark.parametrize(
    ("numbers", "piece"), [((0, 4096, 512, 10, 64, 1 << 20, 64), 16), ((2, 4096, 512, 10, 64, 1 << 20, 64), 2)]
)
def test_gather_moves_pieces_as_wide_as_everything_is_aligned(launches, launched, numbers, piece):
    launches.gather(*numbers)
    blocks = -(-10 * (64 // piece) // 256)
    assert launched == [("gather_kernel", (blocks,), 256, 0, "stream", (*numbers, piece))]


def test_nothing_to_do_launches_nothing(launches, launched):
    empty = ROWS._replace(num_rows=0)
    launches.gather(0, 4, 0, 0, 4, 0, 4)
    launches.inverse(0, 0, 0)
    launches.squares(empty, 0)
    launches.unit(empty, 0)
    launches.split(empty, 0, 64)
    launches.pairs(ROWS, 0, 0, 0, 0)
    launches.list_bins(ROWS, 0, 0, 0.0, 1.0, 8, 0, 0, 0, 0)
    launches.list_threshold(ROWS, 0, 0, 0.5, 0, 0)
    launches.list_classes(ROWS, 0, 0, 0.5, 0, 3, 0)
    launches.list_extremes(ROWS, 0, 0, 0, 0, 0, 0)
    tiles = TileRows(64, 1000, 24, 24, 2, 1, 0, 1.0)
    launches.similarity(TilePass(0, Work(1, 2, 7, 7, 0, 0, 0), tiles, tiles), 3)
    assert launched == []


def test_pass_takes_as_many_blocks_as_run_at_once_or_tiles(launches, launched):
    rows = TileRows(64, 1000, 24, 48, 0, 3, 0, 0.5)
    columns = rows._replace(data=128, scale=256)
    for last, blocks in ((17, 10), (10**6, 396)):
        launches.near(TilePass(1, Work(1, 2, 7, last, 4, 5, 2), rows, columns), (11, 12, 13), 0.25, 14, 15, 16)
        kernel, grid, threads, shared, _, values = launched.pop()
        assert (kernel, grid, threads, shared) == ("tile_kernel", (blocks,), 256, 2 * 4 * 128 * 32 * 2 + 2)
        work, *operands, params = values
        assert work == (1, 2, 7, last, 4, 5, 2)
        assert operands == [(64, 48, 0, 0.5, 24, 3), (128, 48, 256, 0.5, 24, 3)]
        assert params == ((11, 12, 13), 0.25, 14, 15, 16)


def test_loops_and_rows_that_do_not_go_together_are_refused(launches):
    rows = TileRows(64, 1000, 24, 24, 2, 1, 0, 1.0)
    for loop, dtype in ((1, 2), (0, 0), (2, 0)):
        tiles = rows._replace(dtype=dtype)
        with pytest.raises(ValueError, match=r"^loop: wanted simt for float32 or mma"):
            launches.count(TilePass(loop, Work(1, 2, 0, 1, 0, 0, 0), tiles, tiles), 1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"^padded: wanted a multiple of 64 from 24 on, got 32"):
        launches.split(ROWS, 0, 32)


def test_classes_take_a_block_each_or_share_the_grid(launches, launched):
    launches.narrow(14, 1, 2, 6.0, 0.5)
    launches.cutoff(14, 1, 2, 3, 4)
    launches.rho(14, 1, 2, 3, 4, 5, 6)
    launches.pick(ROWS, 14, 1, 2, 3, 4, 5, 0, 8, 0.95, 6, 7, 8, 9)
    assert [(name, grid) for name, grid, *_ in launched] == [
        ("narrow_kernel", (14,)),
        ("locate_kernel", (14,)),
        ("collect_kernel", (147, 14)),
        ("cutoff_kernel", (14,)),
        ("patch_kernel", (147, 14)),
        ("rho_kernel", (147, 14)),
        ("smallest_kernel", (147, 14)),
        ("pick_kernel", (14,)),
    ]
    assert all(threads == mirror.TOP and shared == 0 for _, _, threads, shared, *_ in launched)
    assert launched[-1][-1] == ((1 << 40, 32, 24, 512), 1, 2, 3, 4, 5, 0, 8, 0.95, 6, 7, 8, 9)


# ---- the same launches on the host -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> cupy_host.HostKernels:
    return cupy_host.HostKernels(tmp_path_factory.mktemp("cupy"))


@pytest.fixture
def few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_launches, "MOST_BLOCKS", 3)  # a block takes long on the host


class HostEngine(Engine):
    """The backend over kernels that were compiled for the host."""

    def __init__(self, kernels: cupy_host.HostKernels, loop: str) -> None:
        self.name, self.backend = "cupy", cupy_host.HostCupyBackend(loop, kernels)

    def rows(self, x: np.ndarray) -> Any:
        return self.backend.native(x)


@needs_compiler
@pytest.mark.usefixtures("few_blocks")
@pytest.mark.parametrize(("kind", "m"), [("normal", 1), ("duplicates", 40), ("close", 130)])
@pytest.mark.parametrize(("loop", "dtype"), [("simt", "float32"), ("mma", "float32"), ("mma", "float16")])
def test_launches_on_the_host_give_the_bits_of_the_reference(kernels, loop, dtype, kind, m):
    x, reference = case(kind, m, 24, dtype)
    assert_same_pool(HostEngine(kernels, loop), x, reference, (0.6,))


@needs_compiler
@pytest.mark.usefixtures("few_blocks")
@pytest.mark.parametrize("dim", [257, 520, 769])
def test_blocks_of_the_sums_on_the_host_are_the_references(kernels, dim):
    x, reference = case("normal", 20, dim)
    assert_same_sums(HostEngine(kernels, "simt"), x, reference)
    assert_same_pool(HostEngine(kernels, "simt"), x, reference, (0.6,))


@needs_compiler
@pytest.mark.usefixtures("few_blocks")
@pytest.mark.parametrize("loop", ["simt", "mma"])
def test_picks_on_the_host_are_the_references(kernels, loop):
    x, reference = case("normal", 150, 24)
    engine = HostEngine(kernels, loop)
    (picks,) = engine.backend.pick_ragged(engine.rows(x), engine.squares(x), [150], 4, 0.6, 0.95)
    cutoff, rho = reference.density(0.6)
    assert picks.cutoff == cutoff
    assert_same_bits(picks.rho, rho[picks.rows])
    assert np.abs(np.asarray(engine.pool(x).similarity()) - reference.s).max() <= engine.pool(x).bound


@needs_compiler
@pytest.mark.usefixtures("few_blocks")
@pytest.mark.parametrize(("loop", "dtype"), [("simt", "float32"), ("mma", "float16")])
def test_counts_by_class_on_the_host_are_the_references(kernels, loop, dtype):
    x, reference = case("close", 150, 24, dtype)
    offsets = np.array([0, 130, 130, 149, 150])
    cutoff, counts = reference.class_counts(0.9, offsets)
    found = HostEngine(kernels, loop).pool(x).class_counts(0.9, offsets)
    assert found[0] == cutoff
    assert_same_bits(found[1], counts)


@needs_compiler
@pytest.mark.usefixtures("few_blocks")
@pytest.mark.parametrize(("dtype", "dim"), [("float32", 40), ("float16", 200), ("float32", 520), ("float16", 769)])
def test_scores_on_the_host_are_the_references(kernels, dtype, dim):
    x, _ = case("normal", 70, dim, dtype)
    folded = class_vectors(np.random.default_rng(0), 14, dim)
    rows = HostEngine(kernels, "mma").rows(x)
    for found, right in zip(top2(rows, folded, Top2Output()), REFERENCE.top2(x, folded), strict=True):
        assert_same_bits(np.asarray(found), right)
    sigma = np.asarray(score(rows, folded, SigmaOutput()))
    assert np.abs(sigma - np.asarray(REFERENCE.score(x, folded))).max() <= error_bound(dim)


@needs_compiler
@pytest.mark.parametrize("dtype", range(4))
def test_reach_of_the_scores_has_the_bits_of_the_native_one(kernels, dtype):
    for dim in [*range(1, 400), 1000, 2048, 65536, 2**22, 2**23 - 16, 2**23, 2**25]:
        assert score_reach(dtype, dim) == kernels.score_reach(dtype, dim)


# ---- without a GPU, and with one -------------------------------------------------------------------------


def test_unavailable_backend_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert unavailable_reason().startswith("CuPy cannot be imported: ")


@needs_cupy
def test_missing_driver_is_a_reason_not_a_crash():
    reason = unavailable_reason()
    assert reason is None or reason.startswith("CuPy ")


@needs_cupy
@pytest.mark.skipif(has_gpu(), reason="the addresses are none of a GPU's")
def test_calls_are_those_that_cupy_has():
    """Without a driver they fail, but only after CuPy has taken the arguments."""
    from cupy.cuda import Function, driver

    gpu, host = CupyGpu(0, stream=0x5EED), np.zeros(4)
    kernel = Kernel(Function.__new__(Function), processors=132)
    work = by_value((cupy_programs.WORK, cupy_programs.P), ((1, 2, 3, 4, 5, 6, 7), 8))
    for call in (
        lambda: gpu.upload(host, 0),
        lambda: gpu.download(0, host),
        lambda: gpu.fill(0, 0, 8),
        lambda: gpu.empty(8),
        lambda: gpu.free_bytes(),
        lambda: gpu.pinned(8),
        lambda: gpu.event(),
        lambda: kernel.launch((3, 2), 256, 1024, gpu._stream, work),
        lambda: driver.funcSetAttribute(1, 8, 1024),
        lambda: driver.occupancyMaxActiveBlocksPerMultiprocessor(1, 256, 1024),
        lambda: CupyBackend().compute_capability(0),
    ):
        with pytest.raises(RuntimeError, match=r"CUDA|libcuda"):
            call()
    assert not gpu.is_pinned(host)
    assert gpu.stream == gpu._stream.ptr == 0x5EED


@pytest.fixture(params=["simt", "mma"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(f"cupy:{request.param}")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "m"), [*((kind, 129) for kind in KINDS), ("normal", 700)])
def test_cupy_gives_the_bits_of_the_reference(engine, kind, m, dtype):
    x, reference = case(kind, m, 40, dtype)
    assert_same_pool(engine, x, reference, (0.0, 0.6))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_classes", "dim"), [(14, 200), (40, 320)])
def test_cupy_scores_are_the_references(engine, dtype, num_classes, dim):
    x, _ = case("normal", 300, dim, dtype)
    folded = class_vectors(np.random.default_rng(0), num_classes, dim)
    for found, right in zip(engine.top2(x, folded), REFERENCE.top2(x, folded), strict=True):
        assert_same_bits(found, right)
    sigma = engine.score(x, folded)
    assert np.abs(sigma - np.asarray(REFERENCE.score(x, folded))).max() <= error_bound(dim)


@pytest.mark.gpu
def test_host_rows_stream_through_two_lanes(engine):
    x, _ = case("normal", 300, 40)
    folded = class_vectors(np.random.default_rng(0), 14, 40)
    chunks = [(start, x[start : start + 70]) for start in range(0, 300, 70)]
    found = list(engine.backend.top2_chunks(iter(chunks), folded))
    assert [start for start, _ in found] == [start for start, _ in chunks]
    for parts, right in zip(zip(*(result for _, result in found), strict=True), REFERENCE.top2(x, folded), strict=True):
        assert_same_bits(np.concatenate([np.asarray(part) for part in parts]), right)


@pytest.mark.gpu
def test_denormal_rows_have_the_bits_of_the_reference(engine):
    x = (case("normal", 60, 24)[0] * np.float32(2.0**-130)).astype(np.float32)
    assert (np.abs(x) < 2.0**-126).any() and engine.squares(x).all()
    assert_same_bits(engine.squares(x), REFERENCE.squared_norms(x))


@pytest.mark.gpu
@pytest.mark.parametrize("library", ["cupy", "torch"])
def test_arrays_stay_where_they_are(library):
    import proto_engine as pe

    x = case("normal", 300, 40)[0].copy()
    labels = np.arange(300) % 3
    wanted = pe.select_prototypes(x, labels, samples_per_class=None, backend="reference")
    if library == "cupy":
        cupy = pytest.importorskip("cupy")
        features = cupy.asarray(x)
        kind: type = cupy.ndarray
    else:
        torch = pytest.importorskip("torch")
        features, kind = torch.from_numpy(x).cuda(), torch.Tensor
    found = pe.select_prototypes(features, labels, samples_per_class=None, backend="cupy")
    assert_same_bits(found.indices, wanted.indices)
    unit = pe.ops.normalize(features, backend="cupy")
    assert isinstance(unit, kind) and unit.device == features.device


@pytest.mark.gpu
def test_work_is_in_the_order_of_the_callers_stream():
    """Rows that are only written on a stream of the caller's are read after that."""
    cupy = pytest.importorskip("cupy")
    x, reference = case("normal", 700, 40)
    backend = CupyBackend()
    with cupy.cuda.Stream(non_blocking=True):
        late = cupy.zeros(x.shape, dtype=cupy.float32)
        for _ in range(50):
            late += cupy.asarray(np.zeros_like(x))
        late[...] = cupy.asarray(x)
        rows = backend.native(late)
        pool = backend.pool(rows, backend.squared_norms(rows))
        found = pool.density(0.6)
    assert found[0] == reference.density(0.6)[0]
    assert_same_bits(found[1], reference.density(0.6)[1])
