"""Class probabilities with one slope for all classes: what few rows can tell, where classes are many."""

from __future__ import annotations

import numpy as np

from .shrinkage import normalized

STEPS = 60  # within a thousandth of the greatest log-likelihood
_LONGEST_STEP = 5.0, 1.0  # of the slope and of a constant: far from the answer Newton's steps are too long
_HALF = 0.5  # of a constant's step: where two classes are confused, both take it
_TINY = 1e-3  # a class that no row could belong to keeps its constant


def one_slope(scores: np.ndarray, labels: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Maximize ``sum_i log sum_c softmax(a s_i + b)_c T[c, y_i]`` over the slope a and the constants b.

    Parameters
    ----------
    scores : numpy.ndarray of float32, [n, K]
    labels : numpy.ndarray of int64, [n]
        ``y_i``, 0 to K - 1.
    noise : numpy.ndarray of float64, [K, K]
        T, which stays as it is.

    Returns
    -------
    numpy.ndarray of float32, [K + 1, K]
        ``[a I; b]``, to be multiplied by the scores with a one behind them.

    Notes
    -----
    Expectation-maximization: ``q_i[c] ~ p_i[c] T[c, y_i]``, then a step of Newton's method in a, and one in each b by
    itself, towards p = q.
    """
    num_classes = scores.shape[1]
    likelihoods = noise.T[labels].astype(np.float32)  # [n, K]
    slope, constants = np.float32(0.0), np.zeros(num_classes, dtype=np.float32)
    for _ in range(STEPS):
        classes = softmax(slope * scores + constants)
        error = normalized(classes * likelihoods) - classes
        mean = (classes * scores).sum(axis=1, keepdims=True)
        variance = float((classes * (scores - mean) ** 2).sum())
        step = float((error * scores).sum()) / (variance + _TINY)
        slope += np.float32(np.clip(step, -_LONGEST_STEP[0], _LONGEST_STEP[0]))
        curvature = (classes * (1.0 - classes)).sum(axis=0) + _TINY
        constants += np.clip(_HALF * error.sum(axis=0) / curvature, -_LONGEST_STEP[1], _LONGEST_STEP[1])
    return np.concatenate([slope * np.eye(num_classes, dtype=np.float32), constants[None]])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, computed in place.   [n, K] -> [n, K]"""
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits
