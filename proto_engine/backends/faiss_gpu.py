"""Scores through faiss on a GPU: rows are searched where they are, as they are stored.

`faiss.knn_gpu` puts the classes of each row in the order of their products with the folded vectors, which are
rounded to the type of the rows for it. What its products prove is taken; the rest, and the two scores that are
given back, are pinned float64 products, computed on the device.
"""

from __future__ import annotations

import functools
import threading
from typing import Any, Protocol

import faiss
import numpy as np
import torch

from .torch_rows import pinned_dots, plain, rows_within, sizes, square_root, square_rows, to_tensor, unit_rows

_NEIGHBORS = 8  # that faiss is asked for; where more could be second, all classes are looked at
_SCALE = 2.0**14  # keeps the elements of folded vectors out of float16's denormal numbers
_SAFE_SQUARES = (2.0**-80, 2.0**80)  # no product of such a row leaves float32
_TEMPORARY_BYTES = 64 * 2**20
_ROUNDINGS = {torch.float16: 2.0**13 + 2, torch.bfloat16: 2.0**15}  # of the folded vectors, in units of 2**-24


class Search(Protocol):
    """Inner products with the vectors by faiss, or by its stand-in in the tests."""

    def nearest(self, queries: torch.Tensor, vectors: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The k greatest inner products of each query, descending, and whose they are.   [n, k] float32, int64"""

    def products(self, queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """All of them.   [n, C] float32"""


class GpuSearch:
    """faiss on one device; used by one thread at a time, on torch's current stream."""

    def __init__(self, device: int) -> None:
        import faiss.contrib.torch_utils  # teaches faiss to take tensors

        self._device = device
        self._lock = threading.Lock()
        self._resources = faiss.StandardGpuResources()
        self._resources.setTempMemory(_TEMPORARY_BYTES)

    def nearest(self, queries: torch.Tensor, vectors: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._call(faiss.knn_gpu, queries, vectors, k)

    def products(self, queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        return self._call(faiss.pairwise_distance_gpu, queries, vectors)

    def _call(self, function: Any, *arguments: Any) -> Any:
        with self._lock, torch.cuda.device(self._device):
            return function(self._resources, *arguments, metric=faiss.METRIC_INNER_PRODUCT, device=self._device)


@functools.cache
def search_on(device: int) -> GpuSearch:
    """The one of that device: its memory is kept."""
    return GpuSearch(device)


def search_bound(dim: int, dtype: torch.dtype) -> float:
    """How far faiss's product of a row with a rounded folded vector can be from that in float64.

    Parameters
    ----------
    dim : int
        D.
    dtype : torch.dtype
        Of the rows and the rounded vectors.

    Returns
    -------
    float
        In units of the two norms' product: ``n u / (1 - n u)`` with ``u = 2**-24`` and ``n = r + 3.02 D + 16``.

    Notes
    -----
    r u is what rounding a folded vector changes it by: 2**-11 for float16 and 2**-9 for bfloat16, 2**-24 for
    float32. cuBLAS may multiply narrow types on tensor cores, which cut off: 3 u a product of the
    rounded vectors, which are up to 2**-9 longer. The last 16 pay for
    the unit row of float64 rows and for the norm.
    """
    n = (_ROUNDINGS.get(dtype, 1.0) + 3.02 * dim + 16) * 2.0**-24
    return n / (1.0 - n) if n < 0.5 else float("inf")


def score(rows: torch.Tensor, folded: np.ndarray, search: Search) -> torch.Tensor:
    """sigma [n, C] float32, of float32 unit rows."""
    with plain(rows):
        sigma = torch.empty((len(rows), len(folded)), dtype=torch.float32, device=rows.device)
        vectors = to_tensor(folded).to(rows.device, torch.float32)
        step = _rows_at_a_time(rows, folded)
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            sigma[start : start + step] = search.products(unit_rows(block, square_rows(block)), vectors)
        return sigma


def top2(rows: torch.Tensor, folded: np.ndarray, search: Search) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best class (int64; -1 unusable), its score and the second best score (float64).   [n] each"""
    device = rows.device
    label = torch.full((len(rows),), -1, dtype=torch.int64, device=device)
    best = torch.full((len(rows),), torch.nan, dtype=torch.float64, device=device)
    second = best.clone()
    with plain(rows):
        vectors = to_tensor(folded).to(device)
        step = _rows_at_a_time(rows, folded)
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            squares = square_rows(block)
            for chosen, classes, possible in _candidates(block, squares, vectors, search):
                if len(chosen):
                    found = _decide(block, squares, chosen, classes, possible, vectors)
                    label[start + chosen], best[start + chosen], second[start + chosen] = found
    return label.cpu().numpy(), best.cpu().numpy(), second.cpu().numpy()


def _rows_at_a_time(rows: torch.Tensor, folded: np.ndarray) -> int:
    return rows_within(sizes(rows.device).block_bytes, 8 * (rows.shape[1] + len(folded)))


def _candidates(
    block: torch.Tensor, squares: torch.Tensor, vectors: torch.Tensor, search: Search
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Usable rows [r] with their classes [r, k] and which of those could be first or second [r, k]."""
    usable = torch.isfinite(squares) & (squares > 0)
    if block.dtype == torch.float64:
        queries, norms, safe = unit_rows(block, squares), torch.ones_like(squares), usable
    else:
        queries, norms = block.contiguous(), squares.sqrt()
        safe = (squares >= _SAFE_SQUARES[0]) & (squares <= _SAFE_SQUARES[1])
    count = len(vectors)
    s, classes = search.nearest(queries, (vectors * _SCALE).to(queries.dtype), min(count, _NEIGHBORS))
    # Whoever is first or second in float64 lies within two bounds of faiss's second.
    wide = s.double()
    reach = 2 * _SCALE * search_bound(block.shape[1], queries.dtype) * norms
    possible = wide >= (wide[:, min(1, count - 1)] - reach)[:, None]
    in_full = ~safe
    if count > _NEIGHBORS:
        in_full |= possible[:, -1]
    few, all_of = (usable & ~in_full).nonzero().view(-1), (usable & in_full).nonzero().view(-1)
    every = torch.arange(count, device=block.device).expand(len(all_of), count)
    return [(few, classes[few], possible[few]), (all_of, every, torch.ones_like(every, dtype=torch.bool))]


def _decide(
    block: torch.Tensor,
    squares: torch.Tensor,
    chosen: torch.Tensor,
    classes: torch.Tensor,
    possible: torch.Tensor,
    vectors: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Label, score and second best score of the chosen rows, from the pinned scores of their candidates."""
    value = torch.full(tuple(classes.shape), -torch.inf, dtype=torch.float64, device=block.device)
    i, place = possible.nonzero(as_tuple=True)
    row = chosen[i]
    value[i, place] = pinned_dots(block, row, vectors, classes[i, place]) / square_root(squares[row])
    best = value.amax(dim=1)
    label = classes.masked_fill(value != best[:, None], len(vectors)).amin(dim=1)  # the lowest of equals
    value.masked_fill_(classes == label[:, None], -torch.inf)
    return label, best, value.amax(dim=1)
