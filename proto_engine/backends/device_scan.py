"""Passes over the tiles of one class on a GPU, and the lists of pairs that they leave for float64.

Lists are kept to SLAB_PAIRS: a pass that finds more is done again, a slab of tiles at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .device import BINS, CLASS_STATE, ENTRY, TILE, TRIANGLE, TilePass, Work, downloaded, filled, uploaded
from .device_density import FARTHEST
from .device_rows import ReadyRows

SLAB_TILES = 256
SLAB_PAIRS = SLAB_TILES * TILE * TILE


class Scan:
    """Passes of `count` over the tiles of one class, against one bracket."""

    def __init__(self, rows: ReadyRows, m: int, lo: float, hi: float, capacity: int | None = None) -> None:
        self._rows, self._gpu, self._m = rows, rows.gpu, m
        self.capacity = SLAB_PAIRS if capacity is None else capacity
        side = -(-m // TILE)
        self.num_tiles = side * (side + 1) // 2
        state = np.zeros(1, dtype=CLASS_STATE)
        state["m"], state["capacity"] = m, self.capacity
        state["lo"], state["hi"] = lo, hi
        state["bins_lo"], state["bins_hi"] = -FARTHEST, FARTHEST
        self._state = uploaded(self._gpu, state)
        self._list = self._gpu.empty(ENTRY.itemsize * max(1, min(self.capacity, m * (m - 1) // 2)))
        self.counts = filled(self._gpu, 4 * m)
        self._histogram = filled(self._gpu, 8 * BINS)
        self._offsets = uploaded(self._gpu, np.array([0, m, 0, self.num_tiles], dtype=np.int64))

    @property
    def list(self) -> int:
        return self._list.pointer

    def tile_pass(self, first: int, last: int) -> TilePass:
        work = Work(self._offsets.pointer, self._offsets.pointer + 16, first, last, 0, 0, TRIANGLE)
        return self._rows.tile_pass(work)

    def count(self, first: int, last: int) -> None:
        self._gpu.launch(
            "count",
            self.tile_pass(first, last),
            self._state.pointer,
            self.counts.pointer,
            self.list,
            self._histogram.pointer,
        )

    def slabs(self) -> Iterator[int]:
        """Count all tiles at once, or slab after slab; yields how many pairs each pass leaves in the list."""
        inside = self._state.pointer + CLASS_STATE.fields["inside"][1]  # type: ignore[index]

        def listed(first: int, last: int) -> int:
            if first == 0:  # also where all tiles have been counted, too many pairs to keep
                self._gpu.fill(self.counts.pointer, 0, 4 * self._m)
            self._gpu.fill(inside, 0, 8)
            self.count(first, last)
            return self.num_inside()

        yield from at_once_or_in_slabs(listed, self.num_tiles)

    def num_inside(self) -> int:
        return int(downloaded(self._gpu, self._state.pointer, 1, CLASS_STATE)["inside"][0])

    def entries(self, length: int) -> np.ndarray:
        return downloaded(self._gpu, self.list, length, ENTRY)

    def above(self) -> np.ndarray:
        """[m] int64"""
        return downloaded(self._gpu, self.counts.pointer, self._m, np.uint32).astype(np.int64)


def at_once_or_in_slabs(listed: Callable[[int, int], int], num_tiles: int) -> Iterator[int]:
    """Lengths of the lists of all tiles, none longer than SLAB_PAIRS; ``listed`` makes that of some of them."""
    length = listed(0, num_tiles)
    if length <= SLAB_PAIRS:
        yield length
        return
    for first in range(0, num_tiles, SLAB_TILES):
        yield listed(first, min(first + SLAB_TILES, num_tiles))


def from_ordered(order: np.ndarray) -> np.ndarray:
    """float64 from the integers of the same order (pinned.cuh)."""
    top = np.uint64(1 << 63)
    return np.where(order >= top, order & ~top, ~order).view(np.float64)
