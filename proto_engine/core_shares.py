"""How much of each class is its core: ``prototypes_per_class="auto"``."""

from __future__ import annotations

import numpy as np

from .bank import FeatureBank

LEAST = 0.5
_AT_NO_NOISE, _SLOPE = 1.1, 1.5
_DECIMALS = 3  # of a share: the last bits of the evidence depend on the number of BLAS threads


def core_shares(
    bank: FeatureBank, labels: np.ndarray, num_classes: int, usable: np.ndarray, seed: int
) -> tuple[float, ...]:
    """Share of each class's rows that are worth having as prototypes: ``1.1 - 1.5 * noise``, at least 1/2, at most 1.

    Noise is the estimated share of wrong labels in the class. Where it is small, all rows are better than some: many
    prototypes describe a class more fully than few, and a wrong one among them does little. Where it is large, the
    densest half of a class is purer than the whole; less than that finds fewer errors even where it is purer still.
    The line is a fit by eye to how well wrong labels were found, every row being left out of its class in turn.

    Parameters
    ----------
    bank : FeatureBank, [N, D]
    labels : numpy.ndarray of int64, [N]
        Given labels, below ``num_classes``.
    num_classes : int
    usable : numpy.ndarray of bool, [N]
        Rows that have a direction; the others are not looked at.
    seed : int
        Of the evidence.

    Returns
    -------
    tuple of float, [C]
        From 1/2 to 1. A class whose evidence is not to be trusted, or that has too few rows to be judged, gets 1/2.
    """
    from .evidence import label_evidence  # needs SciPy's linear algebra, which takes a while to import

    evidence = label_evidence(bank, labels, num_classes=num_classes, seed=seed, on_bad_rows="keep-label")
    issues = np.bincount(labels[usable], weights=evidence.issue_score[usable], minlength=num_classes)  # [C]
    noise = issues / np.maximum(np.bincount(labels[usable], minlength=num_classes), 1)
    shares = np.clip(_AT_NO_NOISE - _SLOPE * noise, LEAST, 1.0)
    return tuple(np.where(evidence.trusted, shares, LEAST).round(_DECIMALS).tolist())
