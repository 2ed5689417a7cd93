"""Density peaks: cutoff, density and eta of the rows of one class, and the published pick among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .backends.base import Picks, Pool, density_order, eta_of
from .ops import check_fraction, make_pool


@dataclass(frozen=True, eq=False)
class DensityPeaks:
    """Cutoff, density and eta of one set of rows.

    Attributes
    ----------
    cutoff : float
        S_c.
    rho : array of int64, [m]
    eta : array of float64, [m], or None
        None when it was not asked for.
    """

    cutoff: float
    rho: Any
    eta: Any


def density_peaks(
    features: Any, *, cutoff_quantile: float = 0.6, backend: str = "auto", full_eta: bool = True
) -> DensityPeaks:
    """Cutoff, density and eta of the rows of one matrix (of one class).

    Parameters
    ----------
    features : array, [m, D]
        float16, bfloat16, float32 or float64; numpy, torch or ``__dlpack__``.
    cutoff_quantile : float
        q of `cutoff`.
    backend : str
        "auto" or a name from `backends`.
    full_eta : bool
        Compute eta of all rows (costs about one more pass); False leaves it out.

    Returns
    -------
    DensityPeaks

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape; rows that are zero or not finite; a quantile outside 0 to 1.
    BackendUnavailable
        The named backend cannot run here.
    """
    quantile = check_fraction(cutoff_quantile, "cutoff_quantile")
    resolved, pool = make_pool(features, backend)
    cutoff, rho = pool.density(quantile)
    eta = eta_of(pool, rho, np.arange(pool.m)) if full_eta else None
    give = resolved.kind.give
    return DensityPeaks(cutoff, give(rho), None if eta is None else give(eta))


def pick_density_peaks(pool: Pool, p: int, quantile: float, eta_max: float, may_pick: np.ndarray) -> Picks:
    """The published rule for one class: down the density order, rows with eta < eta_max, until p are found.

    The densest row that may be picked is always taken. eta is computed only as far down as needed.
    """
    cutoff, rho = pool.density(quantile)
    order = density_order(rho)
    eligible = order[may_pick[order]]  # [e]
    taken: list[int] = []
    etas: list[float] = []
    rejected = start = 0
    size = 2 * p
    while start < len(eligible) and len(taken) < p:
        rows = eligible[start : start + size]
        for i, eta in zip(rows, eta_of(pool, rho, rows, order), strict=True):
            if eta < eta_max or not (taken or rejected):
                taken.append(int(i))
                etas.append(float(eta))
                if len(taken) == p:
                    break
            else:
                rejected += 1
        start += size
        size *= 2
    picked = np.array(taken, dtype=np.int64)
    return Picks(picked, rho[picked], np.array(etas), cutoff, rejected / pool.m)
