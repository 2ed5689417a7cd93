"""What is right, told in float64 by torch, chunk by chunk, on the device where the features are.

No help from the engine: its results are confirmed here before anything is compared with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from checks import ETA_MAX, NUM_PROTOTYPES, Selected, rank_of, require, rounding64, tolerance

# Rows of a class beyond which only some densities are counted (float64 takes minutes for a million rows).
ALL_ROWS = 2**17
SAMPLED_ROWS = 2**13
_CHUNK_BYTES = {"cpu": 2**26, "cuda": 2**30}


def as_tensor(x: Any) -> torch.Tensor:
    """An array or tensor as a tensor; torch warns about read-only memory, which is only read here."""
    if isinstance(x, torch.Tensor):
        return x
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(x)


def unit_rows(x: torch.Tensor) -> torch.Tensor:
    """Rows divided by their norm, in float64."""
    x = x.double()
    return x / torch.linalg.vector_norm(x, dim=1, keepdim=True)


def chunk_of(x: torch.Tensor, columns: int) -> int:
    """Rows of a float64 matrix with so many columns that are made at once."""
    return max(1, _CHUNK_BYTES[x.device.type] // (8 * columns))


class SelectionTruth:
    """A cutoff, densities and picks that float64 confirms, and what a float32 pipeline may make of them.

    Of a class of more than `ALL_ROWS` rows only the densities of `SAMPLED_ROWS` are counted, evenly spaced;
    the rank of the cutoff then follows from the sum of all densities that are claimed.

    Parameters
    ----------
    x : array or tensor, [m, D]
        The class.
    claim : Selected
        The cutoff to confirm, and densities where there are some; without, float64's are taken.

    Raises
    ------
    CheckFailed
        The cutoff does not have its rank among all m * m similarities, or a density is wrong.
    """

    def __init__(self, x: Any, claim: Selected) -> None:
        self.cutoff = claim.cutoff
        x = as_tensor(x)
        self._tolerance, self._near = tolerance(x.shape[1]), rounding64(x.shape[1])
        self._unit = unit_rows(x)  # [m, D]
        m = len(x)
        every = m <= ALL_ROWS
        require(every or claim.rho is not None, "a claim about so large a class needs densities")
        self._rows = np.arange(m) if every else np.linspace(0, m - 1, SAMPLED_ROWS).astype(np.int64)
        above, near, self._undecided = self._count(self._rows)
        below = m - above - near
        self.rho = above - below if claim.rho is None else np.asarray(claim.rho)
        rank = rank_of(m)
        if every:
            first, last = int(below.sum()), int((below + near).sum())
        else:  # half of the sum is the middle of the entries equal to the cutoff: few, as the sample tells
            room = int(np.ceil(near.mean() * m)) + m
            middle = (m * m - int(self.rho.sum())) // 2
            first, last = middle - room, middle + room
        require(first <= rank < last, f"cutoff {self.cutoff}: wanted rank {rank}, float64 gives {first} to {last - 1}")
        wrong = np.flatnonzero(np.abs(self.rho[self._rows] - (above - below)) > near)
        require(len(wrong) == 0, f"rho: {len(wrong)} of {len(below)} rows are not what float64 counts, {wrong[:5]}")
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
            apart = np.abs(found.rho - self.rho)[self._rows]
            wrong = np.flatnonzero(apart > 2 * self._undecided)
            require(len(wrong) == 0, f"{name}: densities of {len(wrong)} rows off by more than rounding")
        if found.picks is not None:
            require(len(found.picks) == len(self.picks), f"{name}: {len(found.picks)} picks, {len(self.picks)} wanted")
            for got, wanted in zip(found.picks, self.picks, strict=True):
                apart = abs(int(self.rho[got]) - int(self.rho[wanted]))
                room = 2 * int(self._count(np.array([got, wanted]))[2].sum())
                require(got == wanted or apart <= room, f"{name}: picked row {got}, wanted {wanted}")

    def _count(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each row: entries above the cutoff, entries that float64 cannot tell from it, and entries that
        float32 may see on either side.   [n] int64 each"""
        counts: list[tuple[torch.Tensor, ...]] = []
        for _, s in similarities(self._unit, rows):
            s -= self.cutoff
            above = (s > self._near).sum(dim=1)
            s.abs_()
            counts.append((above, (s <= self._near).sum(dim=1), (s <= 2.0 * self._tolerance).sum(dim=1)))
        above, near, undecided = (torch.cat(part).cpu().numpy() for part in zip(*counts, strict=True))
        return above, near, undecided

    def _pick(self) -> np.ndarray:
        """Down the density order, rows with eta below eta_max; the densest row in any case."""
        rho = torch.from_numpy(self.rho).to(self._unit.device)
        picks: list[int] = []
        for position, i in enumerate(np.argsort(-self.rho, kind="stable")):
            s = self._unit @ self._unit[i]  # [m]
            denser = rho > rho[i]
            eta = torch.where(denser, s, -2.0).max() if bool(denser.any()) else s.min()
            if position == 0 or float(eta) < ETA_MAX:
                picks.append(int(i))
            if len(picks) == NUM_PROTOTYPES:
                break
        return np.array(picks)


def similarities(unit: torch.Tensor, rows: np.ndarray) -> Iterator[tuple[slice, torch.Tensor]]:
    """Similarities of the listed rows with all, a chunk of them at a time.   [b, m] float64"""
    step = chunk_of(unit, len(unit))
    index = torch.from_numpy(rows).to(unit.device)
    for start in range(0, len(rows), step):
        part = slice(start, min(start + step, len(rows)))
        yield part, unit[index[part]] @ unit.T


class EtaTruth:
    """eta of some rows in float64, given densities.   x [m, D], rho [m]"""

    def __init__(self, x: Any, rho: np.ndarray) -> None:
        x = as_tensor(x)
        self._dim = x.shape[1]
        self._rows = np.linspace(0, len(x) - 1, min(len(x), SAMPLED_ROWS)).astype(np.int64)
        unit, density = unit_rows(x), torch.from_numpy(rho).to(x.device)
        found = []
        for part, s in similarities(unit, self._rows):
            of = density[torch.from_numpy(self._rows[part]).to(x.device)]
            eta = torch.where(density > of[:, None], s, -torch.inf).amax(dim=1)
            found.append(torch.where(of == density.max(), s.amin(dim=1), eta))
        self.eta = torch.cat(found).cpu().numpy()

    def check(self, eta: np.ndarray, *, exact: bool, name: str) -> None:
        """Raise `CheckFailed` unless the checked rows are within the rounding of float64, or of float32."""
        room = rounding64(self._dim) if exact else tolerance(self._dim)
        off = float(np.abs(eta[self._rows] - self.eta).max())
        require(off <= room, f"{name}: an eta is off by {off:.3g}, tolerance {room:.3g}")


class ScoreTruth:
    """The best two scores of every row, in float64.   features [N, D], folded [C, D], C >= 2"""

    def __init__(self, features: Any, folded: np.ndarray) -> None:
        features = as_tensor(features)
        self._dim = features.shape[1]
        vectors = torch.from_numpy(folded).to(features.device)
        step = chunk_of(features, self._dim + len(folded))
        labels, tops = [], []
        for start in range(0, len(features), step):
            top = (unit_rows(features[start : start + step]) @ vectors.T).topk(2, dim=1)
            labels.append(top.indices[:, 0])
            tops.append(top.values)
        self.label = torch.cat(labels).cpu().numpy()
        self.best, self.second = torch.cat(tops).cpu().numpy().T

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
