"""A class pool of the numba backend: passes over the tiles, and float64 look-ups where they decide."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from .exact import Inside, OnePassPool, float32_outwards
from .host import default_tile, single_threaded_blas, unit_products
from .numba_loops import (
    decide_pairs,
    fill_bins,
    improve_best,
    scale_rows,
    similar_pairs,
)
from .numba_tiles import ClassWorker, TileWorker, Tiling
from .work_sharing import share

ROWS_PER_ITEM = 512
_PAIRS_PER_ITEM = 2**14
_ORDER_SLICE = 512


def floats(rows: np.ndarray) -> np.ndarray:
    """float32 or float64 rows side by side; the half types, which numba does not know, are widened exactly."""
    if rows.dtype not in (np.float32, np.float64):
        return rows.astype(np.float32, order="C")
    return np.require(rows, requirements=["C", "A"])


def unit_rows(rows: np.ndarray, squares: np.ndarray, threads: int) -> np.ndarray:
    """float32 unit rows.   [n, D]"""
    unit = np.empty(rows.shape, dtype=np.float32)

    def worker(item: int) -> None:
        part = slice(item * ROWS_PER_ITEM, (item + 1) * ROWS_PER_ITEM)
        scale_rows(floats(rows[part]), squares[part], unit[part])

    share(-(-len(rows) // ROWS_PER_ITEM), threads, lambda: worker)
    return unit


class NumbaPool(OnePassPool):
    """Rows as float32 or float64 for the look-ups, and their float32 unit rows for the tiles."""

    def __init__(self, rows: np.ndarray, squares: np.ndarray, threads: int, tile: int | None) -> None:
        self.m, self.dim = rows.shape
        self.unit = unit_rows(rows, squares, threads)  # [m, D]
        self._tiling = Tiling(self.unit, min(default_tile(self.m, threads) if tile is None else tile, self.m))
        self._rows, self._squares, self._threads = floats(rows), squares, threads

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return unit_products(self.unit, first, second)

    def _tiles(self, lo: float, hi: float, make_visit: Callable[[], Callable[..., None]]) -> np.ndarray:
        """Show every tile to a visitor of its thread; #{j != i : s32 > hi}.   [m] int64"""
        with single_threaded_blas():
            workers = share(
                self._tiling.num_tiles, self._threads, lambda: TileWorker(self._tiling, lo, hi, make_visit())
            )
        above = np.zeros(self.m, dtype=np.int64)
        for worker in workers:
            above += worker.above
        return above

    def _tiles_by_class(
        self, lo: float, hi: float, visit: Callable[..., None], offsets: np.ndarray, above: np.ndarray
    ) -> None:
        """Show every tile to ``visit``; adds #{j != i of class c : s32 > hi} to ``above`` [m, C]."""
        lock = threading.Lock()
        with single_threaded_blas():
            share(
                self._tiling.num_tiles,
                self._threads,
                lambda: ClassWorker(self._tiling, lo, hi, visit, offsets, above, lock),
            )

    def pair_similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        out = np.empty(len(first))

        def worker(item: int) -> None:
            part = slice(item * _PAIRS_PER_ITEM, (item + 1) * _PAIRS_PER_ITEM)
            similar_pairs(self._rows, self._squares, first[part], second[part], out[part])

        share(-(-len(first) // _PAIRS_PER_ITEM), self._threads, lambda: worker)
        return out

    def count_bracket(self, lo: float, hi: float, capacity: int) -> Inside:
        return self._bracket(capacity, lambda visit: self._tiles(lo, hi, lambda: visit))

    def count_bracket_by_class(self, lo: float, hi: float, capacity: int, offsets: np.ndarray) -> Inside:
        def scan(visit: Callable[..., None]) -> np.ndarray:
            above = np.zeros((self.m, len(offsets) - 1), dtype=np.int32)
            self._tiles_by_class(lo, hi, visit, offsets, above)
            return above

        return self._bracket(capacity, scan)

    def _bracket(self, capacity: int, scan: Callable[[Callable[..., None]], np.ndarray]) -> Inside:
        """Keeps what ``scan`` shows inside its bracket, beside what it counts above."""
        lock = threading.Lock()
        kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        num_inside = 0

        def visit(s: np.ndarray, i0: int, j0: int, positions: np.ndarray) -> None:
            nonlocal num_inside
            with lock:
                num_inside += len(positions)
                if num_inside > capacity:  # only the number goes on
                    kept.clear()
                    return
            row, column = np.divmod(positions, np.int32(s.shape[1]))
            entry = (row + np.int32(i0), column + np.int32(j0), s.ravel()[positions])
            with lock:
                if num_inside <= capacity:
                    kept.append(entry)

        above = scan(visit)
        kept.append((np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32)))
        return Inside(above, num_inside, *(np.concatenate(part) for part in zip(*kept, strict=True)))

    def histogram(self, lo: float, hi: float, bins: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        results = []

        def make_visit() -> Callable[..., None]:
            above, count = np.zeros(1, np.int64), np.zeros(bins, np.int64)
            least, most = np.full(bins, np.inf), np.full(bins, -np.inf)
            results.append((above, count, least, most))

            def visit(s: np.ndarray, i0: int, j0: int, positions: np.ndarray) -> None:
                above[0] += fill_bins(
                    self._rows, self._squares, i0, j0, s.shape[1], positions, lo, hi, count, least, most
                )

            return visit

        above32 = self._tiles(*float32_outwards(lo - self.bound, hi + self.bound), make_visit)
        above, count, least, most = zip(*results, strict=True)
        total = np.sum(count, axis=0)
        below = self.m * (self.m - 1) // 2 - int(above32.sum()) // 2 - int(np.sum(above)) - int(total.sum())
        return below, total, np.min(least, axis=0), np.max(most, axis=0)

    def count_threshold(self, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
        counts = []

        def make_visit() -> Callable[..., None]:
            above, equal = np.zeros(self.m, np.int64), np.zeros(self.m, np.int64)
            counts.append((above, equal))

            def visit(s: np.ndarray, i0: int, j0: int, positions: np.ndarray) -> None:
                decide_pairs(self._rows, self._squares, i0, j0, s.shape[1], positions, cutoff, above, equal)

            return visit

        above32 = self._tiles(*self.reach_of(cutoff), make_visit)
        above, equal = (np.sum(part, axis=0) for part in zip(*counts, strict=True))
        above += above32
        return above, self.m - 1 - above - equal

    def class_counts_at(self, cutoff: float, offsets: np.ndarray) -> np.ndarray:
        counts = np.zeros((self.m, len(offsets) - 1), dtype=np.int32)
        class_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))  # [m]
        lock, decided = threading.Lock(), np.zeros_like(counts)

        def visit(s: np.ndarray, i0: int, j0: int, positions: np.ndarray) -> None:
            row, column = np.divmod(positions.astype(np.int64), s.shape[1])
            i, j, value = row + i0, column + j0, np.empty(len(positions))
            similar_pairs(self._rows, self._squares, i, j, value)
            i, j = i[value > cutoff], j[value > cutoff]
            with lock:
                np.add.at(decided, (i, class_of[j]), 1)
                np.add.at(decided, (j, class_of[i]), 1)

        self._tiles_by_class(*self.reach_of(cutoff), visit, offsets, counts)
        return counts + decided

    def extreme(self, order: np.ndarray, rows: np.ndarray, limit: np.ndarray, smallest: np.ndarray) -> np.ndarray:
        best = np.full(len(rows), -np.inf)  # max of sign * S, so that both directions are one comparison
        sign = np.where(smallest, -1.0, 1.0)
        ordered = self.unit[order[: limit.max(initial=0)]]

        def worker(item: int) -> None:
            group = slice(item * ROWS_PER_ITEM, (item + 1) * ROWS_PER_ITEM)
            longest = int(limit[group].max())
            unit, found = self.unit[rows[group]], best[group]  # best: a view
            for k0 in range(0, longest, _ORDER_SLICE):
                part = slice(k0, min(k0 + _ORDER_SLICE, longest))
                s = np.dot(unit, ordered[part].T)
                improve_best(
                    s,
                    self._rows,
                    self._squares,
                    rows[group],
                    order[part],
                    limit[group] - k0,
                    sign[group],
                    self.bound,
                    found,
                )

        with single_threaded_blas():
            share(-(-len(rows) // ROWS_PER_ITEM), self._threads, lambda: worker)
        return sign * best

    def similarity(self) -> np.ndarray:
        out = np.empty((self.m, self.m), dtype=np.float32)

        def visit(s: np.ndarray, i0: int, j0: int, positions: np.ndarray) -> None:
            height, width = s.shape
            if i0 == j0:
                s = np.triu(s, 1)
                s += s.T
                np.fill_diagonal(s, 1.0)
            out[i0 : i0 + height, j0 : j0 + width] = s
            out[j0 : j0 + width, i0 : i0 + height] = s.T

        self._tiles(np.inf, np.inf, lambda: visit)
        return out
