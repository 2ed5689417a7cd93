"""Which tiles are visited, and the bins of histograms: the kernels' own functions, called on the host."""

from __future__ import annotations

from types import ModuleType

import cuda_host_library
import numpy as np
import pytest
from cuda_host_classes import BINS

pytestmark = pytest.mark.skipif(cuda_host_library.missing() is not None, reason=str(cuda_host_library.missing()))
SIDES = [*range(1, 36), 48, 64, 65]


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return cuda_host_library.load(tmp_path_factory)


@pytest.mark.parametrize("side", SIDES)
def test_triangle_visits_every_tile_once(core, side):
    found = [core.triangle_tile(t, side) for t in range(side * (side + 1) // 2)]
    assert sorted(found) == [(i, j) for i in range(side) for j in range(i, side)]


def test_triangle_goes_by_groups_of_columns(core):
    """A row of sixteen tiles at a time: the columns that stay in the cache."""
    side, group = 64, 16
    columns = [core.triangle_tile(t, side)[1] // group for t in range(side * (side + 1) // 2)]
    assert columns == sorted(columns)


@pytest.mark.parametrize("side", SIDES)
def test_tiles_of_a_triangle_are_numbered_as_they_are_visited(core, side):
    numbers = range(side * (side + 1) // 2)
    assert [core.triangle_number(*core.triangle_tile(t, side), side) for t in numbers] == list(numbers)


SIZES = (1, 129, 0, 700, 128, 2300, 5)


@pytest.mark.parametrize("last", [1, 2, 4, 5, 20, 27, 100, 180, 197, 198])
def test_squares_hold_every_tile_once(core, last):
    """Of several classes, up to the last tile of the work, which may be in the midst of one."""
    sides = [-(-m // 128) for m in SIZES]
    tile_start = np.cumsum([0, *(side * (side + 1) // 2 for side in sides)])
    assert tile_start[-1] == 198
    tiles = [(c, *core.triangle_tile(t, side)) for c, side in enumerate(sides) for t in range(side * (side + 1) // 2)]
    squares = core.squares(np.cumsum([0, *SIZES]).tolist(), tile_start.tolist(), last)
    assert sorted(tile[:3] for square in squares for tile in square if tile[3]) == sorted(tiles[:last])
    for square in squares:
        (c, row, column, _), *_ = square
        assert row % 2 == column % 2 == 0 and row <= column
        assert [tile[:3] for tile in square] == [(c, row + r, column + k) for r in (0, 1) for k in (0, 1)]


def test_squares_that_hold_nothing_are_few(core):
    """A tile more than a group is wide; all tiles, and the first ones only."""
    side = 33
    for last in (side * (side + 1) // 2, 256):
        squares = core.squares([0, side * 128], [0, side * (side + 1) // 2], last)
        assert 4 * len(squares) <= 2.5 * last
        groups = [square[0][2] // 16 for square in squares]
        assert groups == sorted(groups)  # sixteen columns of tiles at a time


@pytest.mark.parametrize("side", [1, 16, 2**10, 2**20, 2**26])
def test_triangle_of_huge_classes_ends_in_its_corner(core, side):
    last = side * (side + 1) // 2 - 1
    assert core.triangle_tile(last, side) == (side - 1, side - 1)
    assert core.triangle_tile(0, side) == (0, 0)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_sample_visits_every_row_equally_often(core, side, rounds):
    num_tiles = core.sample_tiles(side, rounds)
    found = [core.sample_tile(t, side, rounds) for t in range(num_tiles)]
    assert len(set(found)) == num_tiles  # none twice
    assert all(0 <= i <= j < side for i, j in found)
    visits = np.bincount(np.array(found).ravel(), minlength=side)
    if num_tiles == side * (side + 1) // 2:
        assert set(found) == {(i, j) for i in range(side) for j in range(i, side)}
    else:
        assert len(set(visits.tolist())) == 1


@pytest.mark.parametrize(("lo", "hi"), [(-1.0625, 1.0625), (0.25, 0.2500001), (-0.3, 0.4)])
def test_bins_are_monotone_and_within_their_edges(core, lo, hi):
    rng = np.random.default_rng(0)
    s = np.sort(np.concatenate([rng.uniform(lo - 0.01, hi + 0.01, 3000), np.linspace(lo, hi, 3000), [lo, hi]]))
    for function, values in ((core.bin_of, s), (core.bin_of32, s.astype(np.float32))):
        ends = (lo, hi) if function is core.bin_of else (np.float32(lo), np.float32(hi))
        bins = np.array([function(float(value), *map(float, ends)) for value in values])
        assert (np.diff(bins) >= 0).all()
        assert bins[0] == 0
        assert bins[-1] == BINS - 1
        edges = np.array([core.edges_of(int(b), int(b), *map(float, ends)) for b in bins])
        assert (edges[:, 0] <= values).all()
        assert (values <= edges[:, 1]).all()
