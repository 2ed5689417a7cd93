"""Peak GPU memory of one call: from the allocators' own counters, or by watching the free memory."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from places import Memory

_USED_CURRENT, _USED_HIGH = 7, 8  # CU_MEMPOOL_ATTR_USED_MEM_CURRENT and _HIGH of CUDA's driver
_INTERVAL = 2e-4  # seconds between two looks at the free memory


class DriverPool:
    """Counters of the device's default memory pool, which serves every cudaMallocAsync.

    Raises
    ------
    OSError
        The driver or its pool cannot be reached.
    """

    def __init__(self, device: int, library: Any = None) -> None:
        self._cuda = library or ctypes.CDLL("libcuda.so.1")
        self._pool = ctypes.c_void_p()
        self._require(self._cuda.cuDeviceGetDefaultMemPool(ctypes.byref(self._pool), ctypes.c_int(device)))

    def used(self) -> int:
        """Bytes handed out now."""
        return self._get(_USED_CURRENT)

    def start(self) -> None:
        """Set the high-water mark down."""
        zero = ctypes.c_uint64(0)
        self._require(self._cuda.cuMemPoolSetAttribute(self._pool, _USED_HIGH, ctypes.byref(zero)))

    def high(self) -> int:
        """Most bytes handed out at once since `start`."""
        return self._get(_USED_HIGH)

    def _get(self, attribute: int) -> int:
        value = ctypes.c_uint64(0)
        self._require(self._cuda.cuMemPoolGetAttribute(self._pool, attribute, ctypes.byref(value)))
        return int(value.value)

    def _require(self, status: int) -> None:
        if status != 0:
            raise OSError(f"CUDA's memory pool answers with error {status}")


def release() -> None:
    """Give back what the allocators of torch and CuPy hold for later."""
    torch.cuda.empty_cache()
    pool = cupy_pool()
    if pool is not None:
        pool.free_all_blocks()


def spare() -> int:
    """Bytes that those allocators hold for later."""
    pool = cupy_pool()
    held = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return held + (pool.total_bytes() - pool.used_bytes() if pool is not None else 0)


def cupy_pool() -> Any:
    """CuPy's memory pool; None where CuPy is not loaded, or finds no GPU that it can use."""
    cupy = sys.modules.get("cupy")
    return cupy.get_default_memory_pool() if cupy is not None and cupy.cuda.is_available() else None


@dataclass(frozen=True)
class Used:
    """Bytes in use by torch's allocator, CUDA's default pool and CuPy's pool; None where nobody counts."""

    torch: int
    pool: int | None
    cupy: int


def used_now() -> Used:
    """What is in use before a variant runs for the first time."""
    torch.cuda.synchronize()
    release()
    pool = _driver_pool()
    return Used(torch.cuda.memory_allocated(), pool.used() if pool else None, _cupy_bytes())


def peak_of_call(call: Callable[[], Any], meter: str, before: Used) -> Memory:
    """Run ``call`` once more and tell what it takes beyond what was in use before its first run.

    Parameters
    ----------
    call : callable
    meter : {"allocators", "free memory"}
        "allocators" adds the peaks of torch's allocator, of CUDA's default pool and of CuPy's pool, as
        far as they grew; what a variant keeps from one call to the next counts. "free memory" looks at
        the card's free memory during the call: for libraries with allocators of their own. It misses
        what lives shorter than one look.
    before : Used
        From `used_now`.

    Returns
    -------
    Memory
    """
    torch.cuda.synchronize()
    release()
    pool = _driver_pool()
    if meter == "allocators" and pool is not None and before.pool is not None:
        return _counted(call, pool, before)
    return _watched(call)


def _driver_pool() -> DriverPool | None:
    try:
        return DriverPool(torch.cuda.current_device())
    except (OSError, AttributeError):  # no such library, or one that is older than its pools
        return None


def _cupy_bytes() -> int:
    pool = cupy_pool()
    return int(pool.total_bytes()) if pool is not None else 0


def _counted(call: Callable[[], Any], pool: DriverPool, before: Used) -> Memory:
    torch.cuda.reset_peak_memory_stats()
    pool.start()
    result = call()
    torch.cuda.synchronize()
    # CuPy's pool only grows during a call, so that what it holds at the end is the most that it held.
    peak = Used(torch.cuda.max_memory_allocated(), max(pool.high(), pool.used()), _cupy_bytes())
    del result
    pairs = ((peak.torch, before.torch), (peak.pool or 0, before.pool or 0), (peak.cupy, before.cupy))
    growth = sum(max(0, high - low) for high, low in pairs)
    total = sum(high for high, _ in pairs)
    return Memory(growth, total, "torch's allocator, CUDA's default pool, CuPy's pool")


def _watched(call: Callable[[], Any]) -> Memory:
    free, total = torch.cuda.mem_get_info()
    least, done = [free], threading.Event()

    def watch() -> None:
        while not done.wait(_INTERVAL):
            least[0] = min(least[0], torch.cuda.mem_get_info()[0])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        result = call()
        torch.cuda.synchronize()
        least[0] = min(least[0], torch.cuda.mem_get_info()[0])
    finally:
        done.set()
        watcher.join()
    del result
    return Memory(max(0, free - least[0]), total - least[0], "free memory of the card, sampled")
