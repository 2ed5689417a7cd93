"""The tile loop for Hopper, its very source, run on the host with software twins of Hopper's instructions."""

from __future__ import annotations

import ctypes

import cuda_host_library
import ml_dtypes
import numpy as np
import pytest
from cuda_host_classes import BINS, CLASS_STATE, ENTRY, SHAPES, at
from cuda_host_wgmma import HostError, Library, Rows, TilePass, Work, load, products, triangle, whole_numbers

from proto_engine.backends.base import error_bound

pytestmark = pytest.mark.skipif(cuda_host_library.missing() is not None, reason=str(cuda_host_library.missing()))
FAULTS = [
    "no wait for the copy",
    "no fence",
    "no commit",
    "no wait for the product",
    "refilled too early",
    "wrong byte count",
    "invisible barrier",
    "one warp otherwise",
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return load(tmp_path_factory)


@pytest.fixture(params=[0, 1, 2], ids=["in order", "shuffled", "shuffled otherwise"])
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def stored(library: Library, rows: Rows, seed: int = 0) -> np.ndarray:
    """[m, m]"""
    m = len(rows.x)
    out = np.full((m, m), np.nan, np.float32)
    library.run("store", triangle([m], rows), out, seed=seed)
    return out


def with_ones(s: np.ndarray) -> np.ndarray:
    """The upper triangle, mirrored, and ones between."""
    upper = np.triu(s, 1)
    return upper + upper.T + np.eye(len(s), dtype=s.dtype)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("m", "dim"),
    [(1, 64), (127, 64), (128, 128), (129, 192), (300, 136), (700, 8), (260, 1032)],  # 700 x 8: ring far ahead
)
def test_store_has_every_product(library, seed, dtype, m, dim):
    rows = Rows(whole_numbers(m, dim, dtype))
    wanted = products(rows.x, rows.x) * rows.scale[:, None] * rows.scale
    np.testing.assert_array_equal(stored(library, rows, seed), with_ones(wanted))


@pytest.mark.parametrize(("m", "dim", "stride"), [(140, 136, 144), (140, 60, 64), (130, 64, 200)])
def test_nothing_is_read_beyond_a_row(library, seed, m, dim, stride):
    x = np.full((m, stride), np.nan, np.float16)
    x[:, :dim] = whole_numbers(m, dim, np.float16)
    wanted = products(x[:, :dim], x[:, :dim])
    np.testing.assert_array_equal(stored(library, Rows(x, dim=dim, uniform=1.0), seed), with_ones(wanted))


@pytest.mark.parametrize(("m", "dim"), [(130, 64), (200, 128), (129, 192)])
def test_split_rows_add_three_products(library, seed, m, dim):
    high, low = whole_numbers(m, dim, np.float16), whole_numbers(m, dim, np.float16, seed=1)
    rows = Rows(np.hstack([high, low]), segments=3, uniform=0.5)
    wanted = (products(high, high) + products(high, low) + products(low, high)) / 4
    np.testing.assert_array_equal(stored(library, rows, seed), with_ones(wanted))


def test_store_is_within_the_bound(library):
    x = (np.random.default_rng(0).standard_normal((200, 520)) + 0.2).astype(np.float16)
    rows = Rows(x)
    norms = np.linalg.norm(x.astype(np.float64), axis=1)
    rows.scale[:] = 1 / norms
    exact = x.astype(np.float64) @ x.astype(np.float64).T / norms / norms[:, None]
    assert np.abs(stored(library, rows) - exact).max() <= error_bound(520)


def test_count_over_ragged_classes(library, seed):
    sizes = (1, 129, 0, 300, 128, 2, 257)
    rows = Rows(whole_numbers(sum(sizes), 72, np.float16), uniform=1.0)
    capacity = 40000
    states = np.zeros(len(sizes), CLASS_STATE)
    states["lo"], states["hi"] = -20, 130
    states["bins_lo"], states["bins_hi"] = -20, 130
    states["m"], states["capacity"] = sizes, capacity
    states["list_start"] = np.arange(len(sizes)) * capacity
    above = np.zeros(sum(sizes), np.uint32)
    entries = np.zeros(capacity * len(sizes), ENTRY)
    histogram = np.zeros((len(sizes), BINS), np.uint64)
    library.run("count", triangle(sizes, rows), states, above, entries, histogram, seed=seed)
    start = 0
    for c, m in enumerate(sizes):
        x = rows.x[start : start + m]
        s, off = products(x, x), ~np.eye(m, dtype=bool)
        np.testing.assert_array_equal(above[start : start + m], ((s > 130) & off).sum(axis=1))
        assert states["above"][c] == np.triu(s > 130, 1).sum()
        i, j = np.nonzero(np.triu((s >= -20) & (s <= 130), 1))
        assert states["inside"][c] == len(i) == histogram[c].sum()
        found = np.sort(entries[c * capacity : c * capacity + len(i)], order=["row", "column"])
        np.testing.assert_array_equal(found["row"], i)
        np.testing.assert_array_equal(found["column"], j)
        np.testing.assert_array_equal(found["value"], s[i, j])
        start += m


def test_histogram_of_a_rectangle(library, seed):
    rows, columns = (Rows(whole_numbers(m, 64, np.float16, m), uniform=1.0) for m in (150, 390))
    states = np.zeros(1, CLASS_STATE)
    states["bins_lo"], states["bins_hi"] = -BINS / 2, BINS / 2  # a bin each whole number
    histogram = np.zeros((1, BINS), np.uint64)
    offsets, tile_start = np.array([0, 150], np.int64), np.array([0, 2 * 4], np.int64)
    work = Work(at(offsets), at(tile_start), 0, 8, 1, 390, SHAPES["rectangle"])
    library.run("histogram", TilePass(2, work, rows.tile_rows, columns.tile_rows), states, histogram, seed=seed)
    bins = products(rows.x, columns.x).astype(np.int64).ravel() + BINS // 2
    np.testing.assert_array_equal(histogram[0], np.bincount(bins, minlength=BINS))


@pytest.mark.parametrize(
    ("x", "dim", "segments"),
    [
        (np.zeros((130, 140), np.float16), 70, 3),  # a slice past the first half would hold the second
        (np.zeros((130, 68), np.float16), 68, 1),  # rows 8 bytes apart from a multiple of 16
        (np.zeros((130, 128), np.float16)[:, 4:68], 64, 1),  # begins 8 bytes off
        (np.zeros((130, 64), np.float16), 72, 1),  # longer than they are apart
    ],
)
def test_rows_that_the_copy_engine_cannot_take_are_refused(library, x, dim, segments):
    with pytest.raises(HostError, match="invalid argument"):
        stored(library, Rows(x, dim=dim, segments=segments))


def test_operands_must_fit_each_other(library):
    tiles = triangle([130], Rows(whole_numbers(130, 64, np.float16)))
    tiles.columns.dim = 56
    with pytest.raises(HostError, match="invalid argument"):
        library.run("store", tiles, np.zeros((130, 130), np.float32))


def multiplied(library: Library, fault: int) -> bool:
    """Whether a slice was multiplied right."""
    x = whole_numbers(128, 64, np.float16)
    out = np.full((64, 128), np.nan, np.float32)
    library("host_multiply_slice", fault, ctypes.c_void_p(at(x)), ctypes.c_void_p(at(out)))
    return np.array_equal(out, products(x[:64], x))


def test_twins_multiply_a_slice(library):
    assert multiplied(library, 0)
    assert library.unfinished() == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_twins_find_what_was_left_out(library, fault):
    expected = {
        "no fence": "no fence since the accumulators were touched",
        "no commit": "products that no group holds",
        "refilled too early": "an operand changed while it was being multiplied",
        "wrong byte count": "the block is stuck: 128 threads wait at mbarrier.try_wait",
        "invisible barrier": "nothing made the barrier visible",
        "one warp otherwise": "the warps of a warpgroup disagree",
    }
    number = 1 + FAULTS.index(fault)
    if fault in expected:
        with pytest.raises(HostError, match=expected[fault]):
            multiplied(library, number)
    else:
        assert not multiplied(library, number)
        assert library.unfinished() > 0
