"""The tile loop for clusters of four blocks, its very source, run on the host: the bits of single blocks."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import cuda_host_library
import ml_dtypes
import numpy as np
import pytest
from cuda_host_classes import BINS, CLASS_STATE, ENTRY, LOOPS, SHAPES, TILE, at
from cuda_host_wgmma import HostError, Library, Rows, TilePass, Work, load, triangle

pytestmark = pytest.mark.skipif(cuda_host_library.missing() is not None, reason=str(cuda_host_library.missing()))
SEEDS = pytest.mark.parametrize("seed", [0, 1, 2], ids=["in order", "shuffled", "shuffled otherwise"])
RAGGED = (1, 127, 128, 129, 256, 257, 300, 0, 700)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return load(tmp_path_factory)


def random_rows(m: int, dim: int, *, dtype=np.float16, segments: int = 1) -> Rows:
    """Rows whose sums float32 has to round."""
    x = np.random.default_rng(m).standard_normal((m, dim * (1 if segments == 1 else 2))).astype(dtype)
    return Rows(x, segments=segments)


def counted(library: Library, loop: str, sizes: Sequence[int], rows: Rows, seed: int, last: int | None = None):
    """Everything that the pass that counts leaves behind, the lists in an order of their own."""
    num_classes, room = len(sizes), np.array(sizes) ** 2 // 2  # all pairs
    starts = np.concatenate([[0], np.cumsum(room)])
    states = np.zeros(num_classes, CLASS_STATE)
    states["lo"], states["hi"], states["bins_lo"], states["bins_hi"] = -3, 5, -3, 5
    states["m"], states["capacity"] = sizes, room
    states["list_start"] = starts[:-1]
    above = np.zeros(sum(sizes), np.uint32)
    entries = np.zeros(starts[-1], ENTRY)
    histogram = np.zeros((num_classes, BINS), np.uint64)
    tiles = triangle(sizes, rows, LOOPS[loop])
    tiles.work.last = tiles.work.last if last is None else last
    library.run("count", tiles, states, above, entries, histogram, seed=seed)
    order = np.lexsort((entries["column"], entries["row"], np.repeat(np.arange(num_classes), room)))
    return states.tobytes(), above, histogram, entries[order]


def assert_same(found, wanted) -> None:
    assert found[0] == wanted[0]
    for one, other in zip(found[1:], wanted[1:], strict=True):
        np.testing.assert_array_equal(one, other)


@SEEDS
@pytest.mark.parametrize(
    ("sizes", "dim", "segments", "dtype"),
    [
        (RAGGED, 64, 1, np.float16),
        (RAGGED, 40, 1, ml_dtypes.bfloat16),  # less than a slice
        ((300, 1, 257), 200, 1, np.float16),  # the last slice reaches beyond the row
        ((129, 257, 40), 128, 3, np.float16),
        ((257, 130), 520, 1, ml_dtypes.bfloat16),  # more slices than stages
        ((700,), 8, 1, np.float16),  # a slice a tile: the copies run squares ahead
    ],
)
def test_count_has_the_bits_of_single_blocks(library, seed, sizes, dim, segments, dtype):
    rows = random_rows(sum(sizes), dim, dtype=dtype, segments=segments)
    assert_same(counted(library, "wgmma-cluster", sizes, rows, seed), counted(library, "wgmma", sizes, rows, seed))


@SEEDS
@pytest.mark.parametrize(("m", "dim", "segments"), [(257, 72, 1), (512, 64, 1), (650, 16, 1), (300, 64, 3)])
def test_store_has_the_bits_of_single_blocks(library, seed, m, dim, segments):
    rows = random_rows(m, dim, segments=segments)
    found, wanted = (np.full((m, m), np.nan, np.float32) for _ in range(2))
    library.run("store", triangle([m], rows, LOOPS["wgmma-cluster"]), found, seed=seed)
    library.run("store", triangle([m], rows), wanted)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("last", [5, 10, 17, 20])
def test_work_that_ends_early(library, last):
    """In the midst of a class, which lies behind others."""
    sizes = (260, 130, 800)
    rows = random_rows(sum(sizes), 16)
    found, wanted = (counted(library, loop, sizes, rows, 0, last) for loop in ("wgmma-cluster", "wgmma"))
    assert_same(found, wanted)


@pytest.mark.parametrize("shape", ["few tiles", "part", "sample", "rectangle"])
def test_work_that_has_no_squares(library, shape):
    m = 130 if shape == "few tiles" else 700
    rows = random_rows(m, 16)
    side = -(-m // TILE)
    tiles = {"sample": side, "rectangle": side * side}.get(shape, side * (side + 1) // 2)
    offsets, tile_start = np.array([0, m], np.int64), np.array([0, tiles], np.int64)
    kind = SHAPES.get(shape, SHAPES["triangle"])
    work = Work(at(offsets), at(tile_start), 5 if shape == "part" else 0, tiles, 1, m, kind)
    states = np.zeros(1, CLASS_STATE)
    states["bins_lo"], states["bins_hi"] = -20, 20
    histograms = np.zeros((2, BINS), np.uint64)
    for histogram, loop in zip(histograms, ("wgmma-cluster", "wgmma"), strict=True):
        library.run("histogram", TilePass(LOOPS[loop], work, rows.tile_rows, rows.tile_rows), states, histogram)
    assert histograms[0].sum() > 0
    np.testing.assert_array_equal(*histograms)


def test_operands_must_fit_each_other(library):
    tiles = triangle([600], random_rows(600, 64), LOOPS["wgmma-cluster"])
    tiles.columns.dim = 56
    with pytest.raises(HostError, match="invalid argument"):
        library.run("store", tiles, np.zeros((600, 600), np.float32))


# ---- the stand-in finds what goes wrong in a cluster ---------------------------------------------------------

FAULTS = {
    "wrong mask": "the block is stuck: .*mbarrier.try_wait",
    "no remote arrival": "the block is stuck: .*mbarrier.try_wait",
    "early exit": "the other block has left",
    "no barrier at first": "no mbarrier here",
    "one block misses the barrier": "no mbarrier here|the block is stuck: .*barrier.cluster",
    "wrong byte count": "the block is stuck: .*mbarrier.try_wait",
    "no such block": "no such block in the cluster",
}


def shared(library: Library, fault: int, seed: int) -> None:
    x = np.random.default_rng(0).integers(0, 1000, (3, 16 * 64)).astype(np.uint16)
    sums = np.zeros((2, 3), np.uint64)
    library("host_share", seed, fault, ctypes.c_void_p(at(x)), ctypes.c_void_p(at(sums)))
    assert library.unfinished() == 0
    np.testing.assert_array_equal(sums, np.tile(x.sum(axis=1, dtype=np.uint64), (2, 1)))


@pytest.mark.parametrize("seed", range(10))
def test_blocks_of_a_cluster_share(library, seed):
    shared(library, 0, seed)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(library, fault, seed):
    number = 1 + list(FAULTS).index(fault)
    with pytest.raises(HostError, match=FAULTS[fault]):
        shared(library, number, seed)
