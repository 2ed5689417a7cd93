"""The picks of all classes, collected into the arrays of `Prototypes`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .array_kinds import as_double
from .arrays import to_numpy
from .backends.base import Picks, condition_numpy
from .bank import FeatureBank
from .ops import Resolved
from .prototypes import Prototypes
from .transform import BankTransform

_WARN_FILTERED = 0.5
_BLOCK_ELEMENTS = 2**22  # of float64 unit vectors at a time


class PickedClasses:
    """Collects the classes into the arrays of `Prototypes`."""

    def __init__(self, num_classes: int, p: int, dim: int) -> None:
        self.indices = np.full((num_classes, p), -1, dtype=np.int64)
        self.vectors = np.zeros((num_classes, p, dim), dtype=np.float32)
        self.folded = np.zeros((num_classes, dim))
        self.counts = np.zeros(num_classes, dtype=np.int64)
        self.cutoff = np.full(num_classes, np.nan)
        self.rho = np.zeros((num_classes, p), dtype=np.int64)
        self.eta = np.full((num_classes, p), np.nan)
        self.filtered = np.zeros(num_classes)
        self.consistent = np.zeros(num_classes, dtype=np.int64)
        self.share = np.full((num_classes, p), np.nan)
        self.contrast = np.full((num_classes, p), np.nan)

    def put(self, c: int, pool_rows: np.ndarray, picks: Picks) -> None:
        n = len(picks.rows)
        self.indices[c, :n] = pool_rows[picks.rows]
        self.counts[c] = n
        self.cutoff[c] = picks.cutoff
        if picks.rho is not None:
            self.rho[c, :n] = picks.rho
        if picks.eta is not None:
            self.eta[c, :n] = picks.eta
        if picks.contrast is not None:
            self.consistent[c], self.share[c, :n], self.contrast[c, :n] = picks.contrast
        self.filtered[c] = picks.filtered

    def fill_vectors(self, bank: FeatureBank) -> None:
        """Unit vectors of all picks, and their means; the rows are fetched from the bank at once."""
        chosen = self.indices >= 0  # [C, p]
        if not chosen.any():
            return
        rows, used = bank.rows(self.indices[chosen]), 0
        p, dim = self.vectors.shape[1:]
        step = max(1, _BLOCK_ELEMENTS // (p * dim))  # classes
        for first in range(0, len(chosen), step):
            part = slice(first, first + step)
            count = int(chosen[part].sum())
            if count == 0:
                continue
            unit = np.zeros((*chosen[part].shape, dim))  # [c, p, D]
            unit[chosen[part]] = unit_double(rows[used : used + count])
            self.vectors[part] = unit
            for one in range(p):  # one fixed order of additions; the zeros of missing picks change nothing
                self.folded[part] += unit[:, one]
            used += count
        self.folded /= np.maximum(self.counts, 1)[:, None]

    def warn_filtered(self) -> None:
        much = np.flatnonzero((self.filtered > _WARN_FILTERED) & (self.consistent == 0))  # the others know no eta
        if len(much):
            shares = ", ".join(f"class {c}: {self.filtered[c]:.0%}" for c in much[:10])
            warnings.warn(
                f"eta_max turned down more than half of {len(much)} classes ({shares}); the features of a class "
                "may have collapsed, or eta_max is too low",
                stacklevel=3,
            )

    def warn_without_contrast(self) -> None:
        without = np.flatnonzero((self.consistent == 0) & (self.counts > 0))
        if len(without):
            warnings.warn(
                f"density-contrast: classes {without.tolist()} have no row whose share of neighbors is greatest in its "
                "own class; the published rule picked their prototypes",
                stacklevel=3,
            )

    def prototypes(self, resolved: Resolved, transform: BankTransform | None) -> Prototypes:
        give = resolved.kind.give
        return Prototypes(**{name: give(array) for name, array in vars(self).items()}, transform=transform)


def unit_double(rows: Any) -> np.ndarray:
    """Unit rows in float64, the same on every backend.   [n, D]"""
    x = condition_numpy(to_numpy(as_double(rows)))
    return x / np.sqrt(np.einsum("ij,ij->i", x, x))[:, None]
