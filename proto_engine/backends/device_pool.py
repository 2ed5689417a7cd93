"""A class pool on a GPU: the quick way of `device_density` first, and the bounded passes of `exact` behind it.

Lists of pairs are kept to SLAB_PAIRS: a pass that finds more is done again, a slab of tiles at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .device import (
    BINS,
    CLASS_STATE,
    ENTRY,
    OK,
    RECTANGLE,
    TILE,
    TRIANGLE,
    DeviceOutput,
    Memory,
    TilePass,
    TileRows,
    Work,
    downloaded,
    filled,
    uploaded,
)
from .device_density import FARTHEST, ClassBatch
from .device_rows import ReadyRows
from .exact import ExactPool, Inside, cutoff_and_density, float32_outwards

SLAB_TILES = 256
SLAB_PAIRS = SLAB_TILES * TILE * TILE
_ROWS_AT_ONCE = 4096  # of eta
_COLUMNS_AT_ONCE = 32768


class DevicePool(ExactPool):
    """All passes are launches on the device of the rows; results come back as NumPy arrays."""

    def __init__(self, rows: ReadyRows) -> None:
        self.m, self.dim = rows.stored.num_rows, rows.stored.dim
        self._rows, self._gpu = rows, rows.gpu

    @property
    def bound(self) -> float:
        return self._rows.bound

    def density(self, quantile: float) -> tuple[float, np.ndarray]:
        with self._gpu.current():
            batch = ClassBatch(self._rows, np.array([0, self.m]))
            for careful in (False, True):
                batch.close_in(quantile, careful=careful)
                state = batch.states()[0]
                if state["status"] == OK:
                    return float(state["cutoff"]), batch.densities()
            return cutoff_and_density(self, quantile)

    def pair_similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        gpu = self._gpu
        with gpu.current():
            sides = [uploaded(gpu, np.asarray(side, dtype=np.int64)) for side in (first, second)]
            out = gpu.empty(8 * len(first))
            gpu.launch("pairs", self._rows.stored, sides[0].pointer, sides[1].pointer, len(first), out.pointer)
            return downloaded(gpu, out.pointer, len(first), np.float64)

    def count_bracket(self, lo: float, hi: float, capacity: int) -> Inside:
        gpu = self._gpu
        with gpu.current():
            scan = _Scan(self._rows, self.m, lo, hi, capacity)
            scan.count(0, scan.num_tiles)
            num_inside = scan.num_inside()
            entries = scan.entries(num_inside if num_inside <= capacity else 0)
            return Inside(
                scan.above(),
                num_inside,
                entries["row"].copy(),
                entries["column"].copy(),
                entries["value"].astype(np.float32),
            )

    def histogram(self, lo: float, hi: float, bins: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        gpu = self._gpu
        with gpu.current():
            scan = _Scan(self._rows, self.m, *float32_outwards(lo - self.bound, hi + self.bound), SLAB_PAIRS)
            counts = filled(gpu, 8 * (2 * bins + 1))  # count, most, above
            least = filled(gpu, 8 * bins, 0xFF)
            count, most, above = (counts.pointer + 8 * start for start in (0, bins, 2 * bins))
            for length in scan.slabs():
                gpu.launch(
                    "list_bins",
                    self._rows.stored,
                    scan.list,
                    length,
                    lo,
                    hi,
                    bins,
                    count,
                    least.pointer,
                    most,
                    above,
                )
            found = downloaded(gpu, counts.pointer, 2 * bins + 1, np.uint64)
            num = found[:bins].astype(np.int64)
            more = int(scan.above().sum()) // 2 + int(found[-1])
            empty = num == 0
            smallest = np.where(empty, np.inf, _from_ordered(downloaded(gpu, least.pointer, bins, np.uint64)))
            greatest = np.where(empty, -np.inf, _from_ordered(found[bins : 2 * bins]))
            return self.m * (self.m - 1) // 2 - more - int(num.sum()), num, smallest, greatest

    def count_threshold(self, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
        gpu = self._gpu
        nearest = float(np.clip(cutoff, -2.0, 2.0))
        with gpu.current():
            scan = _Scan(self._rows, self.m, *float32_outwards(nearest - self.bound, nearest + self.bound), SLAB_PAIRS)
            equal = filled(gpu, 4 * self.m)
            for length in scan.slabs():
                gpu.launch(
                    "list_threshold", self._rows.stored, scan.list, length, cutoff, scan.counts.pointer, equal.pointer
                )
            above = scan.above()
            same = downloaded(gpu, equal.pointer, self.m, np.uint32).astype(np.int64)
            return above, self.m - 1 - above - same

    def class_counts_at(self, cutoff: float, offsets: np.ndarray) -> np.ndarray:
        gpu, num_classes = self._gpu, len(offsets) - 1
        nearest = float(np.clip(cutoff, -2.0, 2.0))
        lo, hi = float32_outwards(nearest - self.bound, nearest + self.bound)
        with gpu.current():
            scan = _Scan(self._rows, self.m, lo, hi, SLAB_PAIRS)
            class_of = uploaded(gpu, np.repeat(np.arange(num_classes, dtype=np.int32), np.diff(offsets)))
            above, length = gpu.empty(4 * self.m * num_classes), gpu.empty(8)
            list_of = (scan.list, length.pointer, SLAB_PAIRS)

            def listed(first: int, last: int) -> int:
                if first == 0:  # also where all tiles have been counted, too many pairs to keep
                    gpu.fill(above.pointer, 0, 4 * self.m * num_classes)
                gpu.fill(length.pointer, 0, 8)
                tiles, classes = scan.tile_pass(first, last), (class_of.pointer, num_classes)
                gpu.launch("count_classes", tiles, *classes, lo, hi, above.pointer, *list_of)
                return int(downloaded(gpu, length.pointer, 1, np.uint64)[0])

            for found in _at_once_or_in_slabs(listed, scan.num_tiles):
                decided = (cutoff, class_of.pointer, num_classes, above.pointer)
                gpu.launch("list_classes", self._rows.stored, scan.list, found, *decided)
            return downloaded(gpu, above.pointer, (self.m, num_classes), np.uint32).astype(np.int32)

    def extreme(self, order: np.ndarray, rows: np.ndarray, limit: np.ndarray, smallest: np.ndarray) -> np.ndarray:
        best = np.empty(len(rows))
        with self._gpu.current():
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                best[part] = _extremes(self._rows, order, rows[part], limit[part], smallest[part])
        return best

    def similarity(self) -> DeviceOutput:
        gpu = self._gpu
        with gpu.current():
            out = gpu.empty(4 * self.m * self.m)
            scan = _Scan(self._rows, self.m, -np.inf, np.inf, 0)
            gpu.launch("similarity", scan.tile_pass(0, scan.num_tiles), out.pointer)
            return DeviceOutput(gpu, out, (self.m, self.m), np.float32)


class _Scan:
    """Passes of `count` over the tiles of one class, against one bracket."""

    def __init__(self, rows: ReadyRows, m: int, lo: float, hi: float, capacity: int) -> None:
        self._rows, self._gpu, self._m = rows, rows.gpu, m
        side = -(-m // TILE)
        self.num_tiles = side * (side + 1) // 2
        state = np.zeros(1, dtype=CLASS_STATE)
        state["m"], state["capacity"] = m, capacity
        state["lo"], state["hi"] = lo, hi
        state["bins_lo"], state["bins_hi"] = -FARTHEST, FARTHEST
        self._state = uploaded(self._gpu, state)
        self._list = self._gpu.empty(ENTRY.itemsize * max(1, min(capacity, m * (m - 1) // 2)))
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

        yield from _at_once_or_in_slabs(listed, self.num_tiles)

    def num_inside(self) -> int:
        return int(downloaded(self._gpu, self._state.pointer, 1, CLASS_STATE)["inside"][0])

    def entries(self, length: int) -> np.ndarray:
        return downloaded(self._gpu, self.list, length, ENTRY)

    def above(self) -> np.ndarray:
        """[m] int64"""
        return downloaded(self._gpu, self.counts.pointer, self._m, np.uint32).astype(np.int64)


def _extremes(
    rows: ReadyRows, order: np.ndarray, listed: np.ndarray, limit: np.ndarray, smallest: np.ndarray
) -> np.ndarray:
    """Max, or min where ``smallest``, of S over order[:limit[t]], for each listed row.   [n] float64"""
    gpu, n = rows.gpu, len(listed)
    on_device = [uploaded(gpu, array.astype(np.int64)) for array in (listed, order)]
    flags = uploaded(gpu, smallest.astype(np.uint8))
    tiles, keep = _tiles_of(rows, listed)
    best, eta = filled(gpu, 4 * n), filled(gpu, 8 * n)
    entries, length = gpu.empty(ENTRY.itemsize * SLAB_PAIRS), gpu.empty(8)
    for start in range(0, int(limit.max()), _COLUMNS_AT_ONCE):
        columns = order[start : min(start + _COLUMNS_AT_ONCE, int(limit.max()))]
        column_tiles, keep_columns = _tiles_of(rows, columns)
        local = uploaded(gpu, np.clip(limit - start, 0, len(columns)).astype(np.int64))
        extremes = (local.pointer, flags.pointer, best.pointer)
        num_tiles = -(-n // TILE) * -(-len(columns) // TILE)
        starts = uploaded(gpu, np.array([0, n, 0, num_tiles], dtype=np.int64))

        def tile_pass(first: int, last: int) -> TilePass:
            work = Work(starts.pointer, starts.pointer + 16, first, last, 0, len(columns), RECTANGLE)  # noqa: B023
            return rows.tile_pass(work)._replace(rows=tiles, columns=column_tiles)  # noqa: B023

        def near(first: int, last: int) -> int:
            # The greatest S of the columns lies within two bounds of the greatest s32; one more for rounding.
            gpu.fill(length.pointer, 0, 8)
            reach, list_of = 3 * rows.bound, (entries.pointer, length.pointer, SLAB_PAIRS)
            gpu.launch("near", tile_pass(first, last), extremes, reach, *list_of)  # noqa: B023
            return int(downloaded(gpu, length.pointer, 1, np.uint64)[0])

        gpu.launch("best", tile_pass(0, num_tiles), extremes)
        for found in _at_once_or_in_slabs(near, num_tiles):
            gpu.launch(
                "list_extremes",
                rows.stored,
                entries.pointer,
                found,
                on_device[0].pointer,
                on_device[1].pointer + 8 * start,
                flags.pointer,
                eta.pointer,
            )
        del keep_columns
    del keep
    value = _from_ordered(downloaded(gpu, eta.pointer, n, np.uint64))
    return np.where(smallest, -value, value)


def _at_once_or_in_slabs(listed: Callable[[int, int], int], num_tiles: int) -> Iterator[int]:
    """Lengths of the lists of all tiles, none longer than SLAB_PAIRS; ``listed`` makes that of some of them."""
    length = listed(0, num_tiles)
    if length <= SLAB_PAIRS:
        yield length
        return
    for first in range(0, num_tiles, SLAB_TILES):
        yield listed(first, min(first + SLAB_TILES, num_tiles))


def _tiles_of(rows: ReadyRows, index: np.ndarray) -> tuple[TileRows, list[Memory]]:
    """What the tile loop multiplies of these rows, in this order."""
    gpu, tiles = rows.gpu, rows.tiles
    order = uploaded(gpu, index.astype(np.int64))
    size = 4 if rows.loop == "simt" else 2
    width = tiles.dim * (2 if tiles.segments == 3 else 1)
    memory = gpu.empty(len(index) * width * size)
    gpu.launch(
        "gather", tiles.data, tiles.stride * size, order.pointer, len(index), width * size, memory.pointer, width * size
    )
    scale = gpu.empty(4 * len(index)) if tiles.scale else None
    if scale:
        gpu.launch("gather", tiles.scale, 4, order.pointer, len(index), 4, scale.pointer, 4)
    gathered = tiles._replace(
        data=memory.pointer, num_rows=len(index), stride=width, scale=scale.pointer if scale else 0
    )
    return gathered, [memory, order, *([scale] if scale else [])]


def _from_ordered(order: np.ndarray) -> np.ndarray:
    """float64 from the integers of the same order (pinned.cuh)."""
    top = np.uint64(1 << 63)
    return np.where(order >= top, order & ~top, ~order).view(np.float64)
