"""Weights of the class probabilities and the noise matrix that make the given labels most likely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve

from .anchors import score_blocks
from .one_slope import one_slope, softmax
from .shrinkage import normalized

KAPPA = 1.0  # the anchors weigh as much as the rows do; without them T drifts from label noise to class overlap
STEPS_PER_UPDATE = 3  # of T, which moves slowly
_DAMPING = 1e-6  # of the trace: scores sum to 1, so that with the constant they are linearly dependent
_TINY = 1e-9  # a class that no row belongs to keeps the anchors' row of T
_AT_ONCE = 2**21  # probabilities computed at once: no further matrix of all rows by classes is held


@dataclass(frozen=True)
class Course:
    """How the weights are found.

    Attributes
    ----------
    warm_steps : int
        With T as the anchors have it, until the class probabilities have settled.
    steps : int
        With T updated at every third.
    length : float
        Of the steps, in those of the bound on the curvature. That takes p (1 - p) for 1/4; where classes are many it is
        far less, and longer steps get there sooner. They are halved where they lower what is maximized.
    hold : float
        ``l``, as a share of the mean diagonal entry of ``A^T A``.
    """

    warm_steps: int = 60
    steps: int = 100
    length: float = 1.0
    hold: float = 0.0


FREE = Course()
# From 30 classes on as far as 60 and 100 steps of length 1. Chosen, as the hold was, on 30 to 500 Gaussian classes of
# 20 to 200 rows.
HELD = Course(12, 24, 16.0, 1e-4)


def expectation_maximization(
    inputs: np.ndarray, labels: np.ndarray, start: np.ndarray, course: Course = FREE, *, momentum: bool = True
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
    course : Course
        V are the weights of `one_slope`; where l is 0 they play no part.
    momentum : bool
        Nesterov's; without it no step of length 1 lowers what is maximized.

    Returns
    -------
    weights : numpy.ndarray of float32, [P, K]
    noise_matrix : numpy.ndarray of float64, [K, K]

    Notes
    -----
    The E-step gives ``q_i[c] ~ p_i[c] T[c, y_i]``. The M-step for W is one step with Boehning's bound on the
    curvature, ``W += 2 (A^T A / length + 2 l I)^-1 (A^T (q - p) - l (W - V))``: one small matrix, factored once.

    References
    ----------
    Boehning: Multinomial Logistic Regression Algorithm. Annals of the Institute of Statistical Mathematics 44, 1992.
    Nesterov: A Method for Solving the Convex Programming Problem with Convergence Rate O(1/k^2). 1983.
    Patrini et al.: Making Deep Neural Networks Robust to Label Noise. CVPR 2017 (T, and its first value from anchors).
    """
    noise = start.copy()
    gram = (inputs.T @ inputs).astype(np.float64)  # [P, P]
    pull = np.float32(course.hold * np.trace(gram) / len(gram))  # l
    length = course.length
    stride = _stride(gram, pull, length)
    weights = ahead = held = np.zeros((inputs.shape[1], len(start)), dtype=np.float32)
    if course.hold:
        weights = ahead = held = one_slope(inputs[:, :-1], labels, start)
    best, safe = -np.inf, ahead
    since = 0
    for t in range(course.warm_steps + course.steps):
        update = t >= course.warm_steps and t % STEPS_PER_UPDATE == 0
        found = _expect(inputs, labels, ahead, noise, counted=update)
        value = found.log_likelihood - float(pull) / 2 * float(np.square(ahead - held).sum(dtype=np.float64))
        if value < best and length > 1.0:
            length = max(1.0, length / 2)
            stride = _stride(gram, pull, length)
            weights = ahead = safe
            since = 0
            continue
        best, safe = value, ahead
        gradient = found.gradient
        if course.hold:
            gradient -= pull * (ahead - held)
        moved = ahead + stride @ gradient
        since = 0 if t == course.warm_steps else since  # a changed T is a new problem: momentum starts again
        push = np.float32(since / (since + 3) if momentum else 0.0)
        since += 1
        ahead, weights = moved + push * (moved - weights), moved
        if update:
            counts = found.counts + _TINY  # [K, K]
            noise = normalized(counts + KAPPA * counts.sum(axis=1, keepdims=True) * start)
            best = -np.inf
    return weights, noise


@dataclass(frozen=True, eq=False)
class _Expected:
    gradient: np.ndarray  # [P, K] float32, A^T (q - p)
    log_likelihood: float
    counts: np.ndarray  # [K, K] float64, rows expected of class c with label y; zero where not wanted


def _expect(
    inputs: np.ndarray, labels: np.ndarray, weights: np.ndarray, noise: np.ndarray, *, counted: bool
) -> _Expected:
    """The E-step, some rows at a time."""
    num_classes = len(noise)
    likelihoods = noise.T.astype(np.float32)  # [y, c]
    gradient = np.zeros_like(weights)
    counts = np.zeros((num_classes, num_classes))  # [y, c]
    log_likelihood = 0.0
    for part in score_blocks(len(labels), num_classes, _AT_ONCE):
        classes = softmax(inputs[part] @ weights)  # [b, K]
        joint = classes * likelihoods[labels[part]]
        evidence = joint.sum(axis=1, keepdims=True)
        log_likelihood += float(np.log(evidence, dtype=np.float64).sum())
        posterior = joint / evidence
        gradient += inputs[part].T @ (posterior - classes)
        if counted:
            rows = np.arange(len(posterior))
            by_label = sparse.csr_matrix((np.ones(len(rows)), (labels[part], rows)), (num_classes, len(rows)))
            counts += by_label @ posterior
    return _Expected(gradient, log_likelihood, counts.T)


def _stride(gram: np.ndarray, pull: np.float32, length: float) -> np.ndarray:
    """``2 (A^T A / length + 2 l I)^-1``.   [P, P] float32"""
    matrix = gram / length
    matrix[np.diag_indices_from(matrix)] += _DAMPING * np.trace(matrix) + 2.0 * float(pull)
    return (2.0 * cho_solve(cho_factor(matrix), np.eye(len(matrix)))).astype(np.float32)
