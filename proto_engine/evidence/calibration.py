"""From scores to probabilities: classes and label noise together, by maximum likelihood of the given labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve

from .anchors import Clarity, anchor_labels
from .one_slope import one_slope, softmax
from .second_opinion import SecondOpinion
from .shrinkage import normalized, shrunk_noise_matrix

ANCHOR_SHARE = 0.1  # of the rows that a class wins: clear enough to be of that class, enough to count labels on
SMOOTHING = 0.01  # spread over all labels: no label is impossible
# Noise that gathers on hard images makes p flat. Chosen on sets of 1,300 to 60,000 rows: at 1.1 more labels were right
# than at 1 on all large ones, and what is expected was closest over all kinds of noise.
SHARPNESS = 1.1
KAPPA = 1.0  # the anchors weigh as much as the rows do; without them T drifts from label noise to class overlap
EM_ROWS = 20_000  # rows the parameters are fitted on; with few classes more change the third digit
# With fewer of them for each of the K^2 weights they would be learned by heart: then the weights are held near those
# of one slope for all classes, from 71 classes on always. Chosen on 30 to 500 Gaussian classes of 20 to 200 rows.
ROWS_PER_WEIGHT = 4
HOLD = 1e-4  # of the mean diagonal entry of A^T A
WARM_STEPS = 60  # with T as the anchors have it, until the class probabilities have settled
STEPS = 100  # with T updated
STEPS_PER_UPDATE = 3  # of T, which moves slowly
_DAMPING = 1e-6  # of the trace: scores sum to 1, so that with the constant they are linearly dependent
_SAMPLE_STREAM = 2  # number of this draw under the caller's seed
_TINY = 1e-9  # a class that no row belongs to keeps the anchors' row of T


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
        Of the draw of at most `EM_ROWS` rows.
    """
    num_classes = scores.shape[1]
    counts = anchor_labels(clarity, labels, num_classes, ANCHOR_SHARE)
    start = normalized(shrunk_noise_matrix(counts) + SMOOTHING / num_classes)
    rows = np.arange(len(labels))
    if len(labels) > EM_ROWS:
        rng = np.random.default_rng([seed, _SAMPLE_STREAM])
        rows = np.sort(rng.choice(len(labels), EM_ROWS, replace=False, shuffle=False))
    inputs = with_constant(scores[rows])
    hold = HOLD if len(rows) < ROWS_PER_WEIGHT * num_classes**2 else 0.0
    weights, noise = expectation_maximization(inputs, labels[rows], start, hold=hold)
    second_opinion = SecondOpinion.of(softmax(inputs @ weights), clarity, labels)
    return Calibration(np.float32(SHARPNESS) * weights, noise, second_opinion)


def expectation_maximization(
    inputs: np.ndarray,
    labels: np.ndarray,
    start: np.ndarray,
    *,
    hold: float = 0.0,
    warm_steps: int = WARM_STEPS,
    steps: int = STEPS,
    momentum: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Maximize ``sum_i log sum_c softmax(a_i W)_c T[c, y_i] - l/2 |W - V|^2`` over W and, after the warm steps, T.

    Parameters
    ----------
    inputs : numpy.ndarray of float32, [n, P]
        Rows ``a_i``.
    labels : numpy.ndarray of int64, [n]
        ``y_i``, 0 to K - 1.
    start : numpy.ndarray of float64, [K, K]
        T from the anchors: the first value, and the prior. An update is
        ``T[c] ~ N[c] + kappa (sum N[c]) start[c]`` with expected counts ``N[c, y]``.
    hold : float
        ``l``, as a share of the mean diagonal entry of ``A^T A``; V are the weights of `one_slope`. At 0 neither plays
        a part.
    warm_steps, steps : int
        Steps with T fixed, then steps with T updated every `STEPS_PER_UPDATE`.
    momentum : bool
        Nesterov's; without it no step lowers what is maximized.

    Returns
    -------
    weights : numpy.ndarray of float32, [P, K]
    noise_matrix : numpy.ndarray of float64, [K, K]

    Notes
    -----
    The E-step gives ``q_i[c] ~ p_i[c] T[c, y_i]``. The M-step for W is one step with Boehning's bound on the
    curvature, ``W += 2 (A^T A + 2 l I)^-1 (A^T (q - p) - l (W - V))``: one small matrix, factored once.

    References
    ----------
    Boehning: Multinomial Logistic Regression Algorithm. Annals of the Institute of Statistical Mathematics 44, 1992.
    Nesterov: A Method for Solving the Convex Programming Problem with Convergence Rate O(1/k^2). 1983.
    Patrini et al.: Making Deep Neural Networks Robust to Label Noise. CVPR 2017 (T, and its first value from anchors).
    """
    num_classes = len(start)
    noise = start.copy()
    gram = (inputs.T @ inputs).astype(np.float64)  # [P, P]
    pull = np.float32(hold * np.trace(gram) / len(gram))  # l
    gram[np.diag_indices_from(gram)] += _DAMPING * np.trace(gram) + 2.0 * float(pull)
    bound = (2.0 * cho_solve(cho_factor(gram), np.eye(len(gram)))).astype(np.float32)
    by_label = sparse.csr_matrix((np.ones(len(labels)), (labels, np.arange(len(labels)))), (num_classes, len(labels)))
    weights = ahead = np.zeros((inputs.shape[1], num_classes), dtype=np.float32)
    if hold:
        weights = ahead = held = one_slope(inputs[:, :-1], labels, start)
    likelihoods = noise.T[labels].astype(np.float32)  # [n, K] T[c, y_i]
    for t in range(warm_steps + steps):
        classes = softmax(inputs @ ahead)  # [n, K]
        posterior = normalized(classes * likelihoods)
        gradient = inputs.T @ (posterior - classes)
        if hold:
            gradient -= pull * (ahead - held)
        moved = ahead + bound @ gradient
        since = t if t < warm_steps else t - warm_steps  # a changed T is a new problem: momentum starts again
        push = np.float32(since / (since + 3) if momentum else 0.0)
        ahead, weights = moved + push * (moved - weights), moved
        if t >= warm_steps and t % STEPS_PER_UPDATE == 0:
            counts = (by_label @ posterior).T + _TINY  # [K, K]
            noise = normalized(counts + KAPPA * counts.sum(axis=1, keepdims=True) * start)
            likelihoods = noise.T[labels].astype(np.float32)
    return weights, noise


def with_constant(scores: np.ndarray) -> np.ndarray:
    """A column of ones behind the scores.   [n, K] -> [n, K + 1] float32"""
    return np.concatenate([scores, np.ones((len(scores), 1), dtype=np.float32)], axis=1)
