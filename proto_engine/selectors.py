"""The selectors that the published rule is compared with: k-means++ centers, Euclidean density peaks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_NEIGHBOR_SHARE = 0.02  # d_c: so that 2 % of the pairs are neighbors (Rodriguez and Laio's rule of thumb)
_TILE_ELEMENTS = 2**22
_BINS = 4096


def pick_kmeans(unit: np.ndarray, p: int, may_pick: np.ndarray, *, seed: int) -> np.ndarray:
    """Rows nearest to the centers of k-means (k-means++ seeding, Lloyd) on unit features.

    Parameters
    ----------
    unit : numpy.ndarray of float64, [m, D]
    p : int
        Centers, and so rows, wanted.
    may_pick : numpy.ndarray of bool, [m]
        Rows that may be picked.
    seed : int

    Returns
    -------
    numpy.ndarray of int64, [min(p, number that may be picked, number of different rows)]
        Rows by the size of their cluster; a row that is nearest to two centers goes to the
        larger cluster and the other center takes its next nearest.
    """
    from sklearn.cluster import KMeans

    eligible = np.flatnonzero(may_pick)
    count = min(p, len(eligible))
    num_distinct = len(np.unique(unit, axis=0))
    clusters = KMeans(min(count, num_distinct), init="k-means++", n_init=1, random_state=seed).fit(unit)
    sizes = np.bincount(clusters.labels_, minlength=clusters.n_clusters)
    free = np.ones(len(eligible), dtype=bool)
    picked = []
    for center in clusters.cluster_centers_[np.argsort(-sizes, kind="stable")]:
        distance = np.where(free, ((unit[eligible] - center) ** 2).sum(axis=1), np.inf)
        nearest = int(np.argmin(distance))
        free[nearest] = False
        picked.append(eligible[nearest])
    return np.array(picked, dtype=np.int64)


def pick_euclidean(x: np.ndarray, p: int, may_pick: np.ndarray) -> np.ndarray:
    """Rows of the largest rho * delta, Euclidean distance (Rodriguez and Laio, Science 344, 2014).

    rho = number of rows within d_c, delta = distance to the nearest denser row (for a densest row the
    largest distance to any row); equal densities by row number. The distances are never stored as a
    whole: d_c is closed in on by histograms.

    Parameters
    ----------
    x : numpy.ndarray of float64, [m, D]
    p : int
    may_pick : numpy.ndarray of bool, [m]

    Returns
    -------
    numpy.ndarray of int64, [min(p, number that may be picked)]
    """
    m = len(x)
    if m == 1:
        return np.zeros(1, dtype=np.int64)
    x = np.ldexp(x, -int(np.frexp(np.abs(x).max())[1]))  # exact, and no square overflows or vanishes
    d_c = _pair_quantile(x, _NEIGHBOR_SHARE)
    rho = np.zeros(m, dtype=np.int64)
    for start, distance in _distances(x):  # [b, m]
        rho[start : start + len(distance)] = (distance < d_c).sum(axis=1) - (d_c > 0)  # less the row itself
    delta = np.empty(m)
    rank = np.empty(m, dtype=np.int64)
    rank[np.argsort(-rho, kind="stable")] = np.arange(m)
    for start, distance in _distances(x):
        denser = rank[None, :] < rank[start : start + len(distance), None]
        nearest = np.where(denser, distance, np.inf).min(axis=1)
        delta[start : start + len(distance)] = np.where(np.isinf(nearest), distance.max(axis=1), nearest)
    value = np.where(may_pick, rho * delta, -1.0)
    count = min(p, int(may_pick.sum()))
    return np.argsort(-value, kind="stable")[:count].astype(np.int64)


def _distances(x: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Euclidean distances of blocks of rows to all rows.   start, [b, m]"""
    squares = np.einsum("ij,ij->i", x, x)
    step = max(1, _TILE_ELEMENTS // len(x))
    for start in range(0, len(x), step):
        block = x[start : start + step]
        squared = squares[start : start + step, None] + squares[None, :] - 2.0 * (block @ x.T)
        own = np.arange(len(block))
        squared[own, start + own] = 0.0
        yield start, np.sqrt(np.maximum(squared, 0.0))


def _pair_quantile(x: np.ndarray, share: float) -> float:
    """The distance at the given share of all pairs i != j, in ascending order."""
    m = len(x)
    rank = int(share * (m * (m - 1)))  # each pair counted twice
    lo, hi = 0.0, max(float(distance.max()) for _, distance in _distances(x))
    below = 0
    for _ in range(3):  # 4096**3 bins: finer than the rounding of a distance
        counts = np.zeros(_BINS, dtype=np.int64)
        for start, distance in _distances(x):
            own = np.arange(len(distance))
            distance[own, start + own] = -1.0  # the diagonal is no pair
            counts += np.histogram(distance, bins=_BINS, range=(lo, hi))[0]
        chosen = int(np.searchsorted(below + np.cumsum(counts), rank, side="right"))
        chosen = min(chosen, _BINS - 1)
        below += int(counts[:chosen].sum())
        width = (hi - lo) / _BINS
        lo, hi = lo + chosen * width, lo + (chosen + 1) * width
        if not lo < hi:
            break
    return hi
