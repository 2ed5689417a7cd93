"""The CUDA kernels, their very source, run on the host and held against the reference."""

from __future__ import annotations

import functools
from types import ModuleType

import cuda_host_library
import numpy as np
import pytest
from cuda_host_classes import BINS, CLASS_STATE, DTYPES, ENTRY, STREAM, TILE, Classes, at

from proto_engine.backends.base import error_bound
from proto_engine.backends.reference import ReferencePool, pinned_dot, to_double

pytestmark = pytest.mark.skipif(cuda_host_library.missing() is not None, reason=str(cuda_host_library.missing()))
SIZES = (1, 129, 0, 260, 128, 2)
# How rows come to a tile loop, of which elements, how many a row.
LOOPS = [
    ("simt", "unit", "float32", 33),
    ("simt", "stored", "float32", 48),
    ("simt", "unit", "float64", 16),
    ("mma", "stored", "float16", 32),
    ("mma", "stored", "float16", 136),
    ("mma", "stored", "bfloat16", 64),
    ("mma", "split", "float32", 70),
]


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return cuda_host_library.load(tmp_path_factory)


@pytest.fixture(params=[0, 1], ids=["in order", "shuffled"])
def shuffled(core: ModuleType, request: pytest.FixtureRequest):
    """Blocks and threads in their order, and in a random one."""
    core.set_seed(request.param)
    yield
    core.set_seed(0)


def rows(m: int, dim: int, dtype: str, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((m, dim)) + 0.2).astype(np.dtype(dtype))


def squares_of(x: np.ndarray) -> np.ndarray:
    return np.asarray(pinned_dot(to_double(x), to_double(x)))


@functools.cache
def similarity_of_classes(core: ModuleType, loop: str, form: str, dtype: str, dim: int, sizes: tuple[int, ...]):
    """s32 of each class; made once, not to be written to."""
    classes = Classes(core, rows(sum(sizes), dim, dtype), sizes)
    return [classes.alone(c).similarity(loop, form) for c in range(len(sizes))]


def reference(x: np.ndarray) -> ReferencePool:
    return ReferencePool(x, squares_of(x))


# ---- rows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("m", "dim"), [(1, 1), (33, 7), (70, 40)])
def test_rows_have_the_bits_of_the_reference(core, dtype, m, dim):
    x = rows(m, dim + 3, dtype)[:, :dim]  # rows apart
    classes = Classes(core, x, [m])
    squares = squares_of(x)
    np.testing.assert_array_equal(classes.squares, squares)
    np.testing.assert_array_equal(classes.inverse, (1.0 / np.sqrt(squares)).astype(np.float32))
    unit = to_double(x) * (1.0 / np.sqrt(squares))[:, None]
    np.testing.assert_array_equal(classes.unit(), unit.astype(np.float32))


def test_split_rows_add_up_to_unit_rows(core):
    classes = Classes(core, rows(20, 70, "float32"), [20])
    split = classes.split().reshape(20, 2, 128)
    wanted = classes.unit() * np.float32(1024)
    np.testing.assert_array_equal(split[:, 0, :70], wanted.astype(np.float16))
    np.testing.assert_array_equal(split[:, 1, :70], (wanted - split[:, 0, :70]).astype(np.float16))
    assert not split[:, :, 70:].any()
    assert np.abs(split[:, :, :70].astype(np.float64).sum(axis=1) - wanted).max() <= 1024 * 2.0**-22


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pairs_have_the_bits_of_the_reference(core, dtype):
    x = rows(50, 37, dtype)
    first, second = np.random.default_rng(1).integers(0, 50, (2, 75))
    out = np.full(75, np.nan)
    classes = Classes(core, x, [50])
    core.cuda.pairs(classes.rows, at(first), at(second), 75, at(out), STREAM)
    np.testing.assert_array_equal(out, reference(x).s[first, second])


@pytest.mark.parametrize(("columns", "dtype"), [(7, "float16"), (16, "float16"), (4, "float32"), (3, "float64")])
def test_gather_moves_rows(core, columns, dtype):
    x = rows(40, columns + 8, dtype)[:, :columns]
    index = np.random.default_rng(1).integers(0, 40, 25)
    to = np.zeros((25, columns + 8), dtype)
    core.cuda.gather(at(x), x.strides[0], at(index), 25, columns * x.itemsize, at(to), to.strides[0], STREAM)
    np.testing.assert_array_equal(to[:, :columns], x[index])
    assert not to[:, columns:].any()


# ---- passes over the tiles -----------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, TILE, 200])
@pytest.mark.parametrize(("loop", "form", "dtype", "dim"), LOOPS)
def test_similarity_is_within_the_bound(core, loop, form, dtype, dim, m):
    x = rows(m, dim, dtype)
    s = Classes(core, x, [m]).similarity(loop, form)
    assert np.abs(s - reference(x).s).max() <= error_bound(dim)
    np.testing.assert_array_equal(s, s.T)


@pytest.mark.parametrize(("loop", "form", "dtype", "dim"), LOOPS)
@pytest.mark.parametrize("capacity", [40000, 1000])
@pytest.mark.usefixtures("shuffled")
def test_count_counts_what_the_loop_computes(core, loop, form, dtype, dim, capacity):
    classes = Classes(core, rows(sum(SIZES), dim, dtype), SIZES)
    states = np.zeros(len(SIZES), CLASS_STATE)
    states["lo"] = states["bins_lo"] = -0.1
    states["hi"] = states["bins_hi"] = 0.15
    states["capacity"] = capacity
    states["list_start"] = np.arange(len(SIZES)) * capacity
    above = np.zeros(sum(SIZES), np.uint32)
    entries = np.zeros(capacity * len(SIZES), ENTRY)
    histogram = np.zeros((len(SIZES), BINS), np.uint64)
    tiles = classes.tile_pass(loop, form)
    core.cuda.count(tiles, at(states), at(above), at(entries), at(histogram), STREAM)
    for c, s in enumerate(similarity_of_classes(core, loop, form, dtype, dim, SIZES)):
        lo, hi = states["lo"][c], states["hi"][c]
        others = ~np.eye(len(s), dtype=bool)
        np.testing.assert_array_equal(above[classes.part(c)], ((s > hi) & others).sum(axis=1))
        i, j = np.nonzero(np.triu((s >= lo) & (s <= hi), 1))
        assert states["inside"][c] == len(i)
        assert states["above"][c] == np.triu(s > hi, 1).sum()
        np.testing.assert_array_equal(histogram[c], counts_in_bins(core, s[i, j], lo, hi))
        found = entries[c * capacity : (c + 1) * capacity]
        if len(i) <= capacity:
            found = np.sort(found[: len(i)], order=["row", "column"])
            np.testing.assert_array_equal(found["row"], i)
            np.testing.assert_array_equal(found["column"], j)
        assert (found["value"][: len(i)] == s[found["row"], found["column"]][: len(i)]).all()


@pytest.mark.parametrize(("loop", "form", "dtype", "dim"), LOOPS)
@pytest.mark.parametrize("shape", ["triangle", "sample"])
@pytest.mark.usefixtures("shuffled")
def test_histogram_counts_what_the_loop_computes(core, loop, form, dtype, dim, shape):
    sizes = (2, 0, 130, 700) if loop == "simt" else SIZES
    classes = Classes(core, rows(sum(sizes), dim, dtype), sizes)
    states = np.zeros(len(sizes), CLASS_STATE)
    states["bins_lo"], states["bins_hi"] = -0.3, 0.4
    histogram = np.zeros((len(sizes), BINS), np.uint64)
    core.cuda.histogram(classes.tile_pass(loop, form, shape, 2), at(states), at(histogram), STREAM)
    for c, s in enumerate(similarity_of_classes(core, loop, form, dtype, dim, sizes)):
        m = len(s)
        pairs = np.triu(np.ones((m, m), bool), 1)
        if shape == "sample" and m > 4 * TILE:
            side = -(-m // TILE)
            visited = np.zeros((side, side), bool)
            for t in range(core.sample_tiles(side, 2)):
                visited[core.sample_tile(t, side, 2)] = True
            pairs &= np.kron(visited, np.ones((TILE, TILE), bool))[:m, :m]
        np.testing.assert_array_equal(histogram[c], counts_in_bins(core, s[pairs], -0.3, 0.4))


def counts_in_bins(core: ModuleType, s: np.ndarray, lo: float, hi: float) -> np.ndarray:
    return np.bincount(core.bin_of32(s, lo, hi), minlength=BINS)
