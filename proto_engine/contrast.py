"""Density contrast: rows that are denser among the rows of their own class than among those of any other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from .backends.base import Picks, Pool


def pick_density_contrast(
    pool: Pool, offsets: np.ndarray, wanted: Sequence[int], quantile: float, may_pick: np.ndarray
) -> list[Picks | None]:
    """The densest consistent rows of every class; None for a class that has none which may be picked.

    Parameters
    ----------
    pool : Pool
        The rows of all classes, n in all, class after class.
    offsets : numpy.ndarray of int64, [C + 1]
        Class c is rows offsets[c] to offsets[c + 1]; none is empty.
    wanted : sequence of int, [C]
        Prototypes of each class.
    quantile : float
        The cutoff is the similarity at index ``floor(quantile (n n - 1))`` of all pairs.
    may_pick : numpy.ndarray of bool, [n]
        Rows that may become prototypes.

    Returns
    -------
    list of Picks or None, [C]
        ``rho`` counts the rows of the own class above the cutoff; there is no ``eta``. ``filtered`` is the share of
        the rows that may be picked and are not consistent.
    """
    cutoff, counts = pool.class_counts(quantile, offsets)  # counts [n, C]
    sizes = np.diff(offsets)
    found: list[Picks | None] = []
    for c, (start, stop) in enumerate(itertools.pairwise(offsets)):
        of_class = counts[start:stop].astype(np.int64)  # [m, C]
        sizes_seen = sizes.copy()
        sizes_seen[c] = max(1, stop - start - 1)  # of its own class a row sees the others
        consistent = is_consistent(of_class, sizes_seen, c)
        rows = np.flatnonzero(consistent & may_pick[start:stop])
        if len(rows) == 0:
            found.append(None)
            continue
        chosen = rows[np.argsort(-of_class[rows, c], kind="stable")[: wanted[c]]]
        shares = of_class[chosen] / sizes_seen  # [p, C]
        others = np.delete(shares, c, axis=1).max(axis=1, initial=0.0)
        filtered = 1.0 - len(rows) / int(may_pick[start:stop].sum())
        contrast = len(rows), shares[:, c], shares[:, c] - others
        found.append(Picks(chosen, of_class[chosen, c], None, cutoff, filtered, contrast))
    return found


def is_consistent(counts: np.ndarray, sizes: np.ndarray, own: int) -> np.ndarray:
    """Whether no class holds a greater share of neighbors than the class ``own``, compared without rounding.

    Parameters
    ----------
    counts : numpy.ndarray of int64, [m, C]
        Rows of each class above the cutoff.
    sizes : numpy.ndarray of int64, [C]
        Rows of each class that might have been; below 2**31, so that no product overflows.
    own : int

    Returns
    -------
    numpy.ndarray of bool, [m]
    """
    result = np.ones(len(counts), dtype=bool)
    for c in range(len(sizes)):  # a class at a time: no second array of the size of the counts
        result &= counts[:, own] * sizes[c] >= counts[:, c] * sizes[own]
    return result
