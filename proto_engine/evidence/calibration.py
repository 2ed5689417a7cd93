"""From scores to probabilities: classes and label noise together, by maximum likelihood of the given labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .anchors import Clarity, anchor_labels
from .maximization import FREE, HELD, expectation_maximization
from .one_slope import softmax
from .second_opinion import SecondOpinion
from .shrinkage import normalized, shrunk_noise_matrix

ANCHOR_SHARE = 0.1  # of the rows that a class wins: clear enough to be of that class, enough to count labels on
SMOOTHING = 0.01  # spread over all labels: no label is impossible
# Noise that gathers on hard images makes p flat. Chosen on sets of 1,300 to 60,000 rows: at 1.1 more labels were right
# than at 1 on all large ones, and what is expected was closest over all kinds of noise.
SHARPNESS = 1.1
EM_ROWS = 20_000  # rows the parameters are fitted on; with few classes more change the third digit
# With fewer of them for each of the K^2 weights they would be learned by heart: then the weights are held near those
# of one slope for all classes, from 71 classes on always. Chosen on 30 to 500 Gaussian classes of 20 to 200 rows.
ROWS_PER_WEIGHT = 4
HELD_ROWS = 50_000  # where classes are many, more rows find more: up to .008 more of the labels right than with 20,000
_SAMPLE_STREAM = 2  # number of this draw under the caller's seed


@dataclass(frozen=True, eq=False)
class Calibration:
    """``p(c | x) = softmax([s(x), 1] W)_c`` and ``T[c, y] = p(given y | true c)``.

    Attributes
    ----------
    weights : numpy.ndarray of float32, [K + 1, K]
        `SHARPNESS` included.
    noise_matrix : numpy.ndarray of float64, [K, K]
    second_opinion : SecondOpinion
    """

    weights: np.ndarray
    noise_matrix: np.ndarray
    second_opinion: SecondOpinion

    def posteriors(self, scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``q_c ~ p(c | x) T[c, y]``, with the given label taken into account; and the second opinion.

        Parameters
        ----------
        scores : numpy.ndarray of float32, [b, K]
        labels : numpy.ndarray of int64, [b]

        Returns
        -------
        posterior, careful : numpy.ndarray of float64, [b, K]
        """
        classes = softmax(with_constant(scores) @ self.weights).astype(np.float64)
        return normalized(classes * self.noise_matrix.T[labels]), self.second_opinion.posterior(classes, labels)


def calibrate(scores: np.ndarray, labels: np.ndarray, clarity: Clarity, seed: int) -> Calibration:
    """Fit class probabilities and the noise matrix to the given labels.

    Parameters
    ----------
    scores : numpy.ndarray of float32, [n, K]
        Out-of-fold scores.
    labels : numpy.ndarray of int64, [n]
        Given labels, 0 to K - 1.
    clarity : Clarity
        Winner and clearness of each row.
    seed : int
        Of the draw of at most `EM_ROWS` rows, or `HELD_ROWS`.
    """
    num_classes = scores.shape[1]
    counts = anchor_labels(clarity, labels, num_classes, ANCHOR_SHARE)
    start = normalized(shrunk_noise_matrix(counts) + SMOOTHING / num_classes)
    many = min(len(labels), EM_ROWS) < ROWS_PER_WEIGHT * num_classes**2
    rows, most = np.arange(len(labels)), HELD_ROWS if many else EM_ROWS
    if len(labels) > most:
        rng = np.random.default_rng([seed, _SAMPLE_STREAM])
        rows = np.sort(rng.choice(len(labels), most, replace=False, shuffle=False))
    inputs = with_constant(scores[rows])
    weights, noise = expectation_maximization(inputs, labels[rows], start, HELD if many else FREE)
    second_opinion = SecondOpinion.of(softmax(inputs @ weights), clarity, labels)
    return Calibration(np.float32(SHARPNESS) * weights, noise, second_opinion)


def with_constant(scores: np.ndarray) -> np.ndarray:
    """A column of ones behind the scores.   [n, K] -> [n, K + 1] float32"""
    return np.concatenate([scores, np.ones((len(scores), 1), dtype=np.float32)], axis=1)
