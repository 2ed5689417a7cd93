"""Benchmarks on one NVIDIA GPU, through torch: its events, its second-level cache, its name and driver."""

from __future__ import annotations

import gc
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gpu_memory import Used, peak_of_call, release, spare, used_now
from places import Clocks, DeviceLost, Memory, Place

if TYPE_CHECKING:
    from parts import Variant

_DEFAULT_L2_BYTES = 64 * 2**20
_DRIVER = Path("/sys/module/nvidia/version")
_DRIVER_TOLD = Path("/proc/driver/nvidia/version")  # "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15 ..."
_MOST_CALLS = 50
_SPARE_SHARE = 0.4  # of the card, that allocators may hold for later while others are timed


def unavailable() -> str | None:
    """Why there is no GPU to measure on; None where there is one."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    if not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU (none is there, or no driver that fits)"
    return None


class Gpu(Place):
    """The current CUDA device.

    Parameters
    ----------
    seconds : float
        Of timed calls that are enough of a variant, once there are five of them.
    """

    name = "cuda"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.device = torch.device("cuda", torch.cuda.current_device())
        self._properties = torch.cuda.get_device_properties(self.device)
        self.l2_bytes = int(getattr(self._properties, "L2_cache_size", 0)) or _DEFAULT_L2_BYTES
        self._buffer = torch.zeros(2 * self.l2_bytes // 4, dtype=torch.int32, device=self.device)
        torch.backends.cuda.matmul.allow_tf32 = False  # products of float32 are float32, whatever the default

    def about(self) -> dict[str, Any]:
        return {
            "on": self.name,
            "device": self._properties.name,
            "driver": driver_version(),
            "cuda": torch.version.cuda,
            "capability": f"{self._properties.major}.{self._properties.minor}",
            "memory_bytes": self._properties.total_memory,
            "l2_bytes": self.l2_bytes,
        }

    def available_bytes(self) -> int | None:
        release()
        return int(torch.cuda.mem_get_info(self.device)[0])

    def flush(self) -> None:
        """Write a buffer of twice the second-level cache; give back memory that others may need."""
        if spare() > _SPARE_SHARE * self._properties.total_memory:
            release()
        self._buffer.add_(1)

    def settings(self, variant: Variant) -> AbstractContextManager[None]:
        return nullcontext()

    def clock(self, call: Callable[[], Any], *, ends_on_host: bool) -> Clocks:
        """Seconds between two events around the call, and on the wall until the GPU is done.

        A call that ends with host data starts on an idle GPU, as it does for its caller. Any other is put
        behind the flush while that still runs, so that the events leave out what the launch takes.
        """
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        if ends_on_host:
            torch.cuda.synchronize(self.device)
        began = time.perf_counter()
        start.record()
        result = call()
        end.record()
        torch.cuda.synchronize(self.device)
        wall = time.perf_counter() - began
        del result
        return Clocks(wall, start.elapsed_time(end) / 1e3)

    def enough(self, times: Sequence[float], repeats: int | None) -> bool:
        """Fifty calls, or fewer of a slow variant: five that fill its time, three or two that far exceed it."""
        number, total = len(times), sum(times) / self._seconds
        if repeats is not None:
            return number >= repeats
        return number >= _MOST_CALLS or any(number >= n and total >= t for n, t in ((5, 1), (3, 5), (2, 25)))

    def recover(self) -> None:
        gc.collect()
        try:
            torch.cuda.synchronize(self.device)
            release()
        except Exception as error:
            raise DeviceLost(f"the GPU answers no more in this process ({str(error).splitlines()[0]})") from error

    def memory_mark(self) -> Used:
        gc.collect()
        return used_now()

    def memory_of(self, variant: Variant, inputs: Any, mark: Used) -> Memory:
        gc.collect()
        return peak_of_call(lambda: variant.call(inputs), variant.meter, mark)


def driver_version() -> str | None:
    """The driver's version, such as "570.86.15"; None where the system does not tell."""
    try:
        return _DRIVER.read_text().strip()
    except OSError:
        pass
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        told = _DRIVER_TOLD.read_text() if _DRIVER_TOLD.exists() else ""
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", told)
    return found.group() if found else None
