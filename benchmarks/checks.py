"""Is a result right? Told in float64 NumPy, chunk by chunk, without help from the engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from harness import CheckFailed

from proto_engine.backends import error_bound

QUANTILE = 0.6
ETA_MAX = 0.95
NUM_PROTOTYPES = 8
_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Selected:
    """Outcome of a selection in one class."""

    cutoff: float
    rho: np.ndarray | None  # [m] int64; None where the variant keeps it to itself
    picks: np.ndarray | None  # [p] rows; None where the variant does not pick


def tolerance(dim: int) -> float:
    """How far a similarity of a float32 pipeline can be from the float64 one.

    One `error_bound` for the product of unit rows, one for norms that were summed in float32 as well.
    """
    return 2.0 * error_bound(dim)


def require(condition: bool, message: str) -> None:
    """Raise `CheckFailed` unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows divided by their norm, in float64."""
    x = x.astype(np.float64)
    return x / np.sqrt(np.einsum("ij,ij->i", x, x))[:, None]


def rounding64(dim: int) -> float:
    """How far two float64 sums for one similarity can be apart: each is within (D + 8) u of the truth."""
    return 2.0 * (dim + 8) * 2.0**-53


class SelectionTruth:
    """A cutoff and densities that float64 confirms, and what a float32 pipeline may make of them.

    Parameters
    ----------
    x : array of float32, [m, D]
        The class.
    claim : Selected
        Cutoff and densities to confirm.

    Raises
    ------
    CheckFailed
        The cutoff does not have its rank among all m * m similarities, or a density is wrong.
    """

    def __init__(self, x: np.ndarray, claim: Selected) -> None:
        require(claim.rho is not None, "a claim needs densities")
        self.cutoff, self.rho = claim.cutoff, np.asarray(claim.rho)
        self._unit = unit_rows(x)
        self._tolerance = tolerance(x.shape[1])
        m, near64, near32 = len(x), rounding64(x.shape[1]), 2.0 * self._tolerance

        above, near = np.empty(m, dtype=np.int64), np.empty(m, dtype=np.int64)
        self._undecided = np.empty(m, dtype=np.int64)  # [m] pairs that float32 may see on either side
        for rows, s in self._similarities():
            s -= self.cutoff
            above[rows] = np.count_nonzero(s > near64, axis=1)
            np.abs(s, out=s)
            near[rows] = np.count_nonzero(s <= near64, axis=1)
            self._undecided[rows] = np.count_nonzero(s <= near32, axis=1)
        below = m - above - near
        rank = int(np.floor(QUANTILE * (m * m - 1)))
        first, last = int(below.sum()), int((below + near).sum())
        require(first <= rank < last, f"cutoff {self.cutoff}: wanted rank {rank}, float64 gives {first} to {last - 1}")
        wrong = np.flatnonzero(np.abs(self.rho - (above - below)) > near)
        require(len(wrong) == 0, f"rho: {len(wrong)} of {m} rows are not what float64 counts, first {wrong[:5]}")
        self.picks = self._pick()

    def same(self, found: Selected, name: str) -> None:
        """Raise `CheckFailed` unless the result is this one, bit for bit."""
        require(found.cutoff == self.cutoff, f"{name}: cutoff {found.cutoff}, wanted {self.cutoff}")
        require(found.rho is None or np.array_equal(found.rho, self.rho), f"{name}: other densities")
        wanted = self.picks.tolist()
        require(found.picks is None or found.picks.tolist() == wanted, f"{name}: picks {found.picks}, wanted {wanted}")

    def close(self, found: Selected, name: str) -> None:
        """Raise `CheckFailed` where the result differs by more than float32 rounding can explain.

        The cutoff is off by no more than a similarity (`tolerance`), so a density is off by
        at most 2 for every pair within two tolerances of the cutoff; other rows may be picked only
        where such a difference swaps their order.
        """
        off = abs(found.cutoff - self.cutoff)
        require(off <= self._tolerance, f"{name}: cutoff off by {off:.3g}, tolerance {self._tolerance:.3g}")
        if found.rho is not None:
            wrong = np.flatnonzero(np.abs(found.rho - self.rho) > 2 * self._undecided)
            require(len(wrong) == 0, f"{name}: densities of {len(wrong)} rows off by more than rounding")
        if found.picks is not None:
            require(len(found.picks) == len(self.picks), f"{name}: {len(found.picks)} picks, {len(self.picks)} wanted")
            for got, wanted in zip(found.picks, self.picks, strict=True):
                apart = abs(int(self.rho[got]) - int(self.rho[wanted]))
                room = 2 * int(self._undecided[got] + self._undecided[wanted])
                require(got == wanted or apart <= room, f"{name}: picked row {got}, wanted {wanted}")

    def _pick(self) -> np.ndarray:
        """Down the density order, rows with eta below eta_max; the densest row in any case."""
        order = np.argsort(-self.rho, kind="stable")
        picks: list[int] = []
        for position, i in enumerate(order):
            denser = np.flatnonzero(self.rho > self.rho[i])
            s = self._unit[denser if len(denser) else slice(None)] @ self._unit[i]
            eta = s.max() if len(denser) else s.min()
            if position == 0 or eta < ETA_MAX:
                picks.append(int(i))
            if len(picks) == NUM_PROTOTYPES:
                break
        return np.array(picks)

    def _similarities(self) -> Iterator[tuple[slice, np.ndarray]]:
        m = len(self._unit)
        step = max(1, _CHUNK_BYTES // (8 * m))
        for start in range(0, m, step):
            rows = slice(start, min(start + step, m))
            yield rows, self._unit[rows] @ self._unit.T  # [b, m]


class ScoreTruth:
    """The best two scores of every row, in float64.   features [N, D], folded [C, D], C >= 2"""

    def __init__(self, features: np.ndarray, folded: np.ndarray) -> None:
        n, dim = features.shape
        self._dim = dim
        self.label = np.empty(n, dtype=np.int64)
        self.best, self.second = np.empty(n), np.empty(n)
        step = max(1, _CHUNK_BYTES // (8 * dim))
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            sigma = unit_rows(features[rows]) @ folded.T  # [b, C]
            self.label[rows] = sigma.argmax(axis=1)
            top = np.partition(sigma, -2, axis=1)
            self.best[rows], self.second[rows] = top[:, -1], top[:, -2]

    def check(self, labels: np.ndarray, score: np.ndarray, margin: np.ndarray, *, exact: bool, name: str) -> None:
        """Raise `CheckFailed` unless labels, scores and margins are right.

        Exact results may differ by the rounding of float64, others by `tolerance`; a label
        may differ only where the best two scores are closer than that.
        """
        room = rounding64(self._dim) if exact else tolerance(self._dim)
        off = np.abs(score - self.best).max()
        require(off <= room, f"{name}: a score is off by {off:.3g}, tolerance {room:.3g}")
        off = np.abs(margin - (self.best - self.second)).max()
        require(off <= 2 * room, f"{name}: a margin is off by {off:.3g}, tolerance {2 * room:.3g}")
        wrong = np.flatnonzero((labels != self.label) & (self.best - self.second > 2 * room))
        require(len(wrong) == 0, f"{name}: {len(wrong)} labels are wrong, first at rows {wrong[:5]}")
