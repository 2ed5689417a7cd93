"""Ridge regression of labels on features, each row predicted by a model of the other folds."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

FOLDS = 5  # each model sees 4/5 of the rows
# Of the mean variance of a feature: with 50,000 rows 3e-4 of the scatter, where results are flat from 1e-4 to 1e-3;
# with 1,800 rows 8e-3, without which a tenth more of the changes is expected to be right than is.
RIDGE = 15.0
_GOLDEN = 0x9E3779B97F4A7C15  # splitmix64's increment
_WORD = 2**64 - 1


def fold_numbers(rows: np.ndarray, seed: int) -> np.ndarray:
    """A fold for each row number: a hash, so that no permutation of all rows need be kept.   [n] -> [n] uint8

    References
    ----------
    Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators. OOPSLA 2014 (splitmix64).
    """
    start = np.uint64((seed + 1) * _GOLDEN & _WORD)
    word = (rows.astype(np.uint64) + start) * np.uint64(_GOLDEN)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((word ^ (word >> np.uint64(31))) % np.uint64(FOLDS)).astype(np.uint8)


class FoldedSums:
    """Sums that all fold models are made of, from blocks of features and labels.

    Parameters
    ----------
    num_features, num_classes : int
        M and K.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        self._products = np.zeros((FOLDS, num_features, num_features))  # F^T F
        self._targets = np.zeros((FOLDS, num_features, num_classes))  # F^T Y
        self._sums = np.zeros((FOLDS, num_features))
        self._counts = np.zeros((FOLDS, num_classes))  # rows of each class
        self._rows = np.zeros(FOLDS)

    def add(self, features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> None:
        """Count rows: features [b, M] float32, labels [b] 0 to K - 1 or -1 for none, folds [b]."""
        num_classes = self._counts.shape[1]
        for k in range(FOLDS):
            chosen = np.flatnonzero(folds == k)
            part, known = features[chosen], labels[chosen]  # [b_k, M], [b_k]
            target = (known[:, None] == np.arange(num_classes)).astype(np.float32)  # [b_k, K]
            self._products[k] += part.T @ part  # numpy computes one triangle of such a product
            self._targets[k] += part.T @ target
            self._sums[k] += part.sum(axis=0, dtype=np.float64)
            self._counts[k] += np.bincount(known[known >= 0], minlength=num_classes)
            self._rows[k] += len(chosen)

    def solve(self) -> FoldedRidge | None:
        """The models, or None where no feature varies.

        Notes
        -----
        With sums over the rows outside of fold k, and means ``m`` of the features and ``r`` of the targets there:

            W_k = (F^T F - n m m^T + lambda I)^-1 (F^T Y - n m r^T),    b_k = r - m W_k,

        where lambda is `RIDGE` times the mean variance of a feature over all rows. A row's own label is in none of
        these.
        """
        products, targets, sums = self._products.sum(axis=0), self._targets.sum(axis=0), self._sums.sum(axis=0)
        counts, rows = self._counts.sum(axis=0), self._rows.sum()
        penalty = RIDGE * float(np.mean(np.diag(products) - sums**2 / rows)) / rows
        if not penalty > 0.0:
            return None
        weights, offsets = [], []
        for k in range(FOLDS):
            n = rows - self._rows[k]
            m, r = (sums - self._sums[k]) / n, (counts - self._counts[k]) / n  # [M], [K]
            scatter = products - self._products[k]
            scatter -= n * np.outer(m, m)
            scatter[np.diag_indices_from(scatter)] += penalty
            factor = cho_factor(scatter.T, lower=True, overwrite_a=True, check_finite=False)  # .T: LAPACK's order
            weight = cho_solve(factor, targets - self._targets[k] - n * np.outer(m, r), check_finite=False)  # [M, K]
            weights.append(weight.astype(np.float32))
            offsets.append((r - m @ weight).astype(np.float32))
        return FoldedRidge(np.stack(weights), np.stack(offsets))


class FoldedRidge:
    """One linear model a fold.

    Parameters
    ----------
    weights : numpy.ndarray of float32, [folds, M, K]
    offsets : numpy.ndarray of float32, [folds, K]
    """

    def __init__(self, weights: np.ndarray, offsets: np.ndarray) -> None:
        self.weights, self.offsets = weights, offsets

    def predict(self, features: np.ndarray, folds: np.ndarray) -> np.ndarray:
        """Scores of rows by the models that have not seen them.   [b, M], [b] -> [b, K] float32"""
        scores = np.empty((len(features), self.offsets.shape[1]), dtype=np.float32)
        for k in range(len(self.offsets)):
            chosen = np.flatnonzero(folds == k)
            scores[chosen] = features[chosen] @ self.weights[k] + self.offsets[k]
        return scores
