"""Prototypes of each class: dense rows that do not repeat one another."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from .array_kinds import as_double
from .arrays import MOST_CLASSES, as_bank, as_labels, to_numpy
from .backends.base import Picks, condition_numpy, usable
from .bank import FeatureBank
from .contrast import pick_density_contrast
from .core_shares import core_shares
from .ops import (
    ON_BAD_ROWS,
    Resolved,
    bad_rows_message,
    check_choice,
    check_count,
    check_fraction,
    check_number,
    resolve,
)
from .peaks import pick_density_peaks
from .prototypes import Prototypes
from .sampling import class_pools, class_seed
from .selectors import pick_euclidean, pick_kmeans
from .transform import KINDS, BankTransform, in_space

METHODS = ("density-peaks", "density-contrast", "kmeans++", "density-peaks-euclidean")
_DENSITY_METHODS = METHODS[:2]
_MOST_PROTOTYPES = 2**24  # of each class: there is room for so many, whether or not they are found
_WARN_FILTERED = 0.5
_BLOCK_ELEMENTS = 2**22  # of float64 unit vectors at a time


def select_prototypes(
    features: Any,
    labels: Any,
    *,
    num_classes: int | None = None,
    prototypes_per_class: int | float | str = 8,
    samples_per_class: int | None = 1280,
    cutoff_quantile: float = 0.6,
    eta_max: float = 0.95,
    contrast_quantile: float = 0.9,
    method: str = "density-peaks",
    backend: str = "auto",
    seed: int = 0,
    candidates: Any = None,
    on_bad_rows: str = "raise",
    transform: str | BankTransform | None = None,
) -> Prototypes:
    """Pick the prototypes of each class.

    Parameters
    ----------
    features : array or FeatureBank, [N, D]
        Deep features; float16, bfloat16, float32 or float64.
    labels : array of int, [N]
        Given labels, 0 to C - 1.
    num_classes : int, optional
        C; by default one more than the largest label.
    prototypes_per_class : int, float or "auto"
        p. A float above 0 and up to 1 is a share of the rows drawn from each class, rounded up (1.0: all of them);
        for "density-peaks" and "density-contrast". Classes then have different numbers of prototypes. "auto" takes a
        share for each class, from all of a clean one to half of a noisy one, by what `label_evidence` estimates of
        all N rows and labels (three more walks over the bank). A class it cannot judge gets a half.
    samples_per_class : int or None
        m rows drawn from each class; None uses whole classes.
    cutoff_quantile : float
        q: the share of similarities below the cutoff.
    eta_max : float
        A row is a candidate when its similarity to every denser row is below this.
    contrast_quantile : float
        For "density-contrast": the share of similarities, those between classes included, below the one cutoff of
        all classes.
    method : {"density-peaks", "density-contrast", "kmeans++", "density-peaks-euclidean"}
        "density-peaks" is the published rule. "density-contrast" takes the densest rows among those that have
        no greater share of neighbors in another class than in their own; a class without such rows follows the
        published rule, with a warning. "kmeans++" takes the samples nearest to k-means centers of
        unit features. "density-peaks-euclidean" takes the largest rho * delta of Rodriguez and Laio.
    backend : str
        "auto" or a name from `backends`. Every backend gives the same prototypes.
    seed : int
        Seed of the draw.
    candidates : array of bool [N] or of int, optional
        Rows that may become prototypes, such as samples with verified labels. They enter their class's
        pool first, the others top it up to m. A class without any uses all its rows, with a warning.
    on_bad_rows : {"raise", "keep-label"}
        What to do about rows that are zero or not finite: refuse, or leave them out of the pools.
    transform : {"center", "whiten"} or BankTransform, optional
        Look at the rows after a transform: one of that kind, fitted to all of them, or one that is given. It is kept
        with the prototypes, and whatever is scored against them goes through it by itself. None, as published:
        the rows as they are.

    Returns
    -------
    Prototypes
        Arrays in the caller's kind. A class without samples has none.

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong dtype, shape or range; bad rows with ``on_bad_rows="raise"``.
    BackendUnavailable
        The named backend cannot run here.

    Warns
    -----
    UserWarning
        Where the eta filter turned down more than half of a class, for classes without candidates, and for classes
        whose rows all have a greater share of neighbors in another class.

    References
    ----------
    Han, Luo, Wang: Deep Self-Learning From Noisy Labels. ICCV 2019, section 3.3.
    Rodriguez, Laio: Clustering by fast search and find of density peaks. Science 344, 2014.
    """
    stored = as_bank(features)
    num_samples, dim = stored.shape
    if num_classes is not None:
        num_classes = check_count(num_classes, "num_classes", most=MOST_CLASSES)
    given = as_labels(labels, num_samples, num_classes)
    num_classes = int(given.max()) + 1 if num_classes is None else num_classes
    check_choice(method, "method", METHODS)
    p = _check_prototypes(prototypes_per_class, method)
    m = None if samples_per_class is None else check_count(samples_per_class, "samples_per_class")
    quantile = check_fraction(cutoff_quantile, "cutoff_quantile")
    eta_max = check_number(eta_max, "eta_max")
    contrast_quantile = check_fraction(contrast_quantile, "contrast_quantile")
    check_choice(on_bad_rows, "on_bad_rows", ON_BAD_ROWS)
    seed = check_count(seed, "seed", least=0)
    resolved = resolve(stored, backend)
    bank = stored if transform is None else _transformed(stored, transform)

    squares = squares_of(bank, resolved)
    good = usable(squares)
    if on_bad_rows == "raise" and not good.all():
        raise ValueError(bad_rows_message(np.flatnonzero(~good), num_samples))
    allowed = _candidate_mask(candidates, given, num_classes, good)
    pools = class_pools(given, num_classes, m, seed, good, allowed)

    present = [c for c, rows in enumerate(pools) if len(rows)]
    drawn = [pools[c] for c in present]
    amounts = core_shares(stored, given, num_classes, good, seed) if p == "auto" else (p,) * num_classes
    wanted = [_number_of(amounts[c], len(pools[c])) for c in present]
    together: list[Picks | None] = [None] * len(present)
    if method == "density-contrast":
        together = _pick_contrast(bank, squares, drawn, wanted, contrast_quantile, allowed, resolved)
    elif method == "density-peaks" and isinstance(p, int):
        together = resolved.backend.pick_classes(bank, squares, drawn, p, quantile, eta_max, allowed)
    for k, (c, rows) in enumerate(zip(present, drawn, strict=True)):
        if together[k] is not None:
            continue
        may_pick = np.ones(len(rows), dtype=bool) if allowed is None else allowed[rows]
        values = _rows_of(bank, rows)
        if method in _DENSITY_METHODS:
            pool = resolved.backend.pool(resolved.native(values), squares[rows])
            together[k] = pick_density_peaks(pool, wanted[k], quantile, eta_max, may_pick)
        elif method == "kmeans++":
            together[k] = Picks(pick_kmeans(_unit_double(values), wanted[k], may_pick, seed=class_seed(seed, c)))
        else:
            together[k] = Picks(pick_euclidean(to_numpy(values).astype(np.float64), wanted[k], may_pick))
    picked = [picks for picks in together if picks is not None]
    largest = max((len(picks.rows) for picks in picked), default=1)
    result = _Result(num_classes, p if isinstance(p, int) else largest, dim)
    for c, rows, picks in zip(present, drawn, picked, strict=True):
        result.put(c, rows, picks)
    result.fill_vectors(bank)
    result.warn_filtered()
    if method == "density-contrast":
        result.warn_without_contrast()
    return result.prototypes(resolved, bank.transform)


def _transformed(bank: FeatureBank, transform: str | BankTransform) -> FeatureBank:
    if not isinstance(transform, (str, BankTransform)):
        wanted = ", ".join(map(repr, KINDS))
        raise TypeError(f"transform: wanted {wanted}, a BankTransform or None, got {type(transform).__name__}")
    if isinstance(transform, str):
        if bank.transform is not None:
            raise ValueError(f"transform: wanted None or its own for a bank that went through one, got {transform!r}")
        transform = BankTransform.fit(bank, transform)
    return in_space(bank, transform)


def _check_prototypes(value: Any, method: str) -> int | float | str:
    """p, or a share of the rows of each class, or "auto"."""
    if isinstance(value, str):
        if value != "auto":
            raise ValueError(f"prototypes_per_class: wanted a whole number, a share or 'auto', got {value!r}")
        _check_takes_shares(method, repr(value))
        return value
    if isinstance(value, bool) or not isinstance(value, (float, np.floating)):
        return check_count(value, "prototypes_per_class", most=_MOST_PROTOTYPES)
    if not 0.0 < value <= 1.0:
        raise ValueError(
            f"prototypes_per_class: wanted a whole number, or a share above 0 and up to 1 as a float, got {value}"
        )
    _check_takes_shares(method, f"the share {value}")
    return float(value)


def _check_takes_shares(method: str, given: str) -> None:
    if method not in _DENSITY_METHODS:
        raise ValueError(f"prototypes_per_class: wanted a whole number for method {method!r}, got {given}")


def _number_of(amount: Any, num_rows: int) -> int:
    """Prototypes of a class of that many rows. A share is taken as it is written: 0.07 of 100 rows are 7."""
    return amount if isinstance(amount, int) else math.ceil(Fraction(repr(amount)) * num_rows)


def _rows_of(bank: FeatureBank, rows: np.ndarray) -> Any:
    """Rows of a bank; no copy where they are all of it, in order."""
    whole = bank.array is not None and len(rows) == len(bank) and bool((rows == np.arange(len(rows))).all())
    return bank.array if whole else bank.rows(rows)


def _pick_contrast(
    bank: FeatureBank,
    squares: np.ndarray,
    pools: Sequence[np.ndarray],
    wanted: Sequence[int],
    quantile: float,
    allowed: np.ndarray | None,
    resolved: Resolved,
) -> list[Picks | None]:
    """Density contrast for the pools of all classes; None for a class that is left to the published rule."""
    if not pools:
        return []
    index = np.concatenate(pools)  # class after class
    offsets = np.cumsum([0, *(len(rows) for rows in pools)])
    pool = resolved.backend.pool(resolved.native(_rows_of(bank, index)), squares[index])
    may_pick = np.ones(len(index), dtype=bool) if allowed is None else allowed[index]
    return pick_density_contrast(pool, offsets, wanted, quantile, may_pick)


def squares_of(bank: FeatureBank, resolved: Resolved) -> np.ndarray:
    """The pinned sum of squares of every row of a bank, in chunks.   [N] float64"""
    squares = np.empty(len(bank))
    for start, rows in bank.chunks():
        squares[start : start + len(rows)] = resolved.backend.squared_norms(resolved.native(rows))
    return squares


def _candidate_mask(candidates: Any, labels: np.ndarray, num_classes: int, good: np.ndarray) -> np.ndarray | None:
    """Rows that may become prototypes, bool [N], or None for all."""
    if candidates is None:
        return None
    array = to_numpy(candidates, "candidates")
    if array.ndim != 1:
        raise ValueError(f"candidates: wanted one dimension, got shape {array.shape}")
    if array.dtype == bool:
        if len(array) != len(labels):
            raise ValueError(f"candidates: wanted a mask of {len(labels)} entries, got {len(array)}")
        mask = array.copy()
    elif array.dtype.kind in "iu" or array.size == 0:
        if array.size and (array.min() < 0 or array.max() >= len(labels)):
            raise ValueError(f"candidates: wanted rows 0 to {len(labels) - 1}, got {array.min()} to {array.max()}")
        mask = np.zeros(len(labels), dtype=bool)
        mask[array.astype(np.int64)] = True
    else:
        raise TypeError(f"candidates: wanted row numbers or a bool mask, got {array.dtype}")
    mask &= good
    present = np.bincount(labels[good], minlength=num_classes) > 0
    without = np.flatnonzero(present & (np.bincount(labels[mask], minlength=num_classes) == 0))
    if len(without):
        mask |= np.isin(labels, without) & good
        warnings.warn(
            f"candidates: classes {without.tolist()} have none; all their rows may become prototypes",
            stacklevel=3,
        )
    return mask


def _unit_double(rows: Any) -> np.ndarray:
    """Unit rows in float64, the same on every backend.   [n, D]"""
    x = condition_numpy(to_numpy(as_double(rows)))
    return x / np.sqrt(np.einsum("ij,ij->i", x, x))[:, None]


class _Result:
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
            unit[chosen[part]] = _unit_double(rows[used : used + count])
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
