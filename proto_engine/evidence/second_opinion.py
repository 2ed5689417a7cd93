"""A second opinion on changes: errors of the estimates are more often found among changed rows than elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .anchors import Clarity, anchor_labels
from .shrinkage import normalized, shrunk_noise_matrix

CLEAREST_SHARE, CLEAREST_LEAST = 0.05, 50  # of the rows, and rows a class, that the noise matrix is counted on
# With so many rows a class the share of lapses is the mean overlap of classes squared; it falls as 1 / rows. Chosen on
# 1,300 to 60,000 rows. Without lapses too many changes are expected to be right: the more, the fewer rows there are and
# the more alike the classes.
LAPSE_ROWS = 400.0
_MOST_LAPSES = 0.5  # however few the rows
_IMPOSSIBLE = 1e-4  # what the matrix has for a label that no anchor of any class would bear
_TINY = 1e-9  # a class that is no row's likeliest, or never confused: lapses lead anywhere


@dataclass(frozen=True, eq=False)
class SecondOpinion:
    """A posterior with more doubt.

    Attributes
    ----------
    noise_matrix : numpy.ndarray of float64, [K, K]
        ``T[c, y] = p(given y | true c)``, counted anew on the clearest twentieth and at least 50 rows of each class:
        what was changed because T says that labels are often wrong there is judged by another T. In large classes
        these rows are clearer than the anchors, too, and people err less on clear images.
    overlap : float
        Mean of ``1 - max p``: the share of rows that the features are expected to be wrong about.
    lapses : float
        Share of rows where ``p(c | x)`` is sure of a wrong class; the larger, the fewer rows and the more alike the
        classes.
    confusions : numpy.ndarray of float64, [K, K]
        Where lapses lead: ``[b, c]`` is how often a row that looks like class b is of class c instead. Zero diagonal,
        rows sum to 1.
    """

    noise_matrix: np.ndarray
    overlap: float
    lapses: float
    confusions: np.ndarray

    @classmethod
    def of(cls, classes: np.ndarray, clarity: Clarity, labels: np.ndarray) -> SecondOpinion:
        """From probabilities of some of the rows.

        Parameters
        ----------
        classes : numpy.ndarray, [k, K]
            ``p(c | x)`` of any k of the rows, not yet sharpened.
        clarity : Clarity
            Of all n rows.
        labels : numpy.ndarray of int64, [n]
            Given labels, 0 to K - 1.
        """
        num_classes = classes.shape[1]
        counts = anchor_labels(clarity, labels, num_classes, CLEAREST_SHARE, CLEAREST_LEAST)
        overlap = 1.0 - float(classes.max(axis=1).mean())
        lapses = min(overlap**2 * LAPSE_ROWS * num_classes / len(labels), _MOST_LAPSES)
        likeliest = classes.argmax(axis=1)
        confusions = np.stack([classes[likeliest == c].sum(axis=0, dtype=np.float64) for c in range(num_classes)])
        confusions += _TINY
        np.fill_diagonal(confusions, 0.0)
        return cls(normalized(shrunk_noise_matrix(counts) + _IMPOSSIBLE), overlap, lapses, normalized(confusions))

    def posterior(self, classes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """``q_c ~ ((1 - e) p_c + e B[b, c]) T[c, y]`` with lapses e, confusions B, and b the likeliest class.

        Parameters
        ----------
        classes : numpy.ndarray, [k, K]
            ``p(c | x)``, sharpened.
        labels : numpy.ndarray of int64, [k]
            Given labels.

        Returns
        -------
        numpy.ndarray of float64, [k, K]
        """
        doubted = (1.0 - self.lapses) * classes + self.lapses * self.confusions[classes.argmax(axis=1)]
        return normalized(doubted * self.noise_matrix.T[labels])
