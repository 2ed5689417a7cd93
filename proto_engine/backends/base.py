"""What a backend is: squares and unit rows, a class pool with its density and eta, and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..array_kinds import to_numpy


def error_bound(dim: int) -> float:
    """How far a float32 matrix product of unit rows can be from the pinned float64 similarity.

    Parameters
    ----------
    dim : int
        Number of products in a sum, D.

    Returns
    -------
    float
        ``n u / (1 - n u)`` with ``n = D + 8`` and ``u = 2**-24``.

    Notes
    -----
    A sum of n products in any order of additions, contracted or not, is within ``n u / (1 - n u)`` times
    the sum of absolute products (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed.,
    section 3.1), and that sum is at most 1 for unit rows (Cauchy-Schwarz). Rounding both rows to
    float32 adds two u, the norms and the float64 side far less than the remaining six.
    """
    n = (dim + 8) * 2.0**-24
    return n / (1.0 - n)


def cutoff_rank(quantile: float, m: int) -> int:
    """Index of the cutoff among the m * m similarities in ascending order (NumPy's ``method="lower"``)."""
    return int(np.floor(quantile * (m * m - 1)))


def classes_within(offsets: np.ndarray, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Classes that rows ``start`` to ``stop`` belong to: number, first and last row counted from ``start``."""
    c = int(np.searchsorted(offsets, start, side="right")) - 1
    while offsets[c] < stop:
        first, last = max(int(offsets[c]), start), min(int(offsets[c + 1]), stop)
        if first < last:
            yield c, first - start, last - start
        c += 1


class Pool(ABC):
    """The rows of one class, made ready for their similarities."""

    m: int  # number of rows
    dim: int

    @abstractmethod
    def density(self, quantile: float) -> tuple[float, np.ndarray]:
        """The cutoff S_c and rho [m] int64."""

    @abstractmethod
    def density_at(self, cutoff: float) -> np.ndarray:
        """rho [m] int64 for a cutoff that is given."""

    @abstractmethod
    def class_counts(self, quantile: float, offsets: np.ndarray) -> tuple[float, np.ndarray]:
        """The cutoff over all pairs of the pool, and ``class_counts_at`` it."""

    @abstractmethod
    def class_counts_at(self, cutoff: float, offsets: np.ndarray) -> np.ndarray:
        """#{j != i of class c : S_ij > cutoff}; rows offsets[c] to offsets[c + 1] are class c.   [m, C] int32"""

    @abstractmethod
    def extreme(self, order: np.ndarray, rows: np.ndarray, limit: np.ndarray, smallest: np.ndarray) -> np.ndarray:
        """Max (min where ``smallest``) of S over ``order[:limit[t]]`` for each of ``rows``.   [n] float64

        Fastest where neighbors have like limits.
        """

    @abstractmethod
    def similarity(self) -> Any:
        """The whole matrix S.   [m, m]"""


Chunks = Iterable[tuple[int, Any]]  # number of the first row, and rows [b, D]


@dataclass(frozen=True)
class Picks:
    """The prototypes of one class, as positions in its pool."""

    rows: np.ndarray  # [<= p] int64
    rho: np.ndarray | None = None
    eta: np.ndarray | None = None
    cutoff: float = float("nan")
    filtered: float = 0.0
    contrast: tuple[int, np.ndarray, np.ndarray] | None = None  # consistent rows; share and contrast of the picks


class Backend(ABC):
    """One way to compute. Rows come as `native` made them of the caller's array."""

    name: str
    takes_device_arrays = False  # features that are on a GPU

    def native(self, rows: Any) -> Any:
        """An array of any kind as the backend wants it; float64 rows scaled so that squares stay finite.   [n, D]"""
        return condition_numpy(to_numpy(rows))

    def pick_classes(
        self,
        bank: Any,
        squares: np.ndarray,
        pools: Sequence[np.ndarray],
        p: int,
        quantile: float,
        eta_max: float,
        may_pick: np.ndarray | None,
    ) -> list[Picks | None]:
        """The published rule for the pools of all classes together; None for a class that is left to `pool`.

        ``bank`` is a FeatureBank [N, D] and ``squares`` [N] are the squares of its rows, ``pools`` are row
        numbers, none empty, ``may_pick`` [N] bool says which may be picked (None: all).
        """
        return [None] * len(pools)

    @abstractmethod
    def squared_norms(self, rows: Any) -> np.ndarray:
        """The pinned sum of squares of each row.   [n] float64"""

    @abstractmethod
    def normalize(self, rows: Any, squares: np.ndarray) -> Any:
        """Unit rows, float32 (float64 from the reference).   [n, D]"""

    @abstractmethod
    def pool(self, rows: Any, squares: np.ndarray) -> Pool:
        """Make the rows of a class ready; all usable (squares positive and finite)."""

    @abstractmethod
    def score(self, rows: Any, folded: np.ndarray) -> Any:
        """sigma_c = x_hat . folded_c; NaN for unusable rows.   [n, C]"""

    @abstractmethod
    def top2(self, rows: Any, folded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Best class (int64; -1 unusable), its score and the second best score (float64).   [n] each"""

    def score_chunks(self, chunks: Chunks, folded: np.ndarray) -> Iterator[tuple[int, Any]]:
        """`score` of each chunk of a bank, with the number of its first row."""
        for start, rows in chunks:
            yield start, self.score(self.native(rows), folded)

    def top2_chunks(
        self, chunks: Chunks, folded: np.ndarray
    ) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
        """`top2` of each chunk of a bank, with the number of its first row."""
        for start, rows in chunks:
            yield start, self.top2(self.native(rows), folded)


_SAFE_EXPONENT = 240  # the product of two squares of such float64 elements is still a float64


def conditioning_shift(largest: np.ndarray) -> np.ndarray:
    """Exponents of the powers of two that bring float64 rows of extreme size near 1; 0 for all others.

    ``largest`` is the greatest magnitude of each row, [n]. The result, [n] integers, is exact to apply:
    directions, and so all similarities, stay what they are.
    """
    _, exponent = np.frexp(largest)
    extreme = np.isfinite(largest) & (largest > 0) & (np.abs(exponent) > _SAFE_EXPONENT)
    return np.where(extreme, -exponent, 0)


def condition_numpy(rows: np.ndarray) -> np.ndarray:
    """Scale float64 rows of extreme size by powers of two (exact): their squares would over- or underflow.

    Directions, and so all similarities, stay what they are. Narrower types cannot get there.
    """
    if rows.dtype != np.float64 or rows.size == 0:
        return rows
    largest = np.abs(rows).max(axis=1)  # [n]
    shift = conditioning_shift(largest)
    if not shift.any():
        return rows
    rows = rows.copy()
    extreme = shift != 0
    rows[extreme] = np.ldexp(rows[extreme], shift[extreme, None])
    return rows


def usable(squares: np.ndarray) -> np.ndarray:
    """Rows that have a direction: their sum of squares is positive and finite."""
    return np.isfinite(squares) & (squares > 0)


def density_order(rho: np.ndarray) -> np.ndarray:
    """Row numbers by density, highest first, equal densities by row number.   [m] int64"""
    return np.argsort(-rho, kind="stable")


def eta_of(pool: Pool, rho: np.ndarray, rows: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    """eta of the listed rows of a pool.   [n] float64"""
    order = density_order(rho) if order is None else order
    # The rows denser than i are the first `limit` of the order; the densest rows look at all rows.
    limit = np.searchsorted(-rho[order], -rho[rows], side="left")  # [n]
    densest = limit == 0
    limit[densest] = pool.m
    alike = np.argsort(limit, kind="stable")  # rows that look at equally many are computed together
    eta = np.empty(len(rows))
    eta[alike] = pool.extreme(order, rows[alike], limit[alike], densest[alike])
    return eta
