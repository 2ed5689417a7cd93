"""The CUDA engine without a toolkit: the kernels of csrc/cuda, compiled at run time and launched by CuPy.

For machines with a GPU where the package was installed without nvcc. Everything but launches and memory is shared
with the native backend (`device_backend`), and so are the results. The tile loop for Hopper needs tensor maps, which
only the native module makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from .cuda import loops_of
from .cupy_compiler import capability_of, kernel, source_folder
from .cupy_score_launches import AllLaunches
from .device import Memory
from .device_backend import DeviceBackend
from .device_streaming import Event

_LEAST_CAPABILITY = (8, 0)  # of the scores; tile loop simt itself needs 7.5


def unavailable_reason() -> str | None:
    """Why this backend cannot run here, or None."""
    try:
        import cupy
        from cupy.cuda import nvrtc, runtime
    except ImportError as error:
        return f"CuPy cannot be imported: {error}"
    try:
        if runtime.is_hip:
            return "this CuPy is for AMD's GPUs"
        if runtime.getDeviceCount() == 0:
            return "CuPy finds no GPU"
        nvrtc.getVersion()
        capability = capability_of(cupy.cuda.Device(0))
    except Exception as error:  # of several classes, depending on what is missing
        return f"CuPy cannot use a GPU here: {' '.join(str(error).split())}"
    if capability < _LEAST_CAPABILITY:
        return f"its kernels need compute capability 8.0, and the GPU has {'.'.join(map(str, capability))}"
    if source_folder() is None:
        return "the package was installed without its CUDA sources"
    return None


class CupyMemory:
    """Memory from CuPy's current allocator, by default its pool; it goes back there."""

    def __init__(self, block: Any) -> None:
        self._block = block

    @property
    def pointer(self) -> int:
        return self._block.ptr


class _ForeignStream:
    """A stream of others, as the CUDA stream protocol wants it."""

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._pointer


def _cupy_stream(pointer: int, device: int) -> Any:
    """A stream of others for CuPy, which does not destroy it."""
    import cupy

    if hasattr(cupy.cuda.Stream, "from_external"):
        return cupy.cuda.Stream.from_external(_ForeignStream(pointer))
    return cupy.cuda.ExternalStream(pointer, device)  # CuPy 13


class CupyEvent:
    """`Event` behind the work of a stream so far."""

    def __init__(self, device: int, stream: Any) -> None:
        import cupy

        self._device = device
        self._event = cupy.cuda.Event(disable_timing=True)
        self._event.record(stream)

    def wait(self, stream: int) -> None:
        _cupy_stream(stream, self._device).wait_event(self._event)

    def synchronize(self) -> None:
        self._event.synchronize()


class CupyGpu:
    """`StreamingGpu` over CuPy: its memory pools, and the given stream or one of CuPy's."""

    def __init__(self, device: int = 0, stream: int = 0, owner: Any = None) -> None:
        self.device, self.stream = device, stream
        self._stream = _cupy_stream(stream, device) if owner is None else owner
        self._launches = AllLaunches(partial(kernel, device), self._stream)

    @contextmanager
    def current(self) -> Iterator[None]:
        """The stream too: CuPy's pool keeps memory by the stream that used it last."""
        import cupy

        with cupy.cuda.Device(self.device), self._stream:
            yield

    def empty(self, num_bytes: int) -> Memory:
        import cupy

        with self.current():
            return CupyMemory(cupy.cuda.alloc(max(1, num_bytes)))

    def upload(self, array: np.ndarray, to: int) -> None:
        self._copy(to, array.ctypes.data, array.nbytes, "memcpyHostToDevice")

    def download(self, address: int, array: np.ndarray) -> None:
        self._copy(array.ctypes.data, address, array.nbytes, "memcpyDeviceToHost")
        self._stream.synchronize()

    def fill(self, address: int, byte: int, num_bytes: int) -> None:
        from cupy.cuda import runtime

        if num_bytes:
            runtime.memsetAsync(address, byte, num_bytes, self.stream)

    def free_bytes(self) -> int:
        """Of the device, and what CuPy's pool would give back rather than fail."""
        import cupy

        with self.current():
            pool = cupy.get_default_memory_pool()
            free = cupy.cuda.runtime.memGetInfo()[0] + pool.free_bytes()
            limit = pool.get_limit()
            return min(free, limit - pool.used_bytes()) if limit else free

    def launch(self, name: str, *arguments: Any) -> None:
        getattr(self._launches, name)(*arguments)

    # ---- copies that need not be waited for

    def new_stream(self) -> CupyGpu:
        import cupy

        with cupy.cuda.Device(self.device):
            stream = cupy.cuda.Stream(non_blocking=True)
        return CupyGpu(self.device, stream.ptr, stream)

    def pinned(self, num_bytes: int) -> np.ndarray:
        import cupy

        block = cupy.cuda.alloc_pinned_memory(max(1, num_bytes))  # its pool rounds up
        return np.frombuffer(block, dtype=np.uint8, count=num_bytes)

    def is_pinned(self, array: np.ndarray) -> bool:
        from cupy.cuda import runtime

        try:
            return runtime.pointerGetAttributes(array.ctypes.data).type == runtime.memoryTypeHost
        except runtime.CUDARuntimeError:  # the driver has never heard of that memory
            return False

    def send(self, array: np.ndarray, to: int) -> None:
        self._copy(to, array.ctypes.data, array.nbytes, "memcpyHostToDevice")

    def receive(self, address: int, array: np.ndarray) -> None:
        self._copy(array.ctypes.data, address, array.nbytes, "memcpyDeviceToHost")

    def event(self) -> Event:
        return CupyEvent(self.device, self._stream)

    def wait_for(self, event: Event) -> None:
        event.wait(self.stream)

    def _copy(self, to: int, from_: int, num_bytes: int, direction: str) -> None:
        from cupy.cuda import runtime

        if num_bytes:
            runtime.memcpyAsync(to, from_, num_bytes, getattr(runtime, direction), self.stream)


class CupyBackend(DeviceBackend):
    """``loop`` names one tile loop, "simt" or "mma"; by default the fastest that may be used."""

    name = "cupy"

    def gpu(self, device: int, stream: int) -> CupyGpu:
        return CupyGpu(device, stream)

    def _available_loops(self, device: int) -> list[str]:
        return [loop for loop in loops_of(self.compute_capability(device)) if not loop.startswith("wgmma")]

    def compute_capability(self, device: int) -> tuple[int, int]:
        import cupy

        return capability_of(cupy.cuda.Device(device))
