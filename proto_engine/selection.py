"""Prototypes of each class: dense rows that do not repeat one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import MOST_CLASSES, as_bank, as_labels, to_numpy
from .backends.base import Picks, usable
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
from .picked_classes import PickedClasses, unit_double
from .prototypes import Prototypes
from .sampling import class_pools, class_seed
from .selection_checks import DENSITY_METHODS, METHODS, candidate_mask, check_prototypes, number_of
from .selectors import pick_euclidean, pick_kmeans
from .transform import KINDS, BankTransform, in_space


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
    p = check_prototypes(prototypes_per_class, method)
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
        raise ValueError(bad_rows_message(np.flatnonzero(~good), num_samples, transformed=bank.transform is not None))
    allowed = candidate_mask(candidates, given, num_classes, good)
    pools = class_pools(given, num_classes, m, seed, good, allowed)

    present = [c for c, rows in enumerate(pools) if len(rows)]
    drawn = [pools[c] for c in present]
    amounts = core_shares(stored, given, num_classes, good, seed) if p == "auto" else (p,) * num_classes
    wanted = [number_of(amounts[c], len(pools[c])) for c in present]
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
        if method in DENSITY_METHODS:
            pool = resolved.backend.pool(resolved.native(values), squares[rows])
            together[k] = pick_density_peaks(pool, wanted[k], quantile, eta_max, may_pick)
        elif method == "kmeans++":
            together[k] = Picks(pick_kmeans(unit_double(values), wanted[k], may_pick, seed=class_seed(seed, c)))
        else:
            together[k] = Picks(pick_euclidean(to_numpy(values).astype(np.float64), wanted[k], may_pick))
    picked = [picks for picks in together if picks is not None]
    largest = max((len(picks.rows) for picks in picked), default=1)
    result = PickedClasses(num_classes, p if isinstance(p, int) else largest, dim)
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
