"""Half-whitening: directions of large variance are weakened, not leveled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from ..moments import Moments

POWER = 0.25  # 1/4 ranks errors better than 0 (raw features) and than 1/2 (full whitening raises noise)
FLOOR = 0.01  # of the mean variance: directions without variance stay finite, in fewer rows than dimensions too


@dataclass(frozen=True, eq=False)
class HalfWhitening:
    """``z = A (x - mean)`` with ``A = E diag((v + floor)^-power) E^T`` from the covariance ``E diag(v) E^T``.

    Attributes
    ----------
    mean : numpy.ndarray of float64, [D]
    scale : float
        A power of two that brings centered rows near 1, so that float32 holds their squares.
    matrix : numpy.ndarray of float32, [D, D]
        ``A`` for scaled rows; symmetric.
    """

    mean: np.ndarray
    scale: float
    matrix: np.ndarray

    def centered(self, rows: np.ndarray) -> np.ndarray:
        """Rows less the mean, scaled: what ``matrix`` is for.   [b, D] -> [b, D] float32"""
        shifted = rows - self.mean.astype(rows.dtype)
        shifted *= self.scale
        return shifted.astype(np.float32, copy=False)


def fit_half_whitening(moments: Moments, dtype: np.dtype) -> HalfWhitening | None:
    """The half-whitening of a bank, or None where its rows are all the same as far as ``dtype`` can tell.

    Parameters
    ----------
    moments : Moments
        Mean and covariance, [D] and [D, D].
    dtype : numpy.dtype
        float32 or float64, in which the rows are worked on.
    """
    variance = np.diag(moments.covariance)
    rounding = 4.0 * float(np.finfo(dtype).eps) * np.abs(moments.mean)  # [D]
    if not np.isfinite(moments.covariance).all() or not (variance > rounding**2).any():
        return None
    scale = 2.0 ** -np.floor(0.5 * np.log2(variance.mean()))
    values, vectors = eigh(moments.covariance * scale**2, overwrite_a=True, check_finite=False)
    values = np.maximum(values, 0.0)  # rounding can leave them just below
    weights = (values + FLOOR * values.mean()) ** -POWER
    return HalfWhitening(moments.mean, float(scale), ((vectors * weights) @ vectors.T).astype(np.float32))
