"""Small problems that several test files share."""

from __future__ import annotations

import warnings

import numpy as np

import proto_engine as pe


def clustered(n: int, d: int, num_classes: int, seed: int = 0, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Features around one direction a class, and labels of which a share is wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, n)
    centers = rng.standard_normal((num_classes, d)) * 2
    x = (centers[truth] + rng.standard_normal((n, d))).astype(np.float32)
    labels = np.where(rng.random(n) < noise, rng.integers(0, num_classes, n), truth)
    return x, labels


def select(x, y, **options) -> pe.Prototypes:
    """select_prototypes without its warnings about collapsed classes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return pe.select_prototypes(x, y, **options)


def has_gpu() -> bool:
    """Whether tests marked gpu can run."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()
