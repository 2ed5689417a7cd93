"""The native CUDA engine: csrc/cuda through the compiled module, without torch or CuPy.

Features may be NumPy arrays (copied to the GPU), CUDA tensors of torch or CuPy arrays (read where they are, on
the caller's stream). Memory comes from the device's own pool.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .device import SCORE_CLUSTER, Memory, loops_left_out
from .device_backend import DeviceBackend
from .device_streaming import Event

try:
    from .. import _core
except ImportError as error:
    _core = None  # type: ignore[assignment]
    _missing = f"the native module was not built: {error}"

# Slowest first; clusters come before single blocks till a GPU has shown them to be faster.
_LEAST_CAPABILITY = {"simt": (7, 5), "mma": (8, 0), "wgmma-cluster": (9, 0), "wgmma": (9, 0)}
_HOPPER = (9, 0)  # some instructions are there alone


class NativeGpu:
    """`StreamingGpu` over ``_core.cuda``; ``owner`` keeps the stream."""

    def __init__(self, native: Any, device: int = 0, stream: int = 0, owner: Any = None) -> None:
        self.device, self.stream = device, stream
        self._native, self._owner = native, owner

    @contextmanager
    def current(self) -> Iterator[None]:
        before = self._native.current_device()
        if before != self.device:
            self._native.set_device(self.device)
        try:
            yield
        finally:
            if before != self.device:
                self._native.set_device(before)

    def empty(self, num_bytes: int) -> Memory:
        return self._native.DeviceMemory(num_bytes, self.device, self.stream, self._owner)

    def upload(self, array: np.ndarray, to: int) -> None:
        self._native.upload(to, array.reshape(-1).view(np.uint8), self.stream)

    def download(self, address: int, array: np.ndarray) -> None:
        self._native.download(array.reshape(-1).view(np.uint8), address, self.stream)

    def fill(self, address: int, byte: int, num_bytes: int) -> None:
        self._native.fill(address, byte, num_bytes, self.stream)

    def free_bytes(self) -> int:
        return self._native.memory_info(self.device)[0]

    def launch(self, name: str, *arguments: Any) -> None:
        getattr(self._native, name)(*arguments, self.stream)

    # ---- copies in the background: `StreamingGpu` ----

    def new_stream(self) -> NativeGpu:
        stream = self._native.Stream(self.device)
        return NativeGpu(self._native, self.device, stream.pointer, owner=stream)

    def pinned(self, num_bytes: int) -> np.ndarray:
        return np.frombuffer(self._native.PinnedMemory(num_bytes), dtype=np.uint8)

    def is_pinned(self, array: np.ndarray) -> bool:
        return self._native.is_pinned(array.__array_interface__["data"][0])

    def send(self, array: np.ndarray, to: int) -> None:
        self._native.upload(to, array, self.stream)

    def receive(self, address: int, array: np.ndarray) -> None:
        self._native.download_async(array, address, self.stream)

    def event(self) -> Event:
        event = self._native.Event(self.device)
        event.record(self.stream)
        return event

    def wait_for(self, event: Event) -> None:
        event.wait(self.stream)


def native_module() -> Any:
    """``_core.cuda``, or None where there is none."""
    return None if _core is None or _core.cuda_architectures is None else _core.cuda


def unavailable_reason() -> str | None:
    """Why there is no native CUDA engine here, or None."""
    if _core is None:
        return _missing
    if _core.cuda_architectures is None:
        return "the package was built without CUDA (nvcc was not found, or PROTO_ENGINE_CUDA=0)"
    try:
        count = _core.cuda.device_count()
    except RuntimeError as error:
        return f"compiled for {_core.cuda_architectures}, but no GPU can be used ({error})"
    if count == 0:
        return f"compiled for {_core.cuda_architectures}, but there is no GPU"
    capability = _core.cuda.device_properties(0)["compute_capability"]
    if capability < (8, 0):
        return f"compiled for {_core.cuda_architectures}, but the GPU has compute capability {capability}"
    return None


def loops_of(capability: tuple[int, int]) -> list[str]:
    """The tile loops that a GPU of that compute capability can run and that are not left out; the slowest first."""
    left_out = loops_left_out()
    found = [name for name, least in _LEAST_CAPABILITY.items() if capability >= least and name not in left_out]
    return found if capability == _HOPPER else [name for name in found if not name.startswith("wgmma")]


class CudaBackend(DeviceBackend):
    """``loop`` names one tile loop; by default the fastest that a recorded run has verified on such a GPU. So do
    clusters score, unless ``clusters`` says whether they do."""

    name = "cuda"

    def __init__(self, loop: str | None = None, native: Any = None, *, clusters: bool | None = None) -> None:
        super().__init__(loop, clusters=clusters)
        self._native = native_module() if native is None else native

    def gpu(self, device: int, stream: int) -> NativeGpu:
        return NativeGpu(self._native, device, stream)

    def _available_loops(self, device: int) -> list[str]:
        return loops_of(self.compute_capability(device))

    def _clusters_can_score(self, device: int) -> bool:
        return self.compute_capability(device) == _HOPPER and SCORE_CLUSTER not in loops_left_out()

    def compute_capability(self, device: int) -> tuple[int, int]:
        major, minor = self._native.device_properties(device)["compute_capability"]
        return major, minor
