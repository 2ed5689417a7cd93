"""Where a benchmark runs: on the host here, on a GPU in `gpu`. Empties caches, times a call, tells the memory."""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from children import memory_in_child
from machine import CacheFlush, available_bytes, device_name, l3_bytes, thread_limit
from rows import OUT_OF_MEMORY

if TYPE_CHECKING:
    from parts import Bench, Case, Variant

_HOST_REPEATS = 7


class DeviceLost(Exception):
    """A variant has left the device unusable for this process: nothing more can be measured in it."""


class Clocks(NamedTuple):
    """Seconds of one call, on the wall and between two events of the GPU (None on the host)."""

    wall: float
    events: float | None = None


@dataclass(frozen=True)
class Memory:
    """What a call took beyond its inputs, and the most that was in use; None where it cannot be told."""

    growth: int | None
    peak: int | None
    source: str


class Place(ABC):
    """What the harness asks of the place that it runs on."""

    name: str  # of --device

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What every row says of the device."""

    @abstractmethod
    def available_bytes(self) -> int | None:
        """Memory that could be had now; None where the system does not tell."""

    @abstractmethod
    def flush(self) -> None:
        """Empty the caches."""

    @abstractmethod
    def settings(self, variant: Variant) -> AbstractContextManager[None]:
        """What must hold while a variant runs."""

    @abstractmethod
    def clock(self, call: Callable[[], Any], *, ends_on_host: bool) -> Clocks:
        """Time one call."""

    @abstractmethod
    def enough(self, times: Sequence[float], repeats: int | None) -> bool:
        """Whether these are timed calls enough; ``repeats`` is what the command line asks for."""

    @abstractmethod
    def recover(self) -> None:
        """Free what a variant that failed has left behind."""

    def memory_before(self, bench: Bench, case: Case, variants: Sequence[Variant], folder: Path) -> dict[str, Any]:
        """By key, `Memory` or "out of memory": where it is measured before there are inputs."""
        return {}

    def memory_mark(self) -> Any:
        """What is in use now, before a variant runs for the first time."""
        return None

    def memory_of(self, variant: Variant, inputs: Any, mark: Any) -> Memory | None:
        """Where it is measured by one more call on the inputs."""
        return None


class Host(Place):
    """The processors of this machine."""

    name = "cpu"

    def __init__(self) -> None:
        self._caches: CacheFlush | None = None

    def about(self) -> dict[str, Any]:
        return {"on": self.name, "device": device_name(), "driver": None, "l3_bytes": l3_bytes()}

    def available_bytes(self) -> int | None:
        return available_bytes()

    def flush(self) -> None:
        gc.collect()
        self._caches = self._caches or CacheFlush()
        self._caches()

    def settings(self, variant: Variant) -> AbstractContextManager[None]:
        return thread_limit(variant.threads)

    def clock(self, call: Callable[[], Any], *, ends_on_host: bool) -> Clocks:
        start = time.perf_counter()
        result = call()
        wall = time.perf_counter() - start
        del result
        return Clocks(wall)

    def enough(self, times: Sequence[float], repeats: int | None) -> bool:
        return len(times) >= (repeats or _HOST_REPEATS)

    def recover(self) -> None:
        gc.collect()

    def memory_before(self, bench: Bench, case: Case, variants: Sequence[Variant], folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for v in variants:
            answer = memory_in_child(bench, case, v, folder)
            growth, peak = answer if isinstance(answer, (list, tuple)) else (None, None)
            found[v.key] = answer if answer == OUT_OF_MEMORY else Memory(growth, peak, "resident set")
        return found
