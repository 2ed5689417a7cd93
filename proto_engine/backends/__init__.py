"""The backends by name, why one cannot run here, and the choice that ``backend="auto"`` makes."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable

from ..errors import BackendUnavailable
from .base import Backend, Pool, error_bound, usable

__all__ = ["Backend", "Pool", "backends", "choose", "error_bound", "get", "usable"]

_log = logging.getLogger("proto_engine")
_said: set[str] = set()


def _cpu_reason() -> str | None:
    from . import cpu

    return cpu.unavailable


def _cuda_reason() -> str | None:
    try:
        from .. import _core
    except ImportError as error:
        return f"the native module was not built: {error}"
    if _core.cuda_architectures is None:
        return "the package was built without CUDA (nvcc was not found, or PROTO_ENGINE_CUDA=0)"
    return f"compiled for {_core.cuda_architectures}, but only normalize has a CUDA kernel so far"


def _module_reason(module: str) -> Callable[[], str | None]:
    def reason() -> str | None:
        return None if importlib.util.find_spec(module) else f"the module {module} is not installed"

    return reason


def _make_cpu() -> Backend:
    from .cpu import CpuBackend

    return CpuBackend()


def _make_numba() -> Backend:
    from .numba import NumbaBackend

    return NumbaBackend()


def _make_torch() -> Backend:
    from .torch import TorchBackend

    return TorchBackend()


def _make_reference() -> Backend:
    from .reference import ReferenceBackend

    return ReferenceBackend()


def _make_faiss() -> Backend:
    from .faiss import FaissBackend

    return FaissBackend()


def _make_cuda() -> Backend:
    raise BackendUnavailable(str(_cuda_reason()))


_KNOWN: dict[str, tuple[Callable[[], str | None], Callable[[], Backend]]] = {
    "cpu": (_cpu_reason, _make_cpu),
    "numba": (_module_reason("numba"), _make_numba),
    "torch": (_module_reason("torch"), _make_torch),
    "faiss": (_module_reason("faiss"), _make_faiss),
    "cuda": (_cuda_reason, _make_cuda),
    "reference": (lambda: None, _make_reference),
}
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


def choose(name: str, *, on_cpu: bool) -> Backend:
    """`get`, or for "auto" the fastest backend for data in host memory or on a GPU; said once in the log."""
    if name != "auto":
        return get(name)
    if not on_cpu:
        return _announce("torch", "the features are on a GPU")
    for candidate in _AUTO_ON_HOST:
        why_not = _KNOWN[candidate][0]()
        if why_not is None:
            return _announce(candidate, "the fastest that runs on the host here")
        _say(f"backend {candidate!r} passed over: {why_not}")
    raise AssertionError("the reference backend always runs")


def _announce(name: str, why: str) -> Backend:
    _say(f"backend 'auto' chose {name!r}: {why}")
    return get(name)


def _say(message: str) -> None:
    if message not in _said:
        _said.add(message)
        _log.info(message)
