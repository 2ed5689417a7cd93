"""The backends by name, why one cannot run here, and the choice that ``backend="auto"`` makes."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable
from typing import Any

from ..errors import BackendUnavailable
from .base import Backend, Pool, error_bound, usable
from .self_check import require, self_check, why_not_auto

__all__ = ["Backend", "Pool", "backends", "choose", "error_bound", "get", "self_check", "usable"]

_log = logging.getLogger("proto_engine")
_said: set[str] = set()


def _cpu_reason() -> str | None:
    from . import cpu

    return cpu.unavailable


def _module_reason(module: str) -> Callable[[], str | None]:
    def reason() -> str | None:
        return None if importlib.util.find_spec(module) else f"the module {module} is not installed"

    return reason


def _asked(module: str) -> Callable[[], str | None]:
    """The reason that a backend's own module gives; it may look for a GPU."""

    def reason() -> str | None:
        return importlib.import_module(f".{module}", __name__).unavailable_reason()

    return reason


def _make(module: str, name: str) -> Callable[[], Backend]:
    """The backend of that class; what it needs is imported only now."""
    return lambda: getattr(importlib.import_module(f".{module}", __name__), name)()


_KNOWN: dict[str, tuple[Callable[[], str | None], Callable[[], Backend]]] = {
    "cpu": (_cpu_reason, _make("cpu", "CpuBackend")),
    "numba": (_module_reason("numba"), _make("numba", "NumbaBackend")),
    "torch": (_module_reason("torch"), _make("torch", "TorchBackend")),
    "faiss": (_module_reason("faiss"), _make("faiss", "FaissBackend")),
    "cuda": (_asked("cuda"), _make("cuda", "CudaBackend")),
    "cupy": (_asked("cupy"), _make("cupy", "CupyBackend")),
    "numba-cuda": (_asked("numba_cuda"), _make("numba_cuda", "NumbaCudaBackend")),
    "reference": (lambda: None, _make("reference", "ReferenceBackend")),
}
_AUTO_ON_GPU = ("cuda", "cupy", "torch")  # fastest first
_AUTO_ON_HOST = ("cpu", "numba", "torch", "reference")  # fastest first; the last always runs


def backends() -> dict[str, str | None]:
    """The backends by name: None where one can run here, else the reason why not.

    Returns
    -------
    dict of str to str or None
    """
    return {name: reason() for name, (reason, _) in _KNOWN.items()}


def get(name: str) -> Backend:
    """The backend of that name.

    Raises
    ------
    ValueError
        No backend is called so.
    BackendUnavailable
        It cannot run here; the message says why. Another one is never used in its place.
    """
    if name not in _KNOWN:
        raise ValueError(f"backend: wanted 'auto' or one of {', '.join(map(repr, _KNOWN))}, got {name!r}")
    reason, make = _KNOWN[name]
    why_not = reason()
    if why_not is not None:
        raise BackendUnavailable(f"backend {name!r} is unavailable: {why_not}")
    return make()


def choose(name: str, *, on_cpu: bool, device: Any = None) -> Backend:
    """`get`, or for "auto" the fastest backend for data in host memory or on a GPU; said once in the log.

    ``device`` says which GPU: its number, or a torch.device. A backend that gives wrong answers there is
    unavailable, see `self_check`.
    """
    number = None if on_cpu else _gpu_number(device)
    if name != "auto":
        named = get(name)
        require(named, number)
        return named
    if not on_cpu:
        return _choose_on_gpu(number)
    for candidate in _AUTO_ON_HOST:
        why_not = _KNOWN[candidate][0]()
        if why_not is None:
            _say(f"backend 'auto' chose {candidate!r}: the fastest that runs on the host here")
            return get(candidate)
        _say(f"backend {candidate!r} passed over: {why_not}")
    raise AssertionError("the reference backend always runs")


def _choose_on_gpu(number: int | None) -> Backend:
    reasons = []
    for candidate in _AUTO_ON_GPU:
        why_not = _KNOWN[candidate][0]()
        if why_not is None:
            backend = get(candidate)
            why_not = why_not_auto(backend, number)
            if why_not is None:
                _say(f"backend 'auto' chose {candidate!r}: the fastest to be trusted with features on this GPU")
                return backend
        reasons.append(f"{candidate!r}: {why_not}")
        _say(f"backend {candidate!r} passed over: {why_not}")
    raise BackendUnavailable(f"backend 'auto' found none for features on a GPU ({'; '.join(reasons)})")


def _gpu_number(device: Any) -> int | None:
    """The number of an NVIDIA GPU; None for a device of another kind."""
    if device is None or isinstance(device, int):
        return device or 0
    return (device.index or 0) if device.type == "cuda" else None


def _say(message: str) -> None:
    if message not in _said:
        _said.add(message)
        _log.info(message)
