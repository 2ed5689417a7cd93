"""Every row described by its kernel values with a thousand rows drawn from the bank."""

from __future__ import annotations

import numpy as np

from ..bank import FeatureBank
from ..moments import as_working
from .whitening import HalfWhitening

ROWS_PER_LANDMARK = 5  # at least: with fewer a fit to so many landmarks learns wrong labels by heart
LANDMARKS = 1000  # AUROC on human label errors .900, .906, .912 with 500, 1,000, 2,000; cost grows with the square
GAMMA = 1.0  # exp(gamma (cos - 1)): wide enough that every landmark has a say, narrow enough not to be linear
_LANDMARK_STREAM = 1  # number of this draw under the caller's seed
_SMALLEST_NORM = np.float32(1e-12)  # a row at the mean has no direction; its cosines become 0


def draw_landmarks(candidates: np.ndarray, seed: int) -> np.ndarray:
    """Row numbers of the landmarks, ascending.   [n] int64 -> [M] int64, M at most a fifth of n"""
    count = max(1, min(LANDMARKS, len(candidates) // ROWS_PER_LANDMARK))
    return np.sort(np.random.default_rng([seed, _LANDMARK_STREAM]).choice(candidates, count, replace=False))


class LandmarkKernel:
    """Features ``f_j(x) = exp(gamma (cos(z(x), z(l_j)) - 1)) - shift_j`` for landmarks ``l_j``.

    Ridge on them is kernel ridge regression in the subspace that the landmarks span. ``shift`` is the mean over the
    landmarks, close to the mean over all rows: with it sums of products in float32 keep their digits.

    Parameters
    ----------
    bank : FeatureBank, [N, D]
    rows : numpy.ndarray of int64, [M]
        Landmarks.
    whitening : HalfWhitening

    References
    ----------
    Williams, Seeger: Using the Nystroem Method to Speed Up Kernel Machines. NIPS 2000.
    """

    def __init__(self, bank: FeatureBank, rows: np.ndarray, whitening: HalfWhitening) -> None:
        self._whitening = whitening
        unit = whitening.centered(as_working(bank.rows(rows))) @ whitening.matrix  # [M, D]
        unit /= _norms(unit)[:, None]
        self._unit = unit
        # z . l = (A (x - mean)) . l = (x - mean) . (A l): one product where the row's norm is known already
        self._projection = whitening.matrix @ unit.T  # [D, M]
        self._shift = np.zeros(len(rows), dtype=np.float32)
        self._shift = self._finish(unit @ unit.T, np.ones(len(rows), dtype=np.float32)).mean(axis=0, dtype=np.float64)
        self._shift = self._shift.astype(np.float32)

    def __len__(self) -> int:
        return len(self._unit)

    def first(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features of rows and the norms of ``z``, for the next time.   [b, D] -> [b, M], [b] float32"""
        white = self._whitening.centered(rows) @ self._whitening.matrix  # [b, D]
        norms = _norms(white)
        return self._finish(white @ self._unit.T, norms), norms

    def again(self, rows: np.ndarray, norms: np.ndarray) -> np.ndarray:
        """Features of rows whose norms are known, for half the work.   [b, D], [b] -> [b, M] float32"""
        return self._finish(self._whitening.centered(rows) @ self._projection, norms)

    def _finish(self, products: np.ndarray, norms: np.ndarray) -> np.ndarray:
        products *= (np.float32(GAMMA) / norms)[:, None]
        products -= np.float32(GAMMA)
        np.exp(products, out=products)
        products -= self._shift
        return products


def _norms(rows: np.ndarray) -> np.ndarray:
    return np.maximum(np.sqrt(np.einsum("ij,ij->i", rows, rows)), _SMALLEST_NORM)
