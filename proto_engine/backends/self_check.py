"""Whether a backend can be trusted where it runs: small cases against the reference, once in a process and device.

Each part of a GPU backend is checked by itself, at its first use: every tile loop ("cuda/mma"), the scores
("cuda/score"; those of clusters of blocks are "cuda/score-cluster"), torch on a GPU ("torch/cuda"), "numba-cuda". A
part that differs from the reference in a bit, or stops with an error, is unavailable from then on. A tile loop that
no recorded run on such a GPU has verified (`gpu_record`) can be named, but "auto" never takes it; nor do clusters
score before that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from ..errors import BackendUnavailable
from .base import Backend
from .device import LOOPS, SCORE_CLUSTER, WITHOUT_LOOPS, loops_left_out
from .gpu_record import capability_text, verified
from .small_case import ETA_MAX, PICKS, QUANTILE, picks_differ, pools_differ, scores_differ, small_cases

if TYPE_CHECKING:
    from .device_backend import DeviceBackend

HOST = -1  # in the place of a device
_Check = Callable[[], str | None]

_log = logging.getLogger("proto_engine")
_outcomes: dict[tuple[str, int], str | None] = {}
_lock = threading.RLock()
_here = threading.local()  # .part: what this thread is checking right now


def outcome(part: str, device: int, check: _Check) -> str | None:
    """None where a part passes its check on a device, else what was wrong; the first call runs the check."""
    if _being_checked() is not None:
        return None  # the check itself computes
    with _lock:
        if (part, device) in _outcomes:
            return _outcomes[part, device]
        try:
            with trusting(part):
                found = check()
        except MemoryError as error:  # of others, perhaps: the next call tries again
            return f"there was no memory for its self-check ({error})"
        except Exception as error:
            found = f"{type(error).__name__}: {' '.join(str(error).split())}"
        _outcomes[part, device] = found
        if found is not None:
            where = "the host" if device == HOST else f"device {device}"
            _log.warning("%s failed its self-check on %s and is not used: %s", part, where, found)
        return found


@contextmanager
def trusting(part: str) -> Iterator[None]:
    """Inside, this thread computes with a part such as "cuda/mma" without a check: it is being checked."""
    before = _being_checked()
    _here.part = part
    try:
        yield
    finally:
        _here.part = before


def _being_checked() -> str | None:
    return getattr(_here, "part", None)


# ---- backends with tile loops ------------------------------------------------------------------------------------


def choose_loop(backend: DeviceBackend, device: int, wanted: str | None, available: list[str]) -> str:
    """The tile loop to use on a device.

    Parameters
    ----------
    backend : DeviceBackend
    device : int
    wanted : str or None
        The loop that was named. By default the fastest that is verified and passes its check, or the plainest.
    available : list of str
        Loops that can run there, the slowest first.

    Raises
    ------
    BackendUnavailable
        The named loop cannot run there or failed its check, or no loop is left.
    """
    checked = (_being_checked() or "").removeprefix(f"{backend.name}/")
    if checked in available:
        return checked
    if not available:
        raise BackendUnavailable(
            f"backend {backend.name!r} is unavailable: device {device} runs none of its loops{_left_out()}"
        )
    if wanted is not None and wanted not in available:
        raise BackendUnavailable(
            f"loop: wanted one of {', '.join(map(repr, available))} on device {device}, got {wanted!r}{_left_out()}"
        )
    names = [wanted] if wanted else [*_verified_loops(backend, device, available), available[0]]
    reasons = {}
    for loop in dict.fromkeys(names):
        reasons[loop] = loop_outcome(backend, device, loop)
        if reasons[loop] is None:
            return loop
    failed = "; ".join(f"{loop}: {reason}" for loop, reason in reasons.items())
    raise BackendUnavailable(f"backend {backend.name!r} is unavailable: failed its self-check ({failed})")


def loop_outcome(backend: DeviceBackend, device: int, loop: str) -> str | None:
    """None where a tile loop passes on a device, else what was wrong."""
    return outcome(f"{backend.name}/{loop}", device, lambda: _loop_differs(backend, device))


def require_scores(backend: DeviceBackend, device: int) -> None:
    """Nothing where the scores of a backend pass on a device.

    Raises
    ------
    BackendUnavailable
        They do not.
    """
    reason = score_outcome(backend, device)
    if reason is not None:
        raise BackendUnavailable(f"backend {backend.name!r} cannot score: failed its self-check ({reason})")


def score_outcome(backend: DeviceBackend, device: int) -> str | None:
    """None where the scores pass on a device, else what was wrong."""
    part = f"{backend.name}/score"
    return outcome(part, device, lambda: scores_differ(backend, lambda x: backend.copied(x, device)))


def clusters_score(backend: DeviceBackend, device: int, wanted: bool | None) -> bool:
    """Whether clusters of blocks find the best two classes on a device.

    Parameters
    ----------
    backend : DeviceBackend
    device : int
    wanted : bool or None
        What was asked for. By default they do where a recorded run has verified them and they pass their check.

    Raises
    ------
    BackendUnavailable
        They were asked for, and cannot or failed their check.
    """
    part = f"{backend.name}/{SCORE_CLUSTER}"
    if _being_checked() is not None:
        return _being_checked() == part
    if wanted is False or (wanted is None and part not in verified(backend.compute_capability(device))):
        return False
    reason = cluster_outcome(backend, device)
    if wanted and reason is not None:
        raise BackendUnavailable(f"backend {backend.name!r} cannot score in clusters: {reason}")
    return reason is None


def cluster_outcome(backend: DeviceBackend, device: int) -> str | None:
    """None where the scores of clusters pass on a device, else what was wrong."""
    if not backend._clusters_can_score(device):
        return f"device {device} does not run them{_left_out()}"
    part = f"{backend.name}/{SCORE_CLUSTER}"
    return outcome(part, device, lambda: scores_differ(backend, lambda x: backend.copied(x, device)))


def _loop_differs(backend: DeviceBackend, device: int) -> str | None:
    for case in small_cases():
        rows = backend.copied(case.rows, device)
        picks = backend.pick_ragged(rows, backend.squared_norms(rows), case.sizes, PICKS, QUANTILE, ETA_MAX)
        if difference := picks_differ(case, picks):
            return difference
    return pools_differ(backend, lambda x: backend.copied(x, device))


def _verified_loops(backend: DeviceBackend, device: int, available: list[str]) -> list[str]:
    """Those that a recorded run has verified on such a GPU, the fastest first."""
    known = verified(backend.compute_capability(device))
    return [loop for loop in reversed(available) if f"{backend.name}/{loop}" in known]


# ---- all backends ------------------------------------------------------------------------------------------------


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


def _left_out() -> str:
    """What a message adds where tile loops are left out by the environment."""
    found = loops_left_out()
    return f" ({WITHOUT_LOOPS} leaves out {', '.join(sorted(found))})" if found else ""


def why_not_auto(backend: Backend, device: int | None) -> str | None:
    """Why "auto" must not take a backend for features on a GPU; None where it may."""
    if not _has_loops(backend):
        return _used_outcome(backend, device)
    if device is None:
        return "the features are on a device of another kind"
    loops = _verified_loops(backend, device, backend._available_loops(device))
    if not loops:
        capability = capability_text(backend.compute_capability(device))
        told = f"no recorded run on a GPU of compute capability {capability} has verified one of its tile loops"
        return told + _left_out()
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
