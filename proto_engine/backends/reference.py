"""The oracle: float64, dense, no cleverness. It defines what every other backend must return.

A sum of products is pinned down to the order of its additions. It goes over blocks of 256 columns, which are
added up in order. In a block there are eight partial sums, lane l over k = l (mod 8) in ascending k, folded as
((0+4)+(2+6)) + ((1+5)+(3+7)). S_ij is the sum over sqrt(q_i q_j), where q_i is the sum of row i with itself;
so S_ii, and S of equal rows, is exactly 1.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from .base import Backend, Pool, cutoff_rank, usable

LANES, BLOCK = 8, 256


def pinned_dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum over the last axis of ``a * b`` (float64, broadcast) in the pinned order of additions."""
    dim = a.shape[-1]
    total: Any = np.float64(0.0)
    for start in range(0, dim, BLOCK):
        lanes: list[Any] = [np.float64(0.0)] * LANES
        for k in range(start, min(start + BLOCK, dim)):
            lanes[k % LANES] = lanes[k % LANES] + a[..., k] * b[..., k]
        even = (lanes[0] + lanes[4]) + (lanes[2] + lanes[6])
        total = total + (even + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7])))
    return np.asarray(total)[()]


def to_double(rows: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(rows).astype(np.float64)


class ReferencePool(Pool):
    """All of S at once."""

    def __init__(self, rows: np.ndarray, squares: np.ndarray) -> None:
        x = to_double(rows)  # [m, D]
        self.m, self.dim = x.shape
        columns = np.ascontiguousarray(x.T)  # [D, m], so that each step below reads consecutive memory
        dot = pinned_dot(np.moveaxis(columns[:, :, None], 0, -1), np.moveaxis(columns[:, None, :], 0, -1))
        self.s = dot / np.sqrt(squares[:, None] * squares[None, :])  # [m, m]

    def density(self, quantile: float) -> tuple[float, np.ndarray]:
        cutoff = float(np.sort(self.s, axis=None)[cutoff_rank(quantile, self.m)])
        return cutoff, self.density_at(cutoff)

    def density_at(self, cutoff: float) -> np.ndarray:
        return np.sign(self.s - cutoff).astype(np.int64).sum(axis=1)

    def class_counts(self, quantile: float, offsets: np.ndarray) -> tuple[float, np.ndarray]:
        cutoff = self.density(quantile)[0]
        return cutoff, self.class_counts_at(cutoff, offsets)

    def class_counts_at(self, cutoff: float, offsets: np.ndarray) -> np.ndarray:
        above = self.s > cutoff  # [m, m]
        np.fill_diagonal(above, False)
        classes = [above[:, start:stop].sum(axis=1) for start, stop in itertools.pairwise(offsets)]
        return np.stack(classes, axis=1).astype(np.int32)

    def extreme(self, order: np.ndarray, rows: np.ndarray, limit: np.ndarray, smallest: np.ndarray) -> np.ndarray:
        eta = np.empty(len(rows))
        for t, i in enumerate(rows):
            values = self.s[i, order[: limit[t]]]
            eta[t] = values.min() if smallest[t] else values.max()
        return eta

    def similarity(self) -> np.ndarray:
        return self.s


class ReferenceBackend(Backend):
    """float64 NumPy."""

    name = "reference"

    def squared_norms(self, rows: np.ndarray) -> np.ndarray:
        x = to_double(rows)
        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(pinned_dot(x, x))

    def normalize(self, rows: np.ndarray, squares: np.ndarray) -> np.ndarray:
        return to_double(rows) * (1.0 / np.sqrt(squares))[:, None]

    def pool(self, rows: np.ndarray, squares: np.ndarray) -> Pool:
        return ReferencePool(rows, squares)

    def score(self, rows: np.ndarray, folded: np.ndarray) -> np.ndarray:
        squares = self.squared_norms(rows)
        good = usable(squares)
        sigma = np.full((len(squares), len(folded)), np.nan)
        dot = pinned_dot(to_double(rows)[good][:, None, :], folded[None, :, :])
        sigma[good] = dot / np.sqrt(squares[good])[:, None]
        return sigma

    def top2(self, rows: np.ndarray, folded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sigma = self.score(rows, folded)  # [n, C]
        bad = np.isnan(sigma).any(axis=1)
        label = np.where(bad, -1, np.argmax(sigma, axis=1))  # the first of equal scores
        best = sigma[np.arange(len(sigma)), label]
        others = sigma.copy()
        others[np.arange(len(sigma)), label] = -np.inf
        return label, best, np.where(bad, np.nan, others.max(axis=1))
