"""Rows times a power of two, for features whose squares are too large or too small for floats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..array_kinds import ArrayKind
from ..bank import FeatureBank
from ..moments import as_working, scaled_rows


class ScaledRows:
    """The rows of a bank times ``2**exponent``, float32 (float64 of a float64 bank), on the host.

    Evidence does not notice the scale: it is the same, bit by bit, as of features that came near 1.
    """

    name = "scaled rows"
    kind = ArrayKind()

    def __init__(self, bank: FeatureBank, exponent: int) -> None:
        self.shape = bank.shape
        self.dtype: Any = as_working(bank.rows([0])).dtype
        self._bank, self._exponent = bank, exponent

    def rows(self, wanted: np.ndarray) -> np.ndarray:
        """Rows ``wanted`` (int64, [k], in range) in that order, [k, D]."""
        return scaled_rows(as_working(self._bank.rows(wanted)), self._exponent)

    def chunks(self, step: int) -> Iterator[tuple[int, np.ndarray]]:
        """(start, [b, D]) over all rows, b <= ``step``."""
        for start, rows in self._bank.chunks(step * self.shape[1] * self._bank.dtype.itemsize):
            yield start, scaled_rows(as_working(rows), self._exponent)
