"""What `select_prototypes` makes of its arguments: how many prototypes a class gets, and from which rows."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from typing import Any

import numpy as np

from .arrays import to_numpy
from .ops import check_count

METHODS = ("density-peaks", "density-contrast", "kmeans++", "density-peaks-euclidean")
DENSITY_METHODS = METHODS[:2]
_MOST_PROTOTYPES = 2**24  # of each class: there is room for so many, whether or not they are found


def check_prototypes(value: Any, method: str) -> int | float | str:
    """p, or a share of the rows of each class, or "auto"."""
    if isinstance(value, str):
        if value != "auto":
            raise ValueError(f"prototypes_per_class: wanted a whole number, a share or 'auto', got {value!r}")
        _check_takes_shares(method, repr(value))
        return value
    if isinstance(value, bool) or not isinstance(value, (float, np.floating)):
        return check_count(value, "prototypes_per_class", most=_MOST_PROTOTYPES)
    if not 0.0 < value <= 1.0:
        raise ValueError(
            f"prototypes_per_class: wanted a whole number, or a share above 0 and up to 1 as a float, got {value}"
        )
    _check_takes_shares(method, f"the share {value}")
    return float(value)


def _check_takes_shares(method: str, given: str) -> None:
    if method not in DENSITY_METHODS:
        raise ValueError(f"prototypes_per_class: wanted a whole number for method {method!r}, got {given}")


def number_of(amount: Any, num_rows: int) -> int:
    """Prototypes of a class of that many rows. A share is taken as it is written: 0.07 of 100 rows are 7."""
    return amount if isinstance(amount, int) else math.ceil(Fraction(repr(amount)) * num_rows)


def candidate_mask(candidates: Any, labels: np.ndarray, num_classes: int, good: np.ndarray) -> np.ndarray | None:
    """Rows that may become prototypes, bool [N], or None for all."""
    if candidates is None:
        return None
    array = to_numpy(candidates, "candidates")
    if array.ndim != 1:
        raise ValueError(f"candidates: wanted one dimension, got shape {array.shape}")
    if array.dtype == bool:
        if len(array) != len(labels):
            raise ValueError(f"candidates: wanted a mask of {len(labels)} entries, got {len(array)}")
        mask = array.copy()
    elif array.dtype.kind in "iu" or array.size == 0:
        if array.size and (array.min() < 0 or array.max() >= len(labels)):
            raise ValueError(f"candidates: wanted rows 0 to {len(labels) - 1}, got {array.min()} to {array.max()}")
        mask = np.zeros(len(labels), dtype=bool)
        mask[array.astype(np.int64)] = True
    else:
        raise TypeError(f"candidates: wanted row numbers or a bool mask, got {array.dtype}")
    mask &= good
    present = np.bincount(labels[good], minlength=num_classes) > 0
    without = np.flatnonzero(present & (np.bincount(labels[mask], minlength=num_classes) == 0))
    if len(without):
        mask |= np.isin(labels, without) & good
        warnings.warn(
            f"candidates: classes {without.tolist()} have none; all their rows may become prototypes",
            stacklevel=3,
        )
    return mask
