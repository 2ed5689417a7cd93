"""The C++ engine: tiles through the BLAS that SciPy brings, reductions of our own (csrc/cpu)."""

from __future__ import annotations

import numpy as np

from .base import Pool, error_bound
from .exact import Inside, OnePassPool
from .host import HostBackend, default_tile, single_threaded_blas, stored, unit_products

try:
    from scipy.linalg import cython_blas

    from .. import _core

    _core.set_blas(cython_blas.__pyx_capi__["sgemm"], cython_blas.__pyx_capi__["ssyrk"])
except ImportError as error:  # no compiler when the package was built
    unavailable: str | None = f"the native module was not built: {error}"
except AttributeError as error:  # sources that are newer than what was built of them
    unavailable = f"the native module is of another version, install the package again: {error}"
else:
    unavailable = None


class CpuPool(OnePassPool):
    """Rows as stored for the float64 look-ups, and their float32 unit rows for the tiles."""

    def __init__(self, rows: np.ndarray, squares: np.ndarray, threads: int, tile: int | None) -> None:
        self.m, self.dim = rows.shape
        self._rows, self._dtype = stored(rows)
        self._squares = squares
        self._threads = threads
        self._tile = default_tile(self.m, threads) if tile is None else tile
        self._unit = _core.normalize(self._rows, self._dtype, squares, threads)  # [m, D] float32

    def pair_similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return _core.pair_similarity(self._rows, self._dtype, self._squares, first, second, self._threads)

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return unit_products(self._unit, first, second)

    def count_bracket(self, lo: float, hi: float, capacity: int) -> Inside:
        with single_threaded_blas():
            return Inside(*_core.count_bracket(self._unit, lo, hi, capacity, self._tile, self._threads))

    def count_bracket_by_class(self, lo: float, hi: float, capacity: int, offsets: np.ndarray) -> Inside:
        with single_threaded_blas():
            return Inside(
                *_core.count_bracket_by_class(self._unit, offsets, lo, hi, capacity, self._tile, self._threads)
            )

    def histogram(self, lo: float, hi: float, bins: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        with single_threaded_blas():
            return _core.histogram(
                self._rows,
                self._dtype,
                self._squares,
                self._unit,
                lo,
                hi,
                self.bound,
                bins,
                self._tile,
                self._threads,
            )

    def count_threshold(self, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
        with single_threaded_blas():
            return _core.count_threshold(
                self._rows,
                self._dtype,
                self._squares,
                self._unit,
                cutoff,
                self.bound,
                self._tile,
                self._threads,
            )

    def class_counts_at(self, cutoff: float, offsets: np.ndarray) -> np.ndarray:
        with single_threaded_blas():
            return _core.count_threshold_by_class(
                self._rows,
                self._dtype,
                self._squares,
                self._unit,
                offsets,
                cutoff,
                self.bound,
                self._tile,
                self._threads,
            )

    def extreme(self, order: np.ndarray, rows: np.ndarray, limit: np.ndarray, smallest: np.ndarray) -> np.ndarray:
        with single_threaded_blas():
            return _core.extreme_similarity(
                self._rows,
                self._dtype,
                self._squares,
                self._unit,
                order,
                rows,
                limit,
                smallest.astype(np.uint8),
                self.bound,
                self._threads,
            )

    def similarity(self) -> np.ndarray:
        with single_threaded_blas():
            return _core.similarity(self._unit, self._tile, self._threads)


class CpuBackend(HostBackend):
    """The native CPU engine."""

    name = "cpu"

    def squared_norms(self, rows: np.ndarray) -> np.ndarray:
        return _core.squared_norms(*stored(rows), self._num_threads)

    def normalize(self, rows: np.ndarray, squares: np.ndarray) -> np.ndarray:
        return _core.normalize(*stored(rows), squares, self._num_threads)

    def pool(self, rows: np.ndarray, squares: np.ndarray) -> Pool:
        return CpuPool(rows, squares, self._num_threads, self._tile)

    def score(self, rows: np.ndarray, folded: np.ndarray) -> np.ndarray:
        with single_threaded_blas():
            return _core.score(*stored(rows), folded, self._num_threads)

    def top2(self, rows: np.ndarray, folded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with single_threaded_blas():
            return _core.score_top2(*stored(rows), folded, error_bound(rows.shape[1]), self._num_threads)
