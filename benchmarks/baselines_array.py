"""The dense method in NumPy, and word for word in CuPy: ``xp`` is the module.   x [m, D]"""

from __future__ import annotations

from typing import Any

import numpy as np
from checks import ETA_MAX, NUM_PROTOTYPES, Selected, rank_of


def similarity(xp: Any, x: Any) -> Any:
    unit = x / xp.linalg.norm(x, axis=1, keepdims=True)
    return unit @ unit.T  # [m, m]


def cutoff(xp: Any, x: Any) -> Selected:
    return Selected(_cutoff(xp, similarity(xp, x)))


def density(xp: Any, x: Any) -> Selected:
    s = similarity(xp, x)
    found = _cutoff(xp, s)
    return Selected(found, _host(_density(xp, s, found)))


def select(xp: Any, x: Any) -> Selected:
    s = similarity(xp, x)
    found = _cutoff(xp, s)
    rho = _density(xp, s, found)
    order = xp.argsort(-rho, kind="stable")
    passed = _eta(xp, s, rho)[order] < ETA_MAX
    passed[0] = True
    return Selected(found, _host(rho), _host(order[passed][:NUM_PROTOTYPES]))


def eta(xp: Any, x: Any, rho: Any) -> Any:
    return _eta(xp, similarity(xp, x), xp.asarray(rho))


def _cutoff(xp: Any, s: Any) -> float:
    rank = rank_of(len(s))
    return float(xp.partition(s.ravel(), rank)[rank])


def _density(xp: Any, s: Any, cutoff: float) -> Any:
    return xp.sign(s - np.float32(cutoff)).sum(axis=1).astype(np.int64)  # [m]


def _eta(xp: Any, s: Any, rho: Any) -> Any:
    eta = xp.where(rho[None, :] > rho[:, None], s, np.float32(-np.inf)).max(axis=1)
    return xp.where(rho == rho.max(), s.min(axis=1), eta)  # [m]


def _host(array: Any) -> np.ndarray:
    return np.asarray(array.get() if hasattr(array, "get") else array)
