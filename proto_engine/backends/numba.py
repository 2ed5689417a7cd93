"""The engine for machines without a C++ compiler: NumPy's matrix product, and loops that numba compiles at run time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .base import Pool, error_bound
from .host import HostBackend, single_threaded_blas
from .numba_loops import best_two, scale_rows, square_rows
from .numba_pool import ROWS_PER_ITEM, NumbaPool, floats, unit_rows
from .work_sharing import share


class NumbaBackend(HostBackend):
    """Loops compiled at run time."""

    name = "numba"

    def squared_norms(self, rows: np.ndarray) -> np.ndarray:
        squares = np.empty(len(rows))

        def worker(item: int) -> None:
            part = slice(item * ROWS_PER_ITEM, (item + 1) * ROWS_PER_ITEM)
            square_rows(floats(rows[part]), squares[part])

        share(-(-len(rows) // ROWS_PER_ITEM), self._num_threads, lambda: worker)
        return squares

    def normalize(self, rows: np.ndarray, squares: np.ndarray) -> np.ndarray:
        return unit_rows(rows, squares, self._num_threads)

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
            part = slice(item * ROWS_PER_ITEM, (item + 1) * ROWS_PER_ITEM)
            block = floats(rows[part])
            squares = np.empty(len(block))
            square_rows(block, squares)
            unit = np.empty(block.shape, dtype=np.float32)
            scale_rows(block, squares, unit)
            visit(part, block, squares, np.dot(unit, columns))

        with single_threaded_blas():
            share(-(-len(rows) // ROWS_PER_ITEM), self._num_threads, lambda: worker)
