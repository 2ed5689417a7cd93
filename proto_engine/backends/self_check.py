"""Whether a backend can be trusted where it runs: small cases against the reference, once in a process and device.

Each part of a GPU backend is checked by itself, at its first use: the tile loops and the scores (`loop_checks`), torch
on a GPU ("torch/cuda"), "numba-cuda". What was found is kept in `outcomes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from ..errors import BackendUnavailable
from .base import Backend
from .device import LOOPS, SCORE_CLUSTER, WITHOUT_LOOPS, loops_left_out
from .gpu_record import capability_text
from .loop_checks import cluster_outcome, left_out_text, loop_outcome, score_outcome, verified_loops
from .outcomes import HOST, outcome
from .small_case import pools_differ, scores_differ

if TYPE_CHECKING:
    from .device_backend import DeviceBackend


def require(backend: Backend, device: int | None) -> None:
    """Nothing where a backend may be used for features on a GPU (None: in host memory).

    Tile loops are checked when they are chosen, and backends of the host by `self_check` alone.

    Raises
    ------
    BackendUnavailable
        It failed its check there.
    """
    reason = _used_outcome(backend, device)
    if reason is not None:
        raise BackendUnavailable(f"backend {backend.name!r} is unavailable: failed its self-check ({reason})")


def why_not_auto(backend: Backend, device: int | None) -> str | None:
    """Why "auto" must not take a backend for features on a GPU; None where it may."""
    if not _has_loops(backend):
        return _used_outcome(backend, device)
    if device is None:
        return "the features are on a device of another kind"
    loops = verified_loops(backend, device, backend._available_loops(device))
    if not loops:
        capability = capability_text(backend.compute_capability(device))
        told = f"no recorded run on a GPU of compute capability {capability} has verified one of its tile loops"
        return told + left_out_text()
    reasons = [loop_outcome(backend, device, loop) for loop in loops]
    reason = score_outcome(backend, device) if None in reasons else reasons[0]
    return None if reason is None else f"failed its self-check ({reason})"


def self_check() -> dict[str, str | None]:
    """Hold every backend against the reference on small problems, where it runs.

    Returns
    -------
    dict of str to str or None
        None for what gives the bits of the reference, else what differed, or why it is unavailable. Backends
        with tile loops have an entry for each ("cuda/mma") and one for their scores ("cuda/score"); "torch/cuda"
        is torch on a GPU. GPUs are represented by the first; others are checked at their first use.

    Notes
    -----
    Each part is checked once in a process, the parts of GPU backends at their first use without being asked.
    """
    from . import backends, get

    found: dict[str, str | None] = {}
    for name, why_not in backends().items():
        if why_not is None:
            found |= _outcomes_of(get(name))
        else:
            found[name] = f"unavailable: {why_not}"
    return found


def _outcomes_of(backend: Backend) -> dict[str, str | None]:
    name = backend.name
    if _has_loops(backend):
        capability, available = capability_text(backend.compute_capability(0)), backend._available_loops(0)
        lacking = dict.fromkeys(
            (*LOOPS, SCORE_CLUSTER), f"unavailable: does not run on compute capability {capability}"
        )
        lacking |= dict.fromkeys(loops_left_out(), f"unavailable: left out by {WITHOUT_LOOPS}")
        found = {f"{name}/{k}": loop_outcome(backend, 0, k) if k in available else lacking[k] for k in LOOPS}
        found[f"{name}/score"] = score_outcome(backend, 0)
        clusters = cluster_outcome(backend, 0) if backend._clusters_can_score(0) else lacking[SCORE_CLUSTER]
        return {**found, f"{name}/{SCORE_CLUSTER}": clusters}
    if name == "numba-cuda":
        slow = "unavailable: numba's simulator takes too long for it"
        return {name: slow if _is_simulated() else _numba_cuda_outcome(backend)}
    found = {name: outcome(name, HOST, lambda: _differs(backend, backend.native))}
    if backend.takes_device_arrays and _torch_has_gpu():
        found[f"{name}/cuda"] = _device_array_outcome(backend, 0)
    return found


def _used_outcome(backend: Backend, device: int | None) -> str | None:
    if backend.name == "numba-cuda":
        return None if _is_simulated() else _numba_cuda_outcome(backend)
    if device is None or _has_loops(backend) or not backend.takes_device_arrays:
        return None
    return _device_array_outcome(backend, device)


def _has_loops(backend: Backend) -> TypeGuard[DeviceBackend]:
    from .device_backend import DeviceBackend

    return isinstance(backend, DeviceBackend)


def _device_array_outcome(backend: Backend, device: int) -> str | None:
    """Of a backend that computes on tensors where they are."""

    def check() -> str | None:
        import torch

        return _differs(backend, lambda x: backend.native(torch.from_numpy(x).to(f"cuda:{device}")))

    return outcome(f"{backend.name}/cuda", device, check)


def _numba_cuda_outcome(backend: Backend) -> str | None:
    from numba import cuda

    return outcome(backend.name, cuda.get_current_device().id, lambda: _differs(backend, backend.native))


def _differs(backend: Backend, native: Callable[[np.ndarray], Any]) -> str | None:
    selects = backend.name != "faiss"
    return scores_differ(backend, native) or (pools_differ(backend, native) if selects else None)


def _is_simulated() -> bool:
    from numba import config

    return bool(config.ENABLE_CUDASIM)


def _torch_has_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()
