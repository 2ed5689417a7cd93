"""What a result is, and how far it may be from the right one. `truth` tells what is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from parts import CheckFailed

from proto_engine.backends import error_bound

QUANTILE = 0.6
ETA_MAX = 0.95
NUM_PROTOTYPES = 8


@dataclass(frozen=True)
class Selected:
    """Outcome of a selection in one class."""

    cutoff: float
    rho: np.ndarray | None = None  # [m] int64; None where the variant keeps it to itself
    picks: np.ndarray | None = None  # [p] rows; None where the variant does not pick


def rank_of(m: int) -> int:
    """Index of the cutoff among all m * m similarities in ascending order."""
    return int(np.floor(QUANTILE * (m * m - 1)))


def tolerance(dim: int) -> float:
    """How far a similarity of a float32 pipeline can be from the float64 one.

    One `error_bound` for the product of unit rows, one for norms that were summed in float32 as well.
    """
    return 2.0 * error_bound(dim)


def rounding64(dim: int) -> float:
    """How far two float64 sums for one similarity can be apart: each is within (D + 8) u of the truth."""
    return 2.0 * (dim + 8) * 2.0**-53


def require(condition: bool, message: str) -> None:
    """Raise `CheckFailed` unless the condition holds."""
    if not condition:
        raise CheckFailed(message)
