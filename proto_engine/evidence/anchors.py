"""Anchors: the clearest of the rows that a class wins, taken to be of that class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

MIN_CLASS = 20  # rows: fewer neither make anchors nor say anything about a class
SCORES_AT_ONCE = 2**20  # looked at, so that no second matrix of all rows by classes is needed


@dataclass(frozen=True, eq=False)
class Clarity:
    """Which class wins each row, and by how much.

    Attributes
    ----------
    winner : numpy.ndarray of int64, [n]
    lead : numpy.ndarray of float32, [n]
        Best score less the second best.
    """

    winner: np.ndarray
    lead: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray) -> Clarity:
        """From scores, [n, K] with K >= 2."""
        winner, lead = np.empty(len(scores), dtype=np.int64), np.empty(len(scores), dtype=np.float32)
        for part in score_blocks(*scores.shape):
            best_two = np.partition(scores[part], -2, axis=1)[:, -2:]
            winner[part], lead[part] = scores[part].argmax(axis=1), best_two[:, 1] - best_two[:, 0]
        return cls(winner, lead)


def score_blocks(num_rows: int, num_classes: int, at_once: int = SCORES_AT_ONCE) -> Iterator[slice]:
    """Slices of rows of a matrix [n, K], of so many entries each."""
    step = max(1, at_once // num_classes)
    for low in range(0, num_rows, step):
        yield slice(low, low + step)


def anchor_labels(
    clarity: Clarity, labels: np.ndarray, num_classes: int, share: float, least: int = MIN_CLASS
) -> np.ndarray:
    """How often the anchors of each class bear each label.

    Parameters
    ----------
    clarity : Clarity
        Of n rows.
    labels : numpy.ndarray of int64, [n]
        Given labels.
    num_classes : int
        K.
    share : float
        Of the rows that a class wins.
    least : int
        At least so many anchors, where the class wins that many rows.

    Returns
    -------
    numpy.ndarray of float64, [K, K]
        ``[c, y]``. A class that wins no row has a single anchor, of its own label.
    """
    by_winner = np.argsort(clarity.winner, kind="stable")
    ends = np.cumsum(np.bincount(clarity.winner, minlength=num_classes))
    counts = np.zeros((num_classes, num_classes))
    for c, won in enumerate(np.split(by_winner, ends[:-1])):
        if len(won) == 0:
            counts[c, c] = 1.0
            continue
        k = max(int(share * len(won)), min(least, len(won)))
        clearest = won[np.argpartition(-clarity.lead[won], k - 1)[:k]]
        counts[c] = np.bincount(labels[clearest], minlength=num_classes)
    return counts
