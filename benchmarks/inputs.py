"""Random data that looks like what a network puts out: a direction of the class, noise, no negatives."""

from __future__ import annotations

import numpy as np


def class_means(rng: np.random.Generator, num_classes: int, dim: int) -> np.ndarray:
    """A direction for each class.   [C, D] float32"""
    return rng.standard_normal((num_classes, dim), dtype=np.float32)


def relu_rows(rng: np.random.Generator, means: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean of each row's class plus noise of the same size, the positive part.   [n, D] float32"""
    rows = rng.standard_normal((len(labels), means.shape[1]), dtype=np.float32)
    rows += means[labels]
    return np.maximum(rows, 0.0, out=rows)
