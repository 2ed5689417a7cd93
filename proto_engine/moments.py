"""Mean and covariance of a feature bank in one walk over its rows, in little memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .array_kinds import to_numpy
from .arrays import as_bank
from .bank import FeatureBank

BLOCK_ROWS = 4096  # long enough for matrix products at full speed
BLOCK_BYTES = 64 * 2**20  # of a block in float32: wide rows come in shorter blocks
_ORDINARY = 2.0**-180, 2.0**192  # mean variances of rows that float32 holds after centering, their outliers too
_MAX_SCALE = 1000  # powers of two up to here have an inverse in float64, and bring any row far enough
_MAX_EXPONENT = {np.dtype(np.float32): 120, np.dtype(np.float64): 1000}  # of powers of two that have an inverse


class Moments(NamedTuple):
    """Mean, covariance and number of the rows that were counted.

    Attributes
    ----------
    mean : numpy.ndarray of float64, [D]
    covariance : numpy.ndarray of float64, [D, D]
        Divided by ``num_rows``, not ``num_rows - 1``. Symmetric to the last bit.
    num_rows : int
    """

    mean: np.ndarray
    covariance: np.ndarray
    num_rows: int


class MomentSums:
    """Running sums of rows and of their products.

    Rows are shifted by the mean of the first block before they are multiplied, so that a large common
    offset costs no digits, and the shift is taken out of the sums at the end:

        cov = (1/n) sum (x - a) (x - a)^T - (mu - a) (mu - a)^T.

    Products are float32 within a block, brought near 1 by a power of two, and add up in float64.

    References
    ----------
    Chan, Golub, LeVeque: Algorithms for Computing the Sample Variance. The American
    Statistician 37, 1983 (shifted data).
    """

    def __init__(self, dim: int) -> None:
        self._shift: np.ndarray | None = None  # [D]
        self._sum = np.zeros(dim)
        self._products = np.zeros((dim, dim))
        self._count = 0

    def add(self, rows: np.ndarray) -> None:
        """Count rows, [b, D] float32 or float64, all finite."""
        if len(rows) == 0:
            return
        self._count += len(rows)
        with np.errstate(over="ignore", invalid="ignore"):  # squares beyond float64: a covariance that is not finite
            if self._shift is None:
                self._shift = rows.mean(axis=0, dtype=np.float64).astype(rows.dtype)
            shifted = rows - self._shift  # [b, D]
            self._sum += shifted.sum(axis=0, dtype=np.float64)
            limit = _MAX_EXPONENT[shifted.dtype]
            exponent = int(np.clip(np.frexp(max(-shifted.min(), shifted.max()))[1], -limit, limit))
            shifted *= 2.0**-exponent  # near 1 and exact: squares stay inside float32
            near_one = shifted.astype(np.float32, copy=False)
            self._products += (near_one.T @ near_one) * 2.0 ** np.float64(2 * exponent)

    def result(self) -> Moments:
        """The moments so far.

        Raises
        ------
        ValueError
            No rows were counted.
        """
        if self._shift is None:
            raise ValueError("features: wanted at least one row that is finite and not all zero, got none")
        rest = self._sum / self._count  # [D]
        with np.errstate(over="ignore", invalid="ignore"):  # as in `add`
            covariance = self._products / self._count - np.outer(rest, rest)
            mean = self._shift.astype(np.float64) + rest
        return Moments(mean, covariance, self._count)


def bank_moments(features: Any) -> Moments:
    """Mean and covariance of the rows of a bank that are finite and not all zero.

    Parameters
    ----------
    features : FeatureBank or array, [N, D]
        float16, bfloat16, float32 or float64. Read once, a block at a time; rows on a GPU come to the host.

    Returns
    -------
    Moments
        ``mean, covariance, num_rows``, float64.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape; no usable row.
    """
    bank = as_bank(features)
    sums = MomentSums(bank.shape[1])
    for _, rows in row_blocks(bank):
        good = usable_rows(rows)
        sums.add(rows if good.all() else rows[good])
    return sums.result()


def brought_near_one(bank: FeatureBank, moments: Moments) -> tuple[int, Moments]:
    """A power of two for rows too large or too small for floats to hold their squares, and the moments after it.

    Parameters
    ----------
    bank : FeatureBank, [N, D]
    moments : Moments
        Of its usable rows; not finite, or zero, where their squares leave the range of floats.

    Returns
    -------
    exponent : int
        0 for ordinary rows, else one that brings the largest entry near 1.
    moments : Moments
        Of the rows times ``2**exponent``. Two more walks over the bank where that is not 0.
    """
    low, high = _ORDINARY
    if np.isfinite(moments.covariance).all() and low < np.diag(moments.covariance).mean() < high:
        return 0, moments
    peak = 0.0
    for _, rows in row_blocks(bank):
        peak = max(peak, float(np.abs(rows[usable_rows(rows)]).max(initial=0.0)))
    exponent = int(np.clip(-np.frexp(peak)[1], -_MAX_SCALE, _MAX_SCALE))
    sums = MomentSums(bank.shape[1])
    for _, rows in row_blocks(bank):
        sums.add(scaled_rows(rows[usable_rows(rows)], exponent))
    return exponent, sums.result()


def scaled_rows(rows: np.ndarray, exponent: int) -> np.ndarray:
    """Rows times ``2**exponent``; what is far below the largest becomes 0, what is not finite stays so."""
    with np.errstate(all="ignore"):
        return np.ldexp(rows, exponent)


def row_blocks(bank: FeatureBank) -> Iterator[tuple[int, np.ndarray]]:
    """Walk over a bank in blocks that depend on its shape alone, wherever the rows are kept.

    Yields
    ------
    start : int
        Row number of the block's first row.
    rows : numpy.ndarray, [b, D]
        float32 (float64 for a float64 bank), on the host. Not to be written to: it may be the bank's memory.
    """
    dim = bank.shape[1]
    step = max(1, min(BLOCK_ROWS, BLOCK_BYTES // (4 * dim)))
    held: list[np.ndarray] = []  # a file's chunks may end anywhere
    start = count = 0
    for _, chunk in bank.chunks(step * dim * bank.dtype.itemsize):
        rows = as_working(chunk)
        while len(rows):
            part, rows = rows[: step - count], rows[step - count :]
            held.append(part)
            count += len(part)
            if count == step:
                yield start, held[0] if len(held) == 1 else np.concatenate(held)
                start, count, held = start + count, 0, []
    if count:
        yield start, held[0] if len(held) == 1 else np.concatenate(held)


def as_working(rows: Any) -> np.ndarray:
    """Rows of any kind on the host, float64 as they are and everything else as float32 (exact)."""
    host = to_numpy(rows)
    return host if host.dtype == np.float64 else host.astype(np.float32, copy=False)


def usable_rows(rows: np.ndarray) -> np.ndarray:
    """Rows that are finite and not all zero.   [b, D] -> [b] bool"""
    return np.isfinite(rows).all(axis=1) & rows.any(axis=1)
