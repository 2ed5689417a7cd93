"""How well wrong labels were found and put right, where the truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

BUDGET = 0.05  # of all rows: what somebody has time to look at


def detection(wrong: np.ndarray, suspicion: np.ndarray) -> dict[str, float | None]:
    """How well a score ranks wrong labels above right ones.

    Parameters
    ----------
    wrong : ndarray, bool [N]
    suspicion : ndarray, float [N]
        Higher: more likely wrong. Only its order counts, rows may tie; infinite values are allowed.

    Returns
    -------
    dict
        ``auroc``, ``average_precision``, ``recall_budget`` (share of the wrong labels among the `BUDGET` most suspect
        rows) and ``recall_share`` (the same among as many rows as there are wrong labels). All None where no label
        is wrong, or all are.

    Raises
    ------
    ValueError
        The score of a row is NaN.
    """
    if np.isnan(suspicion).any():
        raise ValueError(f"suspicion: wanted no NaN, got {int(np.isnan(suspicion).sum())}")
    if wrong.all() or not wrong.any():
        return dict.fromkeys(("auroc", "average_precision", "recall_budget", "recall_share"))
    rank = rankdata(suspicion)  # finite, with the same ties
    return {
        "auroc": float(roc_auc_score(wrong, rank)),
        "average_precision": float(average_precision_score(wrong, rank)),
        "recall_budget": recall_within(wrong, suspicion, round(BUDGET * len(wrong))),
        "recall_share": recall_within(wrong, suspicion, int(wrong.sum())),
    }


def recall_within(wrong: np.ndarray, suspicion: np.ndarray, budget: int) -> float:
    """Share of the wrong labels among the `budget` most suspect rows; of rows that tie at the end, their mean share."""
    if budget <= 0:
        return 0.0
    last = np.partition(suspicion, -budget)[-budget]
    above, tied = suspicion > last, suspicion == last
    room = (budget - above.sum()) / tied.sum()
    return float((wrong[above].sum() + room * wrong[tied].sum()) / wrong.sum())


def change(truth: np.ndarray, given: np.ndarray, suggested: np.ndarray, changed: np.ndarray) -> dict[str, float | None]:
    """Label accuracy when the labels of the rows in `changed`, bool [N], become the suggested ones.

    Returns
    -------
    dict
        ``accuracy``; ``share_changed``, of all rows; ``right``, the share of the changed labels that are right now
        (None without a change).
    """
    moved = changed & (suggested != given)
    now = np.where(moved, suggested, given) == truth
    return {
        "accuracy": float(now.mean()),
        "share_changed": float(moved.mean()),
        "right": float(now[moved].mean()) if moved.any() else None,
    }


def best_threshold(
    truth: np.ndarray, given: np.ndarray, suggested: np.ndarray, suspicion: np.ndarray
) -> dict[str, Any]:
    """The label accuracy that the best threshold on `suspicion` gives, which takes the truth to find.

    All rows at or above a threshold get the suggested label; a threshold that changes nothing is one of them.
    """
    moved = np.flatnonzero(suggested != given)
    order = moved[np.argsort(-suspicion[moved], kind="stable")]
    gain = np.cumsum((suggested[order] == truth[order]).astype(np.int64) - (given[order] == truth[order]))
    ends = np.flatnonzero(np.diff(suspicion[order], append=np.nan) != 0)  # a threshold cannot part rows that tie
    gains, counts = np.concatenate([[0], gain[ends]]), np.concatenate([[0], ends + 1])
    best = int(gains.argmax())
    return {
        "best_accuracy": float((given == truth).mean() + gains[best] / len(truth)),
        "best_share": float(counts[best] / len(truth)),
    }
