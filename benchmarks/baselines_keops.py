"""Density and eta by KeOps, whose reductions never store the matrix.   x [m, D]

KeOps has no order statistic, so the cutoff is closed in on by counting what lies above a threshold.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from checks import Selected, rank_of
from pykeops.torch import LazyTensor

_STEPS = 26  # from the interval [-1, 1] down to the spacing of float32


def density(x: torch.Tensor) -> Selected:
    unit = F.normalize(x.float())
    s = _similarities(unit)
    m, rank = len(x), rank_of(len(x))
    low, high = -1.0 - 1e-5, 1.0 + 1e-5
    for _ in range(_STEPS):
        middle = (low + high) / 2
        below = m * m - int(_above(s, middle).sum())
        low, high = (middle, high) if below <= rank else (low, middle)
    cutoff = (low + high) / 2
    return Selected(cutoff, (2 * _above(s, cutoff) - m).cpu().numpy())


def eta(x: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
    unit, density = F.normalize(x.float()), rho.float()[:, None]  # exact below 2**24
    s = _similarities(unit)
    of, other = LazyTensor(density[:, None, :].contiguous()), LazyTensor(density[None, :, :].contiguous())
    hidden = (of - other).ifelse(4.0, 0.0)  # where the other row is not denser
    best = (s - hidden).max(dim=1).view(-1)
    return torch.where(rho == rho.max(), s.min(dim=1).view(-1), best)


def _similarities(unit: torch.Tensor) -> LazyTensor:
    return (LazyTensor(unit[:, None, :]) * LazyTensor(unit[None, :, :])).sum(-1)


def _above(s: LazyTensor, threshold: float) -> torch.Tensor:
    """Entries of each row above the threshold.   [m] int64"""
    return (s - threshold).step().sum(dim=1).view(-1).long()
