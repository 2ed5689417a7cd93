"""The CUDA kernels, their very source, run on the host and held against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_host_library import (
    BINS,
    CLASS_STATE,
    ENTRY,
    TILE,
    Library,
    Rows,
    build,
    compiler,
    run_tiles,
)

from proto_engine.backends.base import error_bound
from proto_engine.backends.reference import ReferencePool, pinned_dot, to_double

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")
SIZES = (1, 129, 0, 300, 128, 2)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(build(tmp_path_factory.mktemp("cuda_host")))


def rows_of(sizes, dim, dtype, seed=0) -> Rows:
    x = (np.random.default_rng(seed).standard_normal((sum(sizes), dim)) + 0.2).astype(dtype)
    return Rows(x, sizes, pinned_dot(to_double(x), to_double(x)))


def stored(library, loop, rows: Rows, c: int) -> np.ndarray:
    """s32 of class c as the tile loop computes it.   [m, m]"""
    part = slice(rows.offsets[c], rows.offsets[c + 1])
    alone = Rows(rows.x[part], [rows.sizes[c]], rows.squares[part])
    out = np.full((alone.sizes[0],) * 2, np.nan, dtype=np.float32)
    run_tiles(library, loop, "store", alone, alone.work(), out)
    return out


CASES = [
    ("simt", np.float32, 33),
    ("simt", np.float16, 32),
    ("simt", np.float64, 48),
    ("mma", np.float16, 32),
    ("mma", np.float16, 104),
    ("mma", "bfloat16", 160),
]


@pytest.mark.parametrize(("loop", "dtype", "dim"), CASES)
def test_store_is_within_the_bound(library, loop, dtype, dim):
    rows = rows_of([300], dim, dtype)
    library.launch_as(3)
    s = stored(library, loop, rows, 0)
    wanted = ReferencePool(rows.x, rows.squares).s
    assert np.abs(s - wanted).max() <= error_bound(dim)
    np.testing.assert_array_equal(s, s.T)


@pytest.mark.parametrize(("loop", "dtype", "dim"), CASES)
def test_count_counts_what_store_stores(library, loop, dtype, dim):
    rows = rows_of(SIZES, dim, dtype)
    states = np.zeros(len(SIZES), CLASS_STATE)
    states["lo"], states["hi"] = -0.1, 0.15
    states["bins_lo"], states["bins_hi"] = -0.1, 0.15
    states["m"] = SIZES
    states["capacity"] = 40000
    states["list_start"] = np.arange(len(SIZES)) * 40000
    above = np.zeros(sum(SIZES), np.uint32)
    entries = np.zeros(40000 * len(SIZES), ENTRY)
    histogram = np.zeros((len(SIZES), BINS), np.uint64)
    library.launch_as(4, seed=1)
    run_tiles(library, loop, "count", rows, rows.work(), states, above, entries, histogram)
    for c, m in enumerate(SIZES):
        s = stored(library, loop, rows, c)
        off = ~np.eye(m, dtype=bool)
        lo, hi = states["lo"][c], states["hi"][c]
        np.testing.assert_array_equal(above[rows.offsets[c] : rows.offsets[c + 1]], ((s > hi) & off).sum(axis=1))
        i, j = np.nonzero(np.triu((s >= lo) & (s <= hi), 1))
        assert states["inside"][c] == len(i)
        assert states["above"][c] == np.triu(s > hi, 1).sum()
        found = np.sort(entries[c * 40000 : c * 40000 + len(i)], order=["row", "column"])
        np.testing.assert_array_equal(found["row"], i)
        np.testing.assert_array_equal(found["column"], j)
        np.testing.assert_array_equal(found["value"], s[i, j])
        assert histogram[c].sum() == len(i)
