"""Scores for cleanlab, and what cleanlab found as corrections: arrays and tables, cleanlab itself is not imported."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

import proto_engine as pe

LOWEST_TEMPERATURE = 1e-3  # where all scores agree with the labels, the likelihood grows without end as T falls
_ROWS = 2**16  # worked on at a time


def fit_temperature(sigma: Any, labels: ArrayLike) -> float:
    """The temperature T with which ``softmax(sigma / T)`` makes the given labels most likely.

    It maximizes ``mean_i log softmax(sigma_i / T)[labels_i]``, which is concave in 1/T; Newton's method, kept
    inside a bracket. Temperature scaling: Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.

    Parameters
    ----------
    sigma : array of float, [N, C]
        From `proto_engine.score_samples`. Rows of NaN are left out; -inf marks a class without prototypes.
    labels : array of int, [N]
        The given labels. That part of them is wrong is what makes the probabilities honest.

    Returns
    -------
    float
        At least `LOWEST_TEMPERATURE`.

    Raises
    ------
    ValueError
        Wrong shapes, labels out of range, no usable row; or the scores say nothing about the labels, as when
        the two are not in the same order.
    TypeError
        Labels that are not integers.
    """
    sigma, labels = _checked(sigma, labels)
    usable = np.isfinite(sigma[np.arange(len(labels)), labels])
    if not usable.any():
        raise ValueError("sigma must have a row with a finite score for its label, got none")
    sigma, labels = sigma[usable], labels[usable]
    low, high = 0.0, 1 / LOWEST_TEMPERATURE  # of 1/T
    if _slope(sigma, labels, low)[0] <= 0:
        raise ValueError("sigma must score given labels above the mean class; are both in the same order?")
    if _slope(sigma, labels, high)[0] >= 0:
        return LOWEST_TEMPERATURE
    inverse = 1.0
    for _ in range(100):
        slope, curvature = _slope(sigma, labels, inverse)
        low, high = (inverse, high) if slope > 0 else (low, inverse)
        step = inverse + slope / curvature if curvature > 0 else high
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-10 * inverse:
            break
        inverse = following
    return 1 / inverse


def pred_probs(sigma: Any, labels: ArrayLike, *, temperature: float | None = None) -> np.ndarray:
    """Scores as the class probabilities that cleanlab calls ``pred_probs``: ``softmax(sigma / T)``.

    Parameters
    ----------
    sigma : array of float, [N, C]
        From `proto_engine.score_samples`.
    labels : array of int, [N]
        The given labels.
    temperature : float, optional
        T; by default that of `fit_temperature`.

    Returns
    -------
    ndarray of float64, [N, C]
        Rows sum to 1. A class without prototypes (-inf) gets 0. A row without a usable feature (NaN) gets 1
        for its given label: nothing speaks against it.

    Raises
    ------
    ValueError, TypeError
        See `fit_temperature`; a temperature that is not positive.
    """
    scores, labels = _checked(sigma, labels)
    if temperature is None:
        temperature = fit_temperature(scores, labels)
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature must be a positive number, got {temperature}")
    probabilities = np.empty(scores.shape)
    for start in range(0, len(scores), _ROWS):
        probabilities[start : start + _ROWS] = _softmax(scores[start : start + _ROWS], 1 / temperature)
    silent = np.flatnonzero(np.isnan(scores[:, 0]))
    probabilities[silent] = 0
    probabilities[silent, labels[silent]] = 1
    return probabilities


def from_cleanlab(
    issues: Any, labels: ArrayLike, pred_probs: ArrayLike, *, class_names: Sequence[Any] | None = None
) -> pe.Corrections:
    """What cleanlab found as corrections: its label issues get the label it predicts, all others keep theirs.

    Parameters
    ----------
    issues : array of bool [N], array of int [K], or DataFrame of N rows
        Of `cleanlab.filter.find_label_issues`, the mask or the ranked positions; or the table of
        `Datalab.get_issues("label")` or `CleanLearning.get_label_issues()`, with the columns ``is_label_issue``,
        ``given_label`` and ``predicted_label``.
    labels : array of int, [N]
        The given labels.
    pred_probs : array of float, [N, C]
        What cleanlab was given. Suggested is the likeliest class, unless a table says another.
    class_names : sequence, optional
        Name of each of the C classes, for a table whose labels are names.

    Returns
    -------
    proto_engine.Corrections
        ``labels`` to train on, ``given``, ``changed``; ``score`` is the probability of the likeliest class,
        ``margin`` its lead over the second. ``save("corrected.parquet")`` writes the table of `proto-train`.

    Raises
    ------
    ValueError
        Wrong shapes or positions, one of them twice (a mask that is not bool, say); `class_names` that are not C
        different ones; a table without these columns, with other given labels (another order), or with names that
        are not in `class_names`.
    TypeError
        Labels that are not integers, issues that are neither bool nor integers.
    """
    probabilities, labels = _checked(pred_probs, labels, "pred_probs")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # NaN, too
        raise ValueError("pred_probs must be probabilities, from 0 to 1")
    suggested = probabilities.argmax(axis=1)
    if hasattr(issues, "columns"):
        mask, suggested = _from_table(issues, labels, probabilities.shape[1], class_names)
    else:
        mask = _as_mask(np.asarray(issues), len(labels))
    best_two = np.sort(probabilities, axis=1)[:, -2:]  # [N, 2]
    corrected = np.where(mask, suggested, labels)
    margin = best_two[:, 1] - best_two[:, 0]
    return pe.Corrections(corrected, labels, best_two[:, 1], margin, corrected != labels)


def save_verified(path: str | os.PathLike[str], rows: ArrayLike, correct: ArrayLike) -> None:
    """Write verdicts on given labels as the file for ``proto-train --verified``: CSV with ``index,correct``.

    Parameters
    ----------
    path : str or os.PathLike
    rows : array of int, [V]
        Positions of the images that somebody has looked at: the first ones of cleanlab's ranking, say.
    correct : array of bool, [V]
        Whether the given label is right. To take cleanlab's word for everything: ``~mask`` for all rows.

    Raises
    ------
    ValueError
        Different lengths, negative or repeated rows.
    TypeError
        Rows that are not integers, verdicts that are not bool.
    OSError
        The file cannot be written.
    """
    rows, correct = np.asarray(rows), np.asarray(correct)
    if rows.dtype.kind not in "iu" or correct.dtype != bool:
        raise TypeError(f"rows must be integers and correct bool, got {rows.dtype} and {correct.dtype}")
    if rows.ndim != 1 or rows.shape != correct.shape:
        raise ValueError(f"rows and correct must be of one length, got {[*rows.shape]} and {[*correct.shape]}")
    if len(np.unique(rows)) < len(rows) or rows.min(initial=0) < 0:
        raise ValueError("rows must be positions, none of them twice and none negative")
    with pe.atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("index", "correct"))
        writer.writerows(zip(rows.tolist(), correct.astype(int).tolist(), strict=True))


def _checked(scores: Any, labels: Any, name: str = "sigma") -> tuple[np.ndarray, np.ndarray]:
    """Both as numpy arrays [N, C] and [N]; a row is NaN as a whole or not at all."""
    scores, labels = (x.detach().cpu() if hasattr(x, "detach") else x for x in (scores, labels))
    scores, labels = np.asarray(scores), np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if scores.ndim != 2 or scores.shape[1] < 2 or labels.shape != scores.shape[:1] or len(labels) == 0:
        raise ValueError(
            f"{name} and labels must be [N, C] and [N], C at least 2, got {[*scores.shape]} and {[*labels.shape]}"
        )
    if scores.dtype.kind != "f":
        raise TypeError(f"{name} must be floating point, got {scores.dtype}")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"labels must lie in 0..{scores.shape[1] - 1}, got {labels.min()}..{labels.max()}")
    nan = np.isnan(scores)
    partly = np.flatnonzero(nan.any(axis=1) != nan.all(axis=1))
    unbounded = np.flatnonzero(np.isposinf(scores).any(axis=1) | np.isneginf(scores).all(axis=1))
    if len(partly) or len(unbounded):
        row = min(*partly[:1], *unbounded[:1], len(scores))
        raise ValueError(f"{name} must be finite, NaN in whole rows or -inf in single classes; row {row} is not")
    return scores, labels.astype(np.int64)


def _softmax(scores: np.ndarray, inverse: float) -> np.ndarray:
    shifted = scores.astype(np.float64)  # a copy
    shifted -= shifted.max(axis=1, keepdims=True)
    weights = np.exp(inverse * shifted) if inverse > 0 else (shifted > -np.inf).astype(np.float64)  # [b, C]
    return weights / weights.sum(axis=1, keepdims=True)


def _slope(sigma: np.ndarray, labels: np.ndarray, inverse: float) -> tuple[float, float]:
    """First derivative of the mean log-likelihood by 1/T, and minus the second.

    ``d/db log softmax(b s)[y] = s_y - E[s]`` and its derivative ``-Var[s]``, both under ``softmax(b s)``.
    """
    slope = curvature = 0.0
    for start in range(0, len(sigma), _ROWS):
        scores = sigma[start : start + _ROWS].astype(np.float64)
        chances = _softmax(scores, inverse)
        scores[np.isneginf(scores)] = 0  # no chance, no contribution
        mean = (chances * scores).sum(axis=1)  # [b]
        slope += (scores[np.arange(len(scores)), labels[start : start + _ROWS]] - mean).sum()
        curvature += (chances * (scores - mean[:, None]) ** 2).sum()
    return slope / len(sigma), curvature / len(sigma)


def _as_mask(issues: np.ndarray, count: int) -> np.ndarray:
    if issues.size == 0:
        issues = issues.astype(np.int64)
    if issues.ndim != 1 or issues.dtype.kind not in "biu":
        raise TypeError(f"issues must be a mask or positions, got {issues.dtype} {[*issues.shape]}")
    if issues.dtype == bool:
        if len(issues) != count:
            raise ValueError(f"issues must be a mask of {count} rows, got {len(issues)}")
        return issues
    if issues.min(initial=0) < 0 or issues.max(initial=0) >= count:
        raise ValueError(f"issues must be positions 0..{count - 1}, got {issues.min()}..{issues.max()}")
    mask = np.zeros(count, dtype=bool)
    mask[issues] = True
    if mask.sum() < len(issues):  # a mask of 0 and 1 would name the first two rows again and again
        raise ValueError("issues must be positions, none of them twice; a mask must be bool")
    return mask


def _from_table(
    table: Any, labels: np.ndarray, num_classes: int, class_names: Sequence[Any] | None
) -> tuple[np.ndarray, np.ndarray]:
    """The mask and the suggested labels of a table of cleanlab's, [N] each."""
    missing = sorted({"is_label_issue", "given_label", "predicted_label"} - set(table.columns))
    if missing:
        raise ValueError(f"issues must have the columns of a label table of cleanlab's, it lacks {', '.join(missing)}")
    if len(table) != len(labels):
        raise ValueError(f"issues must have a row for each of {len(labels)} labels, got {len(table)}")
    names = list(range(num_classes) if class_names is None else class_names)
    numbers = {name: c for c, name in enumerate(names)}
    if len(names) != num_classes or len(numbers) < num_classes:
        raise ValueError(f"class_names must be {num_classes} different names, got {names}")
    columns = [table[name].tolist() for name in ("given_label", "predicted_label")]
    if unknown := sorted({str(value) for column in columns for value in column if value not in numbers}):
        raise ValueError(
            f"issues has labels that are no class (class_names gives them names): {', '.join(unknown[:5])}"
        )
    given, predicted = (np.array([numbers[value] for value in column]) for column in columns)
    differing = np.flatnonzero(given != labels)
    if len(differing):
        raise ValueError(
            f"issues must be about the same labels: {len(differing)} rows differ, the first is {differing[0]}"
        )
    return table["is_label_issue"].to_numpy(dtype=bool), predicted
