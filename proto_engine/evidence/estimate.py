"""Labels and features in, evidence out: three walks over the bank."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import MOST_CLASSES, as_bank, as_labels
from ..bank import FeatureBank
from ..moments import Moments, MomentSums, as_working, brought_near_one, row_blocks, usable_rows
from ..ops import ON_BAD_ROWS, bad_rows_message, check_choice, check_count
from .anchors import MIN_CLASS, Clarity, score_blocks
from .calibration import calibrate
from .landmarks import LandmarkKernel, draw_landmarks
from .result import LabelEvidence
from .ridge import FoldedSums, fold_numbers
from .scaling import ScaledRows
from .trust import judge
from .whitening import fit_half_whitening

_NOTHING_VARIES = "the features are the same in all rows"


def label_evidence(
    features: Any,
    labels: Any,
    *,
    num_classes: int | None = None,
    seed: int = 0,
    on_bad_rows: str = "raise",
) -> LabelEvidence:
    """How likely each given label is wrong, and which label is most probable, from features and labels alone.

    No clean labels are needed, and a row's own label has no part in its scores. docs/evidence.md explains the steps,
    what they assume, and when not to trust them.

    Parameters
    ----------
    features : FeatureBank or array, [N, D]
        float16, bfloat16, float32 or float64. Read in three walks, a block at a time: neither the bank nor a matrix
        of N rows by landmarks is ever held. Rows on a GPU come to the host block by block, so that every device
        gives one answer.
    labels : array of int, [N]
        Given labels, 0 to C - 1.
    num_classes : int, optional
        C; by default the largest label plus one.
    seed : int
        Of the landmarks, the folds and the rows that the calibration is fitted on.
    on_bad_rows : {"raise", "keep-label"}
        Rows that are zero or not finite: refuse, or leave them out of all sums and keep their label.

    Returns
    -------
    LabelEvidence
        numpy arrays. The same bits for the same rows from memory or from a file; with another number of BLAS threads
        the last bits may differ, and with them decisions that are at a threshold.

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong dtype, shape or range; bad rows with ``on_bad_rows="raise"``.
    """
    bank = as_bank(features)
    if num_classes is not None:
        num_classes = check_count(num_classes, "num_classes", most=MOST_CLASSES)
    given = as_labels(labels, len(bank), num_classes).copy()
    num_classes = int(given.max()) + 1 if num_classes is None else num_classes
    seed = check_count(seed, "seed", least=0)
    check_choice(on_bad_rows, "on_bad_rows", ON_BAD_ROWS)

    usable, moments = _first_walk(bank)
    if on_bad_rows == "raise" and not usable.all():
        raise ValueError(bad_rows_message(np.flatnonzero(~usable), len(bank)))
    size = np.bincount(given[usable], minlength=num_classes)  # [C]
    classes = np.flatnonzero(size >= MIN_CLASS)  # [K] their own numbers
    if moments is None or len(classes) < 2:
        return _nothing(given, num_classes, usable, f"fewer than two classes have {MIN_CLASS} usable rows")
    exponent, moments = brought_near_one(bank, moments)
    if exponent:
        bank = FeatureBank.over(ScaledRows(bank, exponent))
    compact = np.full(num_classes, -1)  # class -> 0 to K - 1, or -1
    compact[classes] = np.arange(len(classes))
    judged = np.flatnonzero(usable & (compact[given] >= 0))  # [n]
    scores = _out_of_fold_scores(bank, moments, usable, compact[given], judged, len(classes), seed)
    if scores is None:
        return _nothing(given, num_classes, usable, _NOTHING_VARIES)
    return _weigh(scores, given, usable, judged, classes, num_classes, seed)


def _first_walk(bank: FeatureBank) -> tuple[np.ndarray, Moments | None]:
    """Which rows can be used, and their moments (None without any)."""
    usable = np.empty(len(bank), dtype=bool)
    sums = MomentSums(bank.shape[1])
    for start, rows in row_blocks(bank):
        good = usable_rows(rows)
        usable[start : start + len(rows)] = good
        sums.add(rows if good.all() else rows[good])
    return usable, sums.result() if usable.any() else None


def _out_of_fold_scores(
    bank: FeatureBank,
    moments: Moments,
    usable: np.ndarray,
    labels: np.ndarray,
    judged: np.ndarray,
    num_classes: int,
    seed: int,
) -> np.ndarray | None:
    """Scores of the judged rows by models that have not seen them; None where nothing varies.   [n, K] float32"""
    candidates = np.flatnonzero(usable)
    landmarks = draw_landmarks(candidates, seed)
    whitening = fit_half_whitening(moments, as_working(bank.rows(landmarks[:1])).dtype)
    if whitening is None:
        return None
    kernel = LandmarkKernel(bank, landmarks, whitening)
    folds = fold_numbers(np.arange(len(bank)), seed)  # [N]
    norms = np.empty(len(bank), dtype=np.float32)
    sums = FoldedSums(len(kernel), num_classes)
    for start, rows in row_blocks(bank):
        part = np.flatnonzero(usable[start : start + len(rows)])
        features, norms[start + part] = kernel.first(rows[part])
        sums.add(features, labels[start + part], folds[start + part])
    ridge = sums.solve()
    if ridge is None:
        return None
    scores = np.empty((len(judged), num_classes), dtype=np.float32)
    for start, rows in row_blocks(bank):
        low, high = np.searchsorted(judged, [start, start + len(rows)])
        number = judged[low:high]
        features = kernel.again(rows[number - start], norms[number])
        scores[low:high] = ridge.predict(features, folds[number])
    return scores


def _weigh(
    scores: np.ndarray,
    given: np.ndarray,
    usable: np.ndarray,
    judged: np.ndarray,
    classes: np.ndarray,
    num_classes: int,
    seed: int,
) -> LabelEvidence:
    """Scores of the judged rows to evidence about all rows."""
    labels = np.searchsorted(classes, given[judged])  # [n]
    clarity = Clarity.of(scores)
    calibration = calibrate(scores, labels, clarity, seed)
    issue, lead, suggested, probability = np.zeros(len(given)), np.zeros(len(given)), given.copy(), np.ones(len(given))
    for part in score_blocks(*scores.shape):
        rows, known = judged[part], labels[part]
        posterior, careful = calibration.posteriors(scores[part], known)  # [b, K] each
        best, each = posterior.argmax(axis=1), np.arange(len(rows))
        lead[rows] = posterior[each, best] - posterior[each, known]
        best = np.where(lead[rows] > 0, best, known)  # a tie says nothing against the given label
        wrong = 1.0 - posterior[each, known]
        issue[rows], suggested[rows] = wrong, classes[best]
        probability[rows] = np.where(best == known, 1.0 - wrong, np.minimum(careful[each, best], wrong))

    trust = judge(clarity, labels, len(classes))
    trusted = np.zeros(num_classes, dtype=bool)
    trusted[classes] = trust.trusted
    counted = judged[trust.trusted[labels]]
    noise = float(issue[counted].mean()) if len(counted) else 0.0
    doubt = calibration.second_opinion
    reason = trust.objection(noise, doubt.overlap, doubt.lapses, classes)
    return LabelEvidence(
        given, issue, suggested, probability, lead, classes, calibration.noise_matrix, noise, trusted, reason, usable
    )


def _nothing(given: np.ndarray, num_classes: int, usable: np.ndarray, reason: str) -> LabelEvidence:
    """No evidence against any label."""
    rows = len(given)
    return LabelEvidence(
        given=given,
        issue_score=np.zeros(rows),
        suggested=given.copy(),
        probability=np.ones(rows),
        lead=np.zeros(rows),
        judged=np.empty(0, dtype=np.int64),
        judged_noise=np.empty((0, 0)),
        noise=0.0,
        trusted=np.zeros(num_classes, dtype=bool),
        reason=reason,
        usable=usable,
    )
