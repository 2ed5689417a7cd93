"""Peak GPU memory of one call: from the allocators' own counters, or by watching the free memory."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
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

    def start(self) -> int:
        """Set the high-water mark down to the present use, and return that."""
        zero = ctypes.c_uint64(0)
        self._require(self._cuda.cuMemPoolSetAttribute(self._pool, _USED_HIGH, ctypes.byref(zero)))
        return self.used()

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


def peak_of_call(call: Callable[[], Any], meter: str) -> Memory:
    """Run ``call`` once more and tell what it took.

    Parameters
    ----------
    call : callable
    meter : {"allocators", "free memory"}
        "allocators" adds the peaks of torch's allocator, of CUDA's default pool and of CuPy's pool, as
        far as they grew. "free memory" looks at the card's free memory all the while: for libraries with
        allocators of their own. It misses what lives shorter than one look.

    Returns
    -------
    Memory
    """
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    if meter == "allocators":
        try:
            pool = DriverPool(torch.cuda.current_device())
        except (OSError, AttributeError):  # no such library, or one that is older than its pools
            return _watched(call)
        return _counted(call, pool)
    return _watched(call)


def _counted(call: Callable[[], Any], pool: DriverPool) -> Memory:
    cupy_pool = sys.modules["cupy"].get_default_memory_pool() if "cupy" in sys.modules else None
    if cupy_pool is not None:
        cupy_pool.free_all_blocks()
    torch.cuda.reset_peak_memory_stats()
    before = [torch.cuda.memory_allocated(), pool.start(), cupy_pool.total_bytes() if cupy_pool else 0]
    result = call()
    torch.cuda.synchronize()
    # CuPy's pool only grows during a call, so that what it holds at the end is the most that it held.
    peak = [torch.cuda.max_memory_allocated(), pool.high(), cupy_pool.total_bytes() if cupy_pool else 0]
    del result
    growth = sum(max(0, high - low) for high, low in zip(peak, before, strict=True))
    return Memory(growth, sum(peak), "torch's allocator, CUDA's default pool, CuPy's pool")


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
