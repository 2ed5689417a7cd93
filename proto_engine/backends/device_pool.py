"""A class pool on a GPU: the quick way of `device_density` first, and the bounded passes of `exact` behind it."""

from __future__ import annotations

import numpy as np

from .device import OK, DeviceOutput, downloaded, filled, uploaded
from .device_density import ClassBatch
from .device_extremes import extremes_of
from .device_rows import ReadyRows
from .device_scan import Scan, at_once_or_in_slabs, from_ordered
from .exact import ExactPool, Inside, cutoff_and_density, float32_outwards

_ROWS_AT_ONCE = 4096  # of eta


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
            scan = Scan(self._rows, self.m, lo, hi, capacity)
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
            scan = Scan(self._rows, self.m, *float32_outwards(lo - self.bound, hi + self.bound))
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
            smallest = np.where(empty, np.inf, from_ordered(downloaded(gpu, least.pointer, bins, np.uint64)))
            greatest = np.where(empty, -np.inf, from_ordered(found[bins : 2 * bins]))
            return self.m * (self.m - 1) // 2 - more - int(num.sum()), num, smallest, greatest

    def count_threshold(self, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
        gpu = self._gpu
        with gpu.current():
            scan = Scan(self._rows, self.m, *self.reach_of(cutoff))
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
        lo, hi = self.reach_of(cutoff)
        with gpu.current():
            scan = Scan(self._rows, self.m, lo, hi)
            class_of = uploaded(gpu, np.repeat(np.arange(num_classes, dtype=np.int32), np.diff(offsets)))
            above, length = gpu.empty(4 * self.m * num_classes), gpu.empty(8)
            list_of = (scan.list, length.pointer, scan.capacity)

            def listed(first: int, last: int) -> int:
                if first == 0:  # also where all tiles have been counted, too many pairs to keep
                    gpu.fill(above.pointer, 0, 4 * self.m * num_classes)
                gpu.fill(length.pointer, 0, 8)
                tiles, classes = scan.tile_pass(first, last), (class_of.pointer, num_classes)
                gpu.launch("count_classes", tiles, *classes, lo, hi, above.pointer, *list_of)
                return int(downloaded(gpu, length.pointer, 1, np.uint64)[0])

            for found in at_once_or_in_slabs(listed, scan.num_tiles):
                decided = (cutoff, class_of.pointer, num_classes, above.pointer)
                gpu.launch("list_classes", self._rows.stored, scan.list, found, *decided)
            return downloaded(gpu, above.pointer, (self.m, num_classes), np.uint32).astype(np.int32)

    def extreme(self, order: np.ndarray, rows: np.ndarray, limit: np.ndarray, smallest: np.ndarray) -> np.ndarray:
        best = np.empty(len(rows))
        with self._gpu.current():
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                best[part] = extremes_of(self._rows, order, rows[part], limit[part], smallest[part])
        return best

    def similarity(self) -> DeviceOutput:
        gpu = self._gpu
        with gpu.current():
            out = gpu.empty(4 * self.m * self.m)
            scan = Scan(self._rows, self.m, -np.inf, np.inf, 0)
            gpu.launch("similarity", scan.tile_pass(0, scan.num_tiles), out.pointer)
            return DeviceOutput(gpu, out, (self.m, self.m), np.float32)
