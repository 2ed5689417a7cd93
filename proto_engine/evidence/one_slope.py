"""Class probabilities with one slope for all classes: what few rows can tell, where classes are many."""

from __future__ import annotations

import numpy as np

from .anchors import score_blocks
from .shrinkage import normalized

STEPS = 60  # at most
_CLOSE = 1e-3  # of the slope, and ten times that of the constants: steps that change nothing that matters
_FIRST = 5.0  # slope
_LONGEST = 1.0  # step of a constant: far from the answer Newton's steps are too long
_HALF = 0.5  # of a constant's step: where two classes are confused, both take it
_LEAST = 1e-30  # variance: of scores that are all equal
_TINY = 1e-3  # a class that no row could belong to keeps its constant
_AT_ONCE = 2**18  # probabilities computed at once, so that they stay in cache


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
    Expectation-maximization: ``q_i[c] ~ p_i[c] T[c, y_i]``, then a step of Newton's method in a, by which a at most
    doubles or halves, and one in each b by itself, towards p = q.
    """
    num_classes = scores.shape[1]
    likelihoods = noise.T.astype(np.float32)  # [y, c]
    slope, constants = np.float32(_FIRST), np.zeros(num_classes, dtype=np.float32)
    for _ in range(STEPS):
        error, variance = 0.0, 0.0  # of the scores: expected by q less expected by p, and variance under p
        excess, spread = np.zeros(num_classes), np.zeros(num_classes)  # sums of q - p and of p (1 - p)
        for block in score_blocks(len(scores), num_classes, _AT_ONCE):
            part = scores[block]
            classes = softmax(slope * part + constants)  # [b, K]
            posterior = normalized(classes * likelihoods[labels[block]])
            mean = np.einsum("ij,ij->i", classes, part)
            variance += float((np.einsum("ij,ij,ij->i", classes, part, part) - mean**2).sum(dtype=np.float64))
            error += float((np.einsum("ij,ij->i", posterior, part) - mean).sum(dtype=np.float64))
            total = classes.sum(axis=0)
            spread += total - np.einsum("ij,ij->j", classes, classes)
            excess += posterior.sum(axis=0) - total
        step = np.float32(np.clip(error / max(variance, _LEAST), -slope / 2, slope))
        shift = np.clip(_HALF * excess / (spread + _TINY), -_LONGEST, _LONGEST).astype(np.float32)
        slope += step
        constants += shift
        if abs(step) < _CLOSE * slope and np.abs(shift).max() < 10 * _CLOSE:
            break
    return np.concatenate([slope * np.eye(num_classes, dtype=np.float32), constants[None]])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, computed in place.   [n, K] -> [n, K]"""
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits
