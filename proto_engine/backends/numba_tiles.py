"""Tiles of S, one a thread at a time: a matrix product of NumPy, and a loop that scans it while it is in the cache."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .base import classes_within
from .numba_loops import scan_tile, scan_tile_by_class


class Tiling(NamedTuple):
    """The upper triangle of S in tiles."""

    unit: np.ndarray  # [m, D] float32 unit rows
    tile: int  # rows along a side

    @property
    def side(self) -> int:
        """Tiles along a side of S."""
        return -(-len(self.unit) // self.tile)

    @property
    def num_tiles(self) -> int:
        return self.side * (self.side + 1) // 2


class TileWorker:
    """A thread's tile of S, with counts of its own.

    ``visit(s, i0, j0, positions)`` is told where lo <= s32 <= hi; what is above hi is already counted.
    """

    def __init__(self, tiling: Tiling, lo: float, hi: float, visit: Callable[..., None]) -> None:
        self.above = np.zeros(len(tiling.unit), dtype=np.int32)
        self._tiling, self._visit = tiling, visit
        self._lo, self._hi = np.float32(lo), np.float32(hi)
        self._s = np.empty(tiling.tile**2, dtype=np.float32)
        self._positions = np.empty(tiling.tile**2, dtype=np.int32)

    def __call__(self, item: int) -> None:
        unit, tile = self._tiling
        a, in_row = 0, self._tiling.side
        while item >= in_row:  # the tiles (a, b), a <= b, row by row
            item -= in_row
            a, in_row = a + 1, in_row - 1
        i0, j0 = a * tile, (a + item) * tile
        upper, lower = unit[i0 : i0 + tile], unit[j0 : j0 + tile]
        s = self._s[: len(upper) * len(lower)].reshape(len(upper), len(lower))
        np.dot(upper, lower.T, out=s)
        self._visit(s, i0, j0, self._positions[: self._scan(s, i0, j0)])

    def _scan(self, s: np.ndarray, i0: int, j0: int) -> int:
        return scan_tile(s, i0 == j0, self._lo, self._hi, self.above, i0, j0, self._positions)


class ClassWorker(TileWorker):
    """Counts by class, a tile at a time, added to an array that all threads share: one each would be [m, C]."""

    def __init__(
        self,
        tiling: Tiling,
        lo: float,
        hi: float,
        visit: Callable[..., None],
        offsets: np.ndarray,
        shared: np.ndarray,
        lock: threading.Lock,
    ) -> None:
        super().__init__(tiling, lo, hi, visit)
        self._offsets, self._shared, self._lock = offsets, shared, lock

    def _scan(self, s: np.ndarray, i0: int, j0: int) -> int:
        height, width = s.shape
        rows, _, row_ends = zip(*classes_within(self._offsets, i0, i0 + height), strict=True)
        columns, _, column_ends = zip(*classes_within(self._offsets, j0, j0 + width), strict=True)
        of_rows = np.zeros((height, len(columns)), dtype=np.int32)
        of_columns = np.zeros((len(rows), width), dtype=np.int32)
        found = scan_tile_by_class(
            s,
            i0 == j0,
            self._lo,
            self._hi,
            np.array(row_ends),
            np.array(column_ends),
            of_rows,
            of_columns,
            self._positions,
        )
        with self._lock:
            self._shared[i0 : i0 + height, columns] += of_rows
            self._shared[j0 : j0 + width, rows] += of_columns.T
        return found
