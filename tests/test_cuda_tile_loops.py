"""The tile loops on a GPU: whole numbers, of which float32 loses nothing, so that every product must be exact. And the
scores of clusters of blocks, in the same way.

On the host the same checks run with what stands in for CUDA.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import cuda_host_library
import ml_dtypes
import numpy as np
import pytest
from cuda_host_classes import DTYPES, LOOPS, SHAPES, TILE
from cuda_host_library import missing

from proto_engine.backends.cuda import CudaBackend
from proto_engine.backends.device import SCORE_CLUSTER
from proto_engine.backends.outcomes import trusting

STREAM = 0
TENSOR_CORES = ("mma", "wgmma", "wgmma-cluster")


class OnDevice:
    """Arrays in device memory for as long as this lives."""

    def __init__(self, cuda: ModuleType) -> None:
        self.cuda, self.kept = cuda, []

    def put(self, array: np.ndarray) -> int:
        memory = self.cuda.DeviceMemory(array.nbytes, 0, STREAM)
        self.cuda.upload(memory.pointer, array, STREAM)
        self.kept.append(memory)
        return int(memory.pointer)

    def get(self, pointer: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        out = np.empty(shape, dtype)
        self.cuda.download(out, pointer, STREAM)
        return out


def stored(cuda: ModuleType, loop: str, x: np.ndarray, segments: int = 1) -> np.ndarray:
    """The products of all pairs of rows, ones on the diagonal.   [m, m]"""
    device = OnDevice(cuda)
    m, width = x.shape
    tiles = -(-m // TILE) * (-(-m // TILE) + 1) // 2
    dim = width if segments == 1 else width // 2
    rows = (device.put(x), m, dim, width, DTYPES.index(x.dtype), segments, 0, 1.0)
    offsets, tile_start = (device.put(np.array([0, n], np.int64)) for n in (m, tiles))
    out = device.put(np.full((m, m), np.nan, np.float32))
    work = (offsets, tile_start, 0, tiles, 1, 0, SHAPES["triangle"])
    cuda.similarity((LOOPS[loop], work, rows, rows), out, STREAM)
    return device.get(out, (m, m), np.float32)


def check_stored(cuda: ModuleType, loop: str, dtype: Any, m: int, dim: int, segments: int) -> None:
    parts = np.random.default_rng(m).integers(-8, 9, (segments // 2 + 1, m, dim)).astype(dtype)
    high, low = parts[0].astype(np.float32), parts[-1].astype(np.float32)
    wanted = high @ high.T if segments == 1 else high @ high.T + high @ low.T + low @ high.T
    np.fill_diagonal(wanted, 1)
    got = stored(cuda, loop, np.ascontiguousarray(np.hstack(parts)), segments)
    wrong = np.argwhere(got != wanted)
    assert not len(wrong), f"{len(wrong)} of {m * m} are wrong, the first at {wrong[0]}: {got[tuple(wrong[0])]}"


def check_scores(cuda: ModuleType, dtype: Any, n: int, dim: int, times: int = 1) -> None:
    """Whole numbers over powers of two: no sum is rounded, so that their order does not matter."""
    rng = np.random.default_rng(n)
    x = rng.integers(-8, 9, (n, dim)).astype(dtype)
    folded = np.ldexp(rng.integers(-8, 9, (14, dim)).astype(np.float64), -10)
    double = x.astype(np.float64)
    sigma = (double @ folded.T) / np.sqrt((double * double).sum(axis=1))[:, None]
    label = sigma.argmax(axis=1)
    best_two = np.sort(sigma, axis=1)[:, :-3:-1].T
    backend = CudaBackend(native=cuda, clusters=True)
    for _ in range(times):
        with trusting(f"cuda/{SCORE_CLUSTER}"):
            found = backend.top2(backend.copied(x), folded)
        for got, wanted in zip(found, (label, *best_two), strict=True):
            wrong = np.flatnonzero(got != wanted)
            assert not len(wrong), f"{len(wrong)} of {n} are wrong, the first in row {wrong[0]}: {got[wrong[0]]}"


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    core = pytest.importorskip("proto_engine._core", reason="the native module was not built")
    if not hasattr(core, "cuda"):
        pytest.skip("built without CUDA")
    return core.cuda


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("m", "dim", "segments"),  # from one slice of one tile to more tiles than there are multiprocessors
    [
        (64, 64, 1),
        (128, 64, 1),
        (128, 128, 1),
        (128, 384, 1),  # as many slices as there are stages
        (128, 448, 1),  # one more
        (200, 136, 1),  # the last slice reaches beyond the row
        (130, 128, 3),
        (4000, 8, 1),  # a slice a tile: the copies run tiles ahead
        (4000, 512, 1),
        (3000, 192, 3),
    ],
)
@pytest.mark.parametrize("loop", TENSOR_CORES)
def test_tile_loop_on_a_gpu_has_every_product(gpu, loop, m, dim, segments, dtype):
    capability = gpu.device_properties(0)["compute_capability"]
    if capability < (8, 0) or (loop.startswith("wgmma") and capability != (9, 0)):
        pytest.skip("this GPU has no such instructions")
    for _ in range(3):  # a race need not show the first time
        check_stored(gpu, loop, dtype, m, dim, segments)


@pytest.mark.gpu
@pytest.mark.parametrize(("m", "dim"), [(64, 16), (128, 128), (200, 37), (4000, 8), (4000, 512)])
@pytest.mark.parametrize("loop", ["simt"])
def test_plain_tile_loop_on_a_gpu_has_every_product(gpu, loop, m, dim):
    for _ in range(3):
        check_stored(gpu, loop, np.float32, m, dim, 1)


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.parametrize(
    ("dtype", "m", "dim", "segments"),
    [(np.float16, 64, 64, 1), (ml_dtypes.bfloat16, 200, 136, 1), (np.float16, 130, 128, 3)],
)
@pytest.mark.parametrize("loop", TENSOR_CORES)
def test_tile_loop_on_the_host_has_every_product(tmp_path_factory, loop, dtype, m, dim, segments):
    check_stored(cuda_host_library.load(tmp_path_factory).cuda, loop, dtype, m, dim, segments)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("n", "dim"),  # one row; every number of blocks in a cluster; more tiles than clusters run at once
    [(1, 264), (64, 512), (130, 768), (500, 1000), (700, 1280), (900, 1536), (1100, 1792), (30000, 512), (30000, 2048)],
)
@pytest.mark.parametrize("kernel", [SCORE_CLUSTER])
def test_scores_of_clusters_on_a_gpu(gpu, kernel, n, dim, dtype):
    if gpu.device_properties(0)["compute_capability"] != (9, 0):
        pytest.skip("this GPU has no such instructions")
    check_scores(gpu, dtype, n, dim, times=3)


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.parametrize(("dtype", "n", "dim"), [(np.float16, 130, 768), (ml_dtypes.bfloat16, 700, 1280)])
def test_scores_of_clusters_on_the_host(tmp_path_factory, dtype, n, dim):
    check_scores(cuda_host_library.load(tmp_path_factory).cuda, dtype, n, dim)


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.parametrize(("m", "dim"), [(64, 16), (200, 37)])
@pytest.mark.parametrize("loop", ["simt"])
def test_plain_tile_loop_on_the_host_has_every_product(tmp_path_factory, loop, m, dim):
    check_stored(cuda_host_library.load(tmp_path_factory).cuda, loop, np.float32, m, dim, 1)
