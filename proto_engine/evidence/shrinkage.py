"""A noise matrix from few anchors, whose labels count as far as they cannot be put down to chance."""

from __future__ import annotations

import numpy as np
from scipy.special import betaln, gammaln

_STRENGTHS = np.logspace(-2, 6, 81)  # of a prior, in rows; the likelihood is flat between neighbors


def shrunk_noise_matrix(counts: np.ndarray) -> np.ndarray:
    """Estimate ``T[c, y] = p(given y | true c)`` from labels counted on anchors.

    Each class's own counts are pulled in two ways: its rate of wrong labels towards the rate over all classes, and
    where the wrong ones go towards an even spread over the other labels. How strongly is learned from all classes
    together, by maximum likelihood: symmetric noise is leveled, pairs stay as they are. Without this a class with 50
    anchors, one of which bears label y by chance, would have ``T[c, y] = .02`` and lose right labels to it.

    Parameters
    ----------
    counts : numpy.ndarray, [K, K]
        Whole numbers; ``[c, y]`` is how many anchors of class c bear label y. Every class has at least one.

    Returns
    -------
    numpy.ndarray of float64, [K, K]
        Rows sum to 1. Entries can be 0.

    Notes
    -----
    With ``n_c`` anchors of class c, ``m_c`` of them with another label, and ``m_cy`` with label y:

        m_c    ~ Beta-binomial of n_c trials with mean r and strength b,
        m_c.   ~ Dirichlet-multinomial of m_c trials with strength a for each of the K - 1 other labels, even,
        T[c, y] = (m_c + b r) / (n_c + b) * (m_cy + a) / (m_c + (K - 1) a),

    r is the share of wrong labels over all anchors; a and b maximize the likelihood (empirical Bayes).

    References
    ----------
    T. Minka: Estimating a Dirichlet Distribution. MIT, 2000.
    """
    num_classes = len(counts)
    elsewhere = ~np.eye(num_classes, dtype=bool)
    wrong = counts[elsewhere].reshape(num_classes, num_classes - 1)  # [K, K - 1] m_cy
    total, number = wrong.sum(axis=1), counts.sum(axis=1)  # [K] m_c, n_c
    strength = _pull_of_labels(wrong, total)
    noise = np.zeros((num_classes, num_classes))
    shares = (wrong + strength) / (total[:, None] + (num_classes - 1) * strength)
    rates = _rates(total, number)
    noise[elsewhere] = (rates[:, None] * shares).ravel()
    np.fill_diagonal(noise, 1.0 - rates)
    return noise


def _pull_of_labels(wrong: np.ndarray, total: np.ndarray) -> float:
    """The strength ``a`` that makes the wrong labels most likely."""
    values, times = np.unique(wrong, return_counts=True)  # few different counts, however many classes
    whole = _STRENGTHS[:, None]  # of all other labels together
    a = whole / wrong.shape[1]
    likelihood = (gammaln(whole) - gammaln(whole + total)).sum(axis=1)
    likelihood += ((gammaln(a + values) - gammaln(a)) * times).sum(axis=1)
    return float(a[likelihood.argmax(), 0])


def _rates(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Share of wrong labels in each class, pulled to that of all classes.   [K], [K] -> [K]"""
    mean = total.sum() / number.sum()
    if mean in (0.0, 1.0):
        return np.full(len(total), mean)
    b = _STRENGTHS[:, None]
    likelihood = betaln(total + b * mean, number - total + b * (1 - mean)) - betaln(b * mean, b * (1 - mean))
    best = _STRENGTHS[likelihood.sum(axis=1).argmax()]
    return (total + best * mean) / (number + best)


def normalized(rows: np.ndarray) -> np.ndarray:
    """Rows that sum to 1."""
    return rows / rows.sum(axis=1, keepdims=True)
