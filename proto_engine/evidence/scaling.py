"""Rows whose squares are too large or too small for floats, brought near 1 by one power of two for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..array_kinds import ArrayKind
from ..bank import FeatureBank
from ..moments import Moments, MomentSums, as_working, row_blocks

# Of the mean variance, as powers of two: between them centered rows, their scale and its square are ordinary numbers.
_RANGE = {np.dtype(np.float32): (-200, 248), np.dtype(np.float64): (-900, 1000)}


class ScaledRows:
    """The rows of a bank times a power of two, float32 (float64 of a float64 bank), on the host."""

    name = "scaled rows"
    kind = ArrayKind()

    def __init__(self, bank: FeatureBank, exponent: int) -> None:
        self.shape = bank.shape
        self.dtype: Any = as_working(bank.rows([0])).dtype
        self._bank, self._exponent = bank, exponent

    def rows(self, wanted: np.ndarray) -> np.ndarray:
        """Rows ``wanted`` (int64, [k], in range) in that order, [k, D]."""
        return self._scaled(self._bank.rows(wanted))

    def chunks(self, step: int) -> Iterator[tuple[int, np.ndarray]]:
        """(start, [b, D]) over all rows, b <= ``step``."""
        for start, rows in self._bank.chunks(step * self.shape[1] * self._bank.dtype.itemsize):
            yield start, self._scaled(rows)

    def _scaled(self, rows: Any) -> np.ndarray:
        with np.errstate(all="ignore"):  # what is not finite stays so, what is far below the largest becomes 0
            return np.ldexp(as_working(rows), self._exponent)


def brought_near_one(bank: FeatureBank, usable: np.ndarray, moments: Moments) -> tuple[FeatureBank, Moments]:
    """The bank and its moments; where floats cannot hold its squares, of rows scaled by a power of two.

    Evidence does not notice the scale: it is the same, bit by bit, as of rows that came near 1.

    Parameters
    ----------
    bank : FeatureBank, [N, D]
    usable : numpy.ndarray of bool, [N]
        Rows that count, at least one.
    moments : Moments
        Of these rows; where their squares overflow, not finite.
    """
    low, high = _RANGE[as_working(bank.rows([0])).dtype]
    variance = float(np.diag(moments.covariance).mean())
    if np.isfinite(moments.covariance).all() and 2.0**low < variance < 2.0**high:
        return bank, moments
    peak = 0.0
    for start, rows in row_blocks(bank):
        peak = max(peak, float(np.abs(rows[usable[start : start + len(rows)]]).max(initial=0.0)))
    scaled = FeatureBank.over(ScaledRows(bank, -int(np.frexp(peak)[1])))
    sums = MomentSums(bank.shape[1])
    for start, rows in row_blocks(scaled):
        sums.add(rows[usable[start : start + len(rows)]])
    return scaled, sums.result()
