"""The engine for machines without a C++ compiler: NumPy's matrix product for the tiles, compiled loops for the rest.

The loops run one tile a thread, in plain Python threads: both the matrix product and the loops let go of
the GIL. numba's own threading layers are not used. The one that is always there ends the process when
two Python threads enter it at once, and OpenMP's does not survive a fork.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from .base import Pool, classes_within, error_bound
from .exact import Inside, OnePassPool, float32_outwards
from .host import HostBackend, default_tile, single_threaded_blas, unit_products
from .numba_loops import (
    best_two,
    decide_pairs,
    fill_bins,
    improve_best,
    scale_rows,
    scan_tile,
    scan_tile_by_class,
    similar_pairs,
    square_rows,
)

_PAIRS_PER_ITEM = 2**14
_ROWS_PER_ITEM = 512
_ORDER_SLICE = 512
_FARTHEST = 4.0  # beyond every similarity, and a float32
Worker = TypeVar("Worker", bound=Callable[[int], None])


def _share(num_items: int, threads: int, make_worker: Callable[[], Worker]) -> list[Worker]:
    """Call workers, one a thread, with the items' numbers; each item goes to whoever is free."""
    workers = [make_worker() for _ in range(max(1, min(threads, num_items)))]
    numbers = iter(range(num_items))
    stop = threading.Event()

    def work(worker: Worker) -> None:
        try:
            for item in numbers:
                if stop.is_set():
                    return
                worker(item)
        except BaseException:  # the others stop after their item
            stop.set()
            raise

    if len(workers) == 1:
        work(workers[0])
        return workers
    with ThreadPoolExecutor(len(workers) - 1) as executor:
        others = [executor.submit(work, worker) for worker in workers[1:]]
        try:
            work(workers[0])
            for other in others:
                other.result()
        except BaseException:  # Ctrl-C arrives in this thread, and may find it waiting
            stop.set()
            raise
    return workers


def _floats(rows: np.ndarray) -> np.ndarray:
    """float32 or float64 rows side by side; the half types, which numba does not know, are widened exactly."""
    if rows.dtype not in (np.float32, np.float64):
        return rows.astype(np.float32, order="C")
    return np.require(rows, requirements=["C", "A"])


class _TileWorker:
    """A thread's tile of S, with counts of its own.

    ``visit(s, i0, j0, positions)`` is told where lo <= s32 <= hi; what is above hi is already counted.
    """

    def __init__(self, pool: NumbaPool, lo: float, hi: float, visit: Callable[..., None]) -> None:
        self.above = np.zeros(pool.m, dtype=np.int32)
        self._pool, self._visit = pool, visit
        self._lo, self._hi = np.float32(lo), np.float32(hi)
        self._s = np.empty(pool.tile**2, dtype=np.float32)
        self._positions = np.empty(pool.tile**2, dtype=np.int32)

    def __call__(self, item: int) -> None:
        pool, side = self._pool, self._pool.side
        a = 0
        while item >= side - a:  # the tiles (a, b), a <= b, row by row
            item -= side - a
            a += 1
        i0, j0 = a * pool.tile, (a + item) * pool.tile
        upper, lower = pool.unit[i0 : i0 + pool.tile], pool.unit[j0 : j0 + pool.tile]
        s = self._s[: len(upper) * len(lower)].reshape(len(upper), len(lower))
        np.dot(upper, lower.T, out=s)
        self._visit(s, i0, j0, self._positions[: self._scan(s, i0, j0)])

    def _scan(self, s: np.ndarray, i0: int, j0: int) -> int:
        return scan_tile(s, i0 == j0, self._lo, self._hi, self.above, i0, j0, self._positions)


class _ClassWorker(_TileWorker):
    """Counts by class, a tile at a time, added to an array that all threads share: one each would be [m, C]."""

    def __init__(
        self,
        pool: NumbaPool,
        lo: float,
        hi: float,
        visit: Callable[..., None],
        offsets: np.ndarray,
        shared: np.ndarray,
        lock: threading.Lock,
    ) -> None:
        super().__init__(pool, lo, hi, visit)
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


class NumbaPool(OnePassPool):
    """Rows as float32 or float64 for the look-ups, and their float32 unit rows for the tiles."""

    def __init__(self, rows: np.ndarray, squares: np.ndarray, threads: int, tile: int | None) -> None:
        self.m, self.dim = rows.shape
        self.tile = min(default_tile(self.m, threads) if tile is None else tile, self.m)
        self.side = -(-self.m // self.tile)
        self.unit = _unit_rows(rows, squares, threads)  # [m, D]
        self._rows, self._squares, self._threads = _floats(rows), squares, threads

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return unit_products(self.unit, first, second)

    def _tiles(self, lo: float, hi: float, make_visit: Callable[[], Callable[..., None]]) -> np.ndarray:
        """Show every tile to a visitor of its thread; #{j != i : s32 > hi}.   [m] int64"""
        with single_threaded_blas():
            workers = _share(
                self.side * (self.side + 1) // 2, self._threads, lambda: _TileWorker(self, lo, hi, make_visit())
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
            _share(
                self.side * (self.side + 1) // 2,
                self._threads,
                lambda: _ClassWorker(self, lo, hi, visit, offsets, above, lock),
            )

    def pair_similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        out = np.empty(len(first))

        def worker(item: int) -> None:
            part = slice(item * _PAIRS_PER_ITEM, (item + 1) * _PAIRS_PER_ITEM)
            similar_pairs(self._rows, self._squares, first[part], second[part], out[part])

        _share(-(-len(first) // _PAIRS_PER_ITEM), self._threads, lambda: worker)
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

        above32 = self._tiles(*self._reach_of(cutoff), make_visit)
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

        self._tiles_by_class(*self._reach_of(cutoff), visit, offsets, counts)
        return counts + decided

    def _reach_of(self, cutoff: float) -> tuple[float, float]:
        """The bracket outside of which float32 decides."""
        nearest = float(np.clip(cutoff, -_FARTHEST, _FARTHEST))
        return float32_outwards(nearest - self.bound, nearest + self.bound)

    def extreme(self, order: np.ndarray, rows: np.ndarray, limit: np.ndarray, smallest: np.ndarray) -> np.ndarray:
        best = np.full(len(rows), -np.inf)  # max of sign * S, so that both directions are one comparison
        sign = np.where(smallest, -1.0, 1.0)
        ordered = self.unit[order[: limit.max(initial=0)]]

        def worker(item: int) -> None:
            group = slice(item * _ROWS_PER_ITEM, (item + 1) * _ROWS_PER_ITEM)
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
            _share(-(-len(rows) // _ROWS_PER_ITEM), self._threads, lambda: worker)
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


def _unit_rows(rows: np.ndarray, squares: np.ndarray, threads: int) -> np.ndarray:
    """float32 unit rows.   [n, D]"""
    unit = np.empty(rows.shape, dtype=np.float32)

    def worker(item: int) -> None:
        part = slice(item * _ROWS_PER_ITEM, (item + 1) * _ROWS_PER_ITEM)
        scale_rows(_floats(rows[part]), squares[part], unit[part])

    _share(-(-len(rows) // _ROWS_PER_ITEM), threads, lambda: worker)
    return unit


class NumbaBackend(HostBackend):
    """Loops compiled at run time."""

    name = "numba"

    def squared_norms(self, rows: np.ndarray) -> np.ndarray:
        squares = np.empty(len(rows))

        def worker(item: int) -> None:
            part = slice(item * _ROWS_PER_ITEM, (item + 1) * _ROWS_PER_ITEM)
            square_rows(_floats(rows[part]), squares[part])

        _share(-(-len(rows) // _ROWS_PER_ITEM), self._num_threads, lambda: worker)
        return squares

    def normalize(self, rows: np.ndarray, squares: np.ndarray) -> np.ndarray:
        return _unit_rows(rows, squares, self._num_threads)

    def pool(self, rows: np.ndarray, squares: np.ndarray) -> Pool:
        return NumbaPool(rows, squares, self._num_threads, self._tile)

    def score(self, rows: np.ndarray, folded: np.ndarray) -> np.ndarray:
        sigma = np.empty((len(rows), len(folded)), dtype=np.float32)

        def visit(part: slice, block: np.ndarray, squares: np.ndarray, s: np.ndarray) -> None:
            sigma[part] = s

        self._score_blocks(rows, folded, visit)
        return sigma

    def top2(self, rows: np.ndarray, folded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        label = np.empty(len(rows), dtype=np.int64)
        best, second = np.empty(len(rows)), np.empty(len(rows))
        folded = np.ascontiguousarray(folded)
        bound = error_bound(rows.shape[1])

        def visit(part: slice, block: np.ndarray, squares: np.ndarray, s: np.ndarray) -> None:
            best_two(s, block, squares, folded, bound, label[part], best[part], second[part])

        self._score_blocks(rows, folded, visit)
        return label, best, second

    def _score_blocks(self, rows: np.ndarray, folded: np.ndarray, visit: Callable[..., None]) -> None:
        """``visit(part, block, squares, s)`` for blocks of rows: s [b, C] as s32, NaN for unusable rows."""
        columns = folded.astype(np.float32, order="C").T  # [D, C]

        def worker(item: int) -> None:
            part = slice(item * _ROWS_PER_ITEM, (item + 1) * _ROWS_PER_ITEM)
            block = _floats(rows[part])
            squares = np.empty(len(block))
            square_rows(block, squares)
            unit = np.empty(block.shape, dtype=np.float32)
            scale_rows(block, squares, unit)
            visit(part, block, squares, np.dot(unit, columns))

        with single_threaded_blas():
            _share(-(-len(rows) // _ROWS_PER_ITEM), self._num_threads, lambda: worker)
