"""Scores through faiss: an IndexFlatIP over the folded vectors finds the classes that float32 puts first.

faiss decides only what its float32 values prove: a row whose third score is too close to its second has
all its scores computed in float64. The two scores that are given back are always the pinned float64 ones.

Features on a GPU are searched there (`faiss_gpu`), where faiss was built for GPUs and finds one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np

from ..array_kinds import is_cupy, is_tensor
from ..errors import BackendUnavailable
from . import cpu
from .base import Backend, Pool, error_bound, usable
from .host import num_threads
from .reference import BLOCK, LANES, to_double

_BLOCK = 1024  # rows at a time: their float64 products stay in the cache
_PRODUCT_BYTES = 2**24


class FaissBackend(Backend):
    """Scores only; selection needs another backend."""

    name = "faiss"

    def __init__(self) -> None:
        self.takes_device_arrays = _on_gpu()

    def native(self, rows: Any) -> Any:
        if is_cupy(rows) or (is_tensor(rows) and rows.is_cuda):
            return _torch_backend().native(rows)
        return super().native(rows)

    def squared_norms(self, rows: Any) -> np.ndarray:
        if is_tensor(rows):
            return _torch_backend().squared_norms(rows)
        if cpu.unavailable is None:
            return cpu.CpuBackend().squared_norms(rows)
        squares = np.empty(len(rows))
        for start in range(0, len(rows), _BLOCK):
            x = to_double(rows[start : start + _BLOCK])
            squares[start : start + len(x)] = _pinned_dots(x, x)
        return squares

    def normalize(self, rows: Any, squares: np.ndarray) -> Any:
        if is_tensor(rows):
            return _torch_backend().normalize(rows, squares)
        if cpu.unavailable is None:
            return cpu.CpuBackend().normalize(rows, squares)
        unit = np.empty(rows.shape, dtype=np.float32)
        for start in range(0, len(rows), _BLOCK):
            part = slice(start, start + _BLOCK)
            unit[part] = to_double(rows[part]) / np.sqrt(squares[part])[:, None]
        return unit

    def pool(self, rows: Any, squares: np.ndarray) -> Pool:
        raise BackendUnavailable("backend 'faiss' only scores: choose another one to select prototypes")

    def score(self, rows: Any, folded: np.ndarray) -> Any:
        if is_tensor(rows):
            from . import faiss_gpu

            return faiss_gpu.score(rows, folded, faiss_gpu.search_on(rows.device.index))
        sigma = np.full((len(rows), len(folded)), np.nan, dtype=np.float32)
        vectors = folded.astype(np.float32)
        with _threads():
            for good, _, unit in self._blocks(rows):
                sigma[good] = faiss.pairwise_distances(unit, vectors, faiss.METRIC_INNER_PRODUCT)
        return sigma

    def top2(self, rows: Any, folded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if is_tensor(rows):
            from . import faiss_gpu

            return faiss_gpu.top2(rows, folded, faiss_gpu.search_on(rows.device.index))
        label = np.full(len(rows), -1, dtype=np.int64)
        best, second = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
        index = faiss.IndexFlatIP(folded.shape[1])
        index.add(folded.astype(np.float32))
        reach = 2 * error_bound(rows.shape[1])
        with _threads():
            for good, squares, unit in self._blocks(rows):
                s, classes = index.search(unit, min(len(folded), 3))  # [b, 3] each, the greatest first
                wide = s.astype(np.float64)
                decided = wide[:, 1] - wide[:, 2] > reach if s.shape[1] == 3 else np.ones(len(s), dtype=bool)
                x, norms = to_double(rows[good]), np.sqrt(squares)
                for chosen, of in (
                    (decided, np.sort(classes[decided, :2], axis=1)),  # lower class first
                    (~decided, None),
                ):
                    if chosen.any():
                        sigma = _pinned_scores(x[chosen], folded, of) / norms[chosen][:, None]
                        where = good[chosen]
                        label[where], best[where], second[where] = _best_two(sigma, of)
        return label, best, second

    def _blocks(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Row numbers, squares and float32 unit rows of the usable rows, block by block."""
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            squares = self.squared_norms(block)
            good = np.flatnonzero(usable(squares))
            if len(good) < len(block):
                block, squares = block[good], squares[good]
            if len(good):
                yield start + good, squares, np.ascontiguousarray(self.normalize(block, squares))


def _on_gpu() -> bool:
    """Whether faiss was built for GPUs and finds one, and torch as well."""
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        return False
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def _torch_backend() -> Backend:
    from .torch import TorchBackend

    return TorchBackend()


def _pinned_dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`reference.pinned_dot` of rows, a group of lanes at a time.   [n, D] float64 -> [n]"""
    with np.errstate(invalid="ignore", over="ignore"):
        product = a * b
        total = np.zeros(len(product))
        for start in range(0, product.shape[1], BLOCK):
            block = product[:, start : start + BLOCK]
            lanes = np.zeros((len(product), LANES))
            for k in range(0, block.shape[1], LANES):
                group = block[:, k : k + LANES]
                lanes[:, : group.shape[1]] += group
            lanes = lanes[:, :4] + lanes[:, 4:]  # 0+4, 1+5, 2+6, 3+7
            lanes = lanes[:, :2] + lanes[:, 2:]
            total += lanes[:, 0] + lanes[:, 1]
        return total


def _pinned_scores(x: np.ndarray, folded: np.ndarray, classes: np.ndarray | None) -> np.ndarray:
    """Pinned products of float64 rows with their classes [n, k], or with all where none are given.   [n, k]"""
    if cpu.unavailable is None:
        return _native_scores(x, folded, classes)
    if classes is not None:
        return np.stack([_pinned_dots(x, folded[of]) for of in classes.T], axis=1)
    out = np.empty((len(x), len(folded)))
    step = max(1, _PRODUCT_BYTES // folded.nbytes)
    for start in range(0, len(x), step):
        block = x[start : start + step]
        left, right = np.repeat(block, len(folded), axis=0), np.tile(folded, (len(block), 1))
        out[start : start + step] = _pinned_dots(left, right).reshape(len(block), len(folded))
    return out


def _native_scores(x: np.ndarray, folded: np.ndarray, classes: np.ndarray | None) -> np.ndarray:
    """`_pinned_scores` by the native module: similarities of pairs of rows whose squares it takes for one."""
    from .. import _core

    num_rows, num_classes = len(x), len(folded)
    if classes is None:
        classes = np.broadcast_to(np.arange(num_classes), (num_rows, num_classes))
    pairs = np.concatenate([x, folded])
    first = np.repeat(np.arange(num_rows), classes.shape[1])
    second = (num_rows + classes).reshape(-1)
    ones = np.ones(len(pairs))
    return _core.pair_similarity(pairs, "float64", ones, first, second, num_threads()).reshape(classes.shape)


def _best_two(sigma: np.ndarray, classes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best class, its score, the second best score; columns in ascending class, so the lower one wins."""
    row = np.arange(len(sigma))
    column = np.argmax(sigma, axis=1)  # the first of equals
    best = sigma[row, column]
    sigma[row, column] = -np.inf
    return column if classes is None else classes[row, column], best, sigma.max(axis=1)


@contextmanager
def _threads() -> Iterator[None]:
    """faiss with our number of threads."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(num_threads())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
