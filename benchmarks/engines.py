"""Our backends as a benchmark runs them: by the public functions, each with rows in the array type it takes."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from proto_engine import ops
from proto_engine.array_kinds import to_numpy
from proto_engine.backends import _KNOWN
from proto_engine.bank_formats import BFLOAT16

HOST = ("cpu", "numba")
GPU = ("cuda", "cupy", "numba-cuda", "torch")
LOOPS = ("simt", "mma", "wgmma", "wgmma-cluster")  # tile loops of "cuda"
# Rows of a class beyond which one would keep all others waiting: "numba-cuda" is there to be read, "torch" looks up
# what float32 leaves open through gathers, and "simt" multiplies without tensor cores.
MOST_ROWS = {"numba-cuda": 8192, "torch": 32768, "cuda simt": 131072}
_said: set[str] = set()


def _as_is(rows: Any) -> Any:
    return rows


def _to_torch(rows: Any) -> Any:
    """A NumPy array as a tensor over the same memory."""
    import torch

    return torch.from_numpy(rows)


def _to_cupy(rows: Any) -> Any:
    """A tensor as a CuPy array over the same memory."""
    import cupy
    import torch

    if rows.dtype == torch.bfloat16:  # not every CuPy knows how DLPack names it
        return cupy.from_dlpack(rows.view(torch.int16)).view(BFLOAT16)
    return cupy.from_dlpack(rows)


@dataclass(frozen=True)
class Engine:
    """A backend, or one of its tile loops.

    Attributes
    ----------
    name : str
        Of the variant: "cuda", "cuda mma".
    backend : str
        For the public functions.
    give : callable
        Rows as a tensor to rows as the backend takes them.
    instance : Backend, optional
        Stands in for the backend of that name.
    """

    name: str
    backend: str
    give: Callable[[Any], Any] = _as_is
    instance: Any = None

    @property
    def meter(self) -> str:
        """How its GPU memory is measured."""
        return "free memory" if self.backend in ("numba-cuda", "faiss") else "allocators"

    def call(self, function: Callable[..., Any], rows: Any, *more: Any, **options: Any) -> Any:
        """A public function of rows with this backend."""
        with standing_in(self.instance):
            return function(self.give(rows), *more, backend=self.backend, **options)


@contextmanager
def standing_in(instance: Any) -> Iterator[None]:
    """Public functions use this backend, whichever they are asked for: for those that only have a class."""
    if instance is None:
        yield
        return
    choose = ops.choose
    ops.choose = lambda name, **_: instance
    try:
        yield
    finally:
        ops.choose = choose


def host_engines(names: Sequence[str] = HOST) -> list[Engine]:
    """The backends of the host that can run here."""
    found = []
    for name in names:
        reason = why_not(name)
        if reason is None:
            found.append(Engine(name, name, _to_torch if name == "torch" else _as_is))
        else:
            left_out(name, reason)
    return found


def why_not(name: str) -> str | None:
    """Why the backend of that name cannot run here; asks about no other, since some import a lot to find out."""
    if name not in _KNOWN:
        return "no backend has that name"
    return _KNOWN[name][0]()


def fits(engine: Engine, m: int) -> bool:
    """Whether a class of m rows is not too much for it."""
    return m <= MOST_ROWS.get(engine.name, m)


@functools.cache
def gpu_engines(device: Any, names: tuple[str, ...] = (*GPU, "faiss")) -> tuple[Engine, ...]:
    """The backends that take features on this device, and the tile loops; a line about each that is left out."""
    found = []
    for name in names:
        engine = _probe(name, device, None)
        if engine is not None:
            found.append(engine)
        if name == "cuda":
            found += [loop for loop in (_loop(which, device) for which in LOOPS) if loop is not None]
    return tuple(found)


@functools.cache
def score_kernels(device: Any) -> tuple[Engine, ...]:
    """The two ways in which "cuda" finds the best two classes: single blocks, and clusters of them."""
    found = (_made(f"cuda {name}", device, clusters=name == "clusters") for name in ("blocks", "clusters"))
    return tuple(engine for engine in found if engine is not None)


def _loop(which: str, device: Any) -> Engine | None:
    return _made(f"cuda {which}", device, loop=which)


def _made(name: str, device: Any, **options: Any) -> Engine | None:
    """The backend "cuda" with these options, where it can have them."""
    number = device.index or 0
    try:
        from proto_engine.backends.cuda import CudaBackend

        instance = CudaBackend(**options)
        runs, clusters = instance._available_loops(number), instance._clusters_can_score(number)
    except Exception as error:
        left_out(name, error)
        return None
    if options.get("loop", runs[0] if runs else None) not in runs:
        left_out(name, f"the tile loops to run here are {', '.join(runs) or 'none'}")
        return None
    if options.get("clusters") and not clusters:
        left_out(name, "there are no clusters of blocks for scores")
        return None
    return _probe("cuda", device, instance, name)


def _probe(backend: str, device: Any, instance: Any, name: str | None = None) -> Engine | None:
    """The engine with the first of the array types that its backend takes, tried on a few rows."""
    import torch

    name = name or backend
    reason = why_not(backend)
    if reason is not None:
        left_out(name, reason)
        return None
    rows = torch.arange(1.0, 65.0, device=device).view(8, 8)
    ways: list[Callable[[Any], Any]] = [_as_is]
    if backend == "numba-cuda":
        ways = [_as_is, to_numpy]  # it copies from host memory
    elif rows.is_cuda:
        ways = [_to_cupy, _as_is] if backend == "cupy" else [_as_is, _to_cupy]
    first: Exception | None = None
    for give in ways:
        engine = Engine(name, backend, give, instance)
        try:
            engine.call(ops.normalize, rows)
        except Exception as error:
            first = first or error
            continue
        return engine
    left_out(name, first)
    return None


def installed(module: str, name: str) -> bool:
    """Whether the module that a baseline needs is there; a line, said once, where it is not."""
    if importlib.util.find_spec(module) is not None:
        return True
    left_out(name, f"the module {module} is not installed")
    return False


def left_out(name: str, why: Any) -> None:
    """Say once that a variant is left out."""
    text = str(why).strip().splitlines()
    line = f"{name} left out: {text[0] if text else type(why).__name__}"
    if line not in _said:
        _said.add(line)
        print(line, file=sys.stderr, flush=True)
