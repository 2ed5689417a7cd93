"""Small problems with known answers, for a backend to be held against where it runs.

Two sets of rows in classes of different sizes. Whole numbers in float16: five tiles in the largest class, so that
a sample of them brackets its cutoff; several chunks of a row; equal rows. Their sums of products are whole too
and the same in every order of additions, so that a plain matrix product gives the bits of the reference, in
milliseconds. And float32 rows of fractions, longer than a block of the pinned sums, and few enough for the
reference itself: their sums do depend on the order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import Backend, Picks, eta_of
from .reference import ReferenceBackend, ReferencePool, to_double

QUANTILE, ETA_MAX, PICKS = 0.6, 0.95, 4


@dataclass(frozen=True)
class ClassAnswer:
    """What the reference says about one class."""

    cutoff: float
    rho: np.ndarray  # [m] int64
    eta: np.ndarray  # [m] float64
    picks: Picks
    counts: np.ndarray  # [m, 3] int32: above the cutoff, by thirds of the class


@dataclass(frozen=True)
class SmallCase:
    """Rows of several classes, one class after another, and everything that is computed of them."""

    name: str
    rows: np.ndarray  # [M, D]
    sizes: tuple[int, ...]
    squares: np.ndarray  # [M] float64
    folded: np.ndarray  # [C, D] float64, norms of 1 at most
    classes: tuple[ClassAnswer, ...]
    top2: tuple[np.ndarray, np.ndarray, np.ndarray]  # label, best, second; [M] each

    def parts(self) -> list[slice]:
        """The rows of each class."""
        ends = np.cumsum(self.sizes)
        return [slice(int(end) - m, int(end)) for end, m in zip(ends, self.sizes, strict=True)]


@functools.cache
def small_cases() -> tuple[SmallCase, ...]:
    """Both cases; computed once."""
    rng = np.random.default_rng(20191027)
    whole = rng.integers(-6, 8, (530 + 200 + 3, 328)).astype(np.float16)
    fractions = (rng.standard_normal((150 + 60, 291)) + 0.2).astype(np.float32)
    return (
        _solved("float16", whole, (530, 200, 3), WholePool),
        _solved("float32", fractions, (150, 60), ReferencePool),
    )


class WholePool(ReferencePool):
    """The reference for whole numbers: no sum is rounded, so that their order does not matter."""

    def __init__(self, rows: np.ndarray, squares: np.ndarray) -> None:
        x = to_double(rows)
        self.m, self.dim = x.shape
        self.s = (x @ x.T) / np.sqrt(squares[:, None] * squares[None, :])


def _solved(
    name: str, rows: np.ndarray, sizes: tuple[int, ...], pool: Callable[[np.ndarray, np.ndarray], ReferencePool]
) -> SmallCase:
    reference = ReferenceBackend()
    rng = np.random.default_rng(0)
    ends = np.cumsum(sizes)
    parts = [slice(end - m, end) for end, m in zip(ends, sizes, strict=True)]
    for part in parts:
        _crowd(rows[part], rng)
    squares = reference.squared_norms(rows)
    folded = rng.standard_normal((5, rows.shape[1]))
    folded /= np.linalg.norm(folded, axis=1, keepdims=True)
    folded[3] = folded[1]  # a tie
    folded[4] = folded[0] * (1 - 1e-12)  # nearly one
    return SmallCase(
        name,
        rows,
        sizes,
        squares,
        folded,
        tuple(_answer(pool(rows[part], squares[part])) for part in parts),
        reference.top2(rows, folded),
    )


def _crowd(rows: np.ndarray, rng: np.random.Generator) -> None:
    """Puts a row near the mean of a class, equal ones and nearly equal ones: ties, and dense rows too alike."""
    dense = np.rint(4 * rows.mean(axis=0, dtype=np.float64))
    crowd = rng.choice(len(rows), len(rows) // 16, replace=False)
    rows[crowd] = dense
    rows[crowd[::2], rng.integers(0, rows.shape[1], len(crowd[::2]))] += 1


def _answer(pool: ReferencePool) -> ClassAnswer:
    cutoff, rho = pool.density(QUANTILE)
    denser = rho[None, :] > rho[:, None]  # [m, m]
    eta = np.where(denser.any(axis=1), np.where(denser, pool.s, -np.inf).max(axis=1), pool.s.min(axis=1))
    order = np.argsort(-rho, kind="stable")
    taken: list[int] = []
    rejected = 0
    for i in order:
        if len(taken) < PICKS:
            if eta[i] < ETA_MAX or not (taken or rejected):
                taken.append(int(i))
            else:
                rejected += 1
    chosen = np.array(taken, dtype=np.int64)
    picks = Picks(chosen, rho[chosen], eta[chosen], cutoff, rejected / pool.m)
    return ClassAnswer(cutoff, rho, eta, picks, pool.class_counts_at(cutoff, _thirds(pool.m)))


def _thirds(m: int) -> np.ndarray:
    """Offsets of three classes, whose borders lie inside of tiles.   [4]"""
    return np.array([0, m // 3, 2 * m // 3, m])


# ---- comparisons: None, or what differed -------------------------------------------------------------------------


def pools_differ(backend: Backend, native: Callable[[np.ndarray], Any]) -> str | None:
    """Squares, cutoff, densities and eta of every class; ``native`` brings rows to where they are computed."""
    for case in small_cases():
        for c, (part, right) in enumerate(zip(case.parts(), case.classes, strict=True)):
            rows = native(case.rows[part])
            squares = backend.squared_norms(rows)
            pool = backend.pool(rows, squares)
            cutoff, rho = pool.density(QUANTILE)
            found = {"squares": squares, "cutoff": cutoff, "density": rho}
            found |= {
                "density at the cutoff": pool.density_at(right.cutoff),
                "eta": eta_of(pool, right.rho, np.arange(pool.m)),
            }
            found |= {"counts by class": pool.class_counts_at(right.cutoff, _thirds(pool.m)).reshape(-1)}
            wanted = {"squares": case.squares[part], "cutoff": right.cutoff, "density": right.rho}
            wanted |= {"density at the cutoff": right.rho, "eta": right.eta}
            wanted |= {"counts by class": right.counts.reshape(-1)}
            if difference := _difference(f"{case.name} rows, class {c}", found, wanted):
                return difference
    return None


def picks_differ(case: SmallCase, picks: list[Picks | None]) -> str | None:
    """The picks of all classes of a case; None for a class is as wrong as another pick."""
    for c, (found, right) in enumerate(zip(picks, case.classes, strict=True)):
        names = ("rows", "rho", "eta", "cutoff", "filtered")
        where = f"picks of {case.name} rows, class {c}"
        if found is None:
            return f"{where}: not found"
        wanted = {name: getattr(right.picks, name) for name in names}
        if difference := _difference(where, {name: getattr(found, name) for name in names}, wanted):
            return difference
    return None


def scores_differ(backend: Backend, native: Callable[[np.ndarray], Any]) -> str | None:
    """Labels, best and second best scores of all rows."""
    for case in small_cases():
        names = ("label", "best score", "second best score")
        found = dict(zip(names, backend.top2(native(case.rows), case.folded), strict=True))
        wanted = dict(zip(names, case.top2, strict=True))
        if difference := _difference(f"{case.name} rows", found, wanted):
            return difference
    return None


def _difference(where: str, found: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    for name, right in wanted.items():
        right, got = np.atleast_1d(right), np.atleast_1d(found[name])
        if got.shape != right.shape:
            return f"{where}: {name} of shape {got.shape}, wanted {right.shape}"
        wrong = np.flatnonzero(got != right)
        if len(wrong):
            i = int(wrong[0])
            at = "" if right.size == 1 else f" {i} ({len(wrong)} of {right.size} differ)"
            return f"{where}: {name}{at} is {got[i]!r}, wanted {right[i]!r}"
    return None
