"""The kinds of array that callers work with: numpy, torch on a device, CuPy on a device.

Neither torch nor CuPy is imported here: an array of theirs brings its library along.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from .bank_formats import BFLOAT16, FLOAT_DTYPES
from .errors import BackendUnavailable


def is_tensor(x: Any) -> bool:
    """True for a torch.Tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_cupy(x: Any) -> bool:
    """True for a cupy.ndarray, without importing cupy."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(x, cupy.ndarray)


def has_float_dtype(array: Any) -> bool:
    """float16, bfloat16, float32 or float64, in this machine's byte order."""
    if is_tensor(array):
        return str(array.dtype) in {f"torch.{dtype.name}" for dtype in FLOAT_DTYPES}
    return array.dtype in FLOAT_DTYPES and array.dtype.isnative


@dataclass(frozen=True)
class ArrayKind:
    """A library of arrays, and where its arrays are.

    Attributes
    ----------
    library : {"numpy", "torch", "cupy"}
    device : torch.device, int or None
        torch's device, the number of CuPy's GPU, None for numpy.
    """

    library: str = "numpy"
    device: Any = None

    @classmethod
    def of(cls, array: Any) -> ArrayKind:
        """The kind of a tensor or CuPy array; numpy for everything else."""
        if is_tensor(array):
            return cls("torch", array.device)
        return cls("cupy", array.device.id) if is_cupy(array) else cls()

    def __str__(self) -> str:
        """The place, as messages name it."""
        return f"cuda:{self.device}" if self.library == "cupy" else str(self.device or "the host")

    @property
    def on_cpu(self) -> bool:
        return self.library == "numpy" or (self.library == "torch" and self.device.type == "cpu")

    @property
    def to_host(self) -> str:
        """How a caller brings features of this kind to the host."""
        return {"torch": "features.cpu()", "cupy": "features.get()"}.get(self.library, "features")

    @property
    def xp(self) -> Any:
        """The library's module."""
        return np if self.library == "numpy" else sys.modules[self.library]

    def current(self) -> AbstractContextManager[Any]:
        """Make the device CuPy's current one, where its operations run; the other kinds need no such thing."""
        return sys.modules["cupy"].cuda.Device(self.device) if self.library == "cupy" else nullcontext()

    def give(self, array: Any) -> Any:
        """``array``, of whatever kind, in this kind; without a copy where it is in the right place."""
        if self.library == "numpy":
            return to_numpy(array)
        if self.library == "torch":
            import torch

            if is_cupy(array):
                array = tensor_of_cupy(array)
            elif not is_tensor(array) and not self.on_cpu and hasattr(array, "__cuda_array_interface__"):
                array = torch.as_tensor(array, device=self.device)
            tensor = array if is_tensor(array) else torch.from_numpy(np.ascontiguousarray(array))
            return tensor.to(self.device)
        cupy = sys.modules["cupy"]
        with self.current():
            if is_tensor(array) and array.is_cuda:
                return _cupy_of_tensor(array.detach().to(f"cuda:{self.device}"))
            if is_cupy(array) or hasattr(array, "__cuda_array_interface__"):
                return cupy.asarray(array)
            return cupy.asarray(to_numpy(array))

    def full(self, shape: Sequence[int], value: float, dtype: Any) -> Any:
        """A new array of one value, in this kind; ``dtype`` is the library's own."""
        if self.library == "torch":
            return sys.modules["torch"].full(tuple(shape), value, dtype=dtype, device=self.device)
        with self.current():
            return sys.modules[self.library].full(tuple(shape), value, dtype=dtype)


def readable(x: Any, name: str) -> Any:
    """``x``, all of whose entries can be read; a masked array that hides none as the array under it.

    Parameters
    ----------
    x : object
        What is neither a masked array nor a tensor comes back as it is; the rows of a list are looked at.
    name : str
        The argument's name, for the message.

    Raises
    ------
    TypeError
        A tensor that is sparse, nested or of another layout that is not strided, or on the meta device.
    ValueError
        A masked array with masked entries: what lies under a mask must not pass for a value.
    """
    if isinstance(x, (list, tuple)):
        for row in x:  # NumPy drops the masks of a list's rows
            if isinstance(row, np.ma.MaskedArray):
                readable(row, name)
        return x
    if isinstance(x, np.ma.MaskedArray):
        hidden = int(np.ma.count_masked(x))
        if hidden:
            raise ValueError(f"{name}: wanted an array without masked entries, got {hidden} of {x.size} masked")
        return np.ma.getdata(x)
    if not is_tensor(x):
        return x
    if x.is_nested or str(x.layout) != "torch.strided":
        raise TypeError(
            f"{name}: wanted a strided tensor, got {'a nested one' if x.is_nested else f'layout {x.layout}'}"
        )
    if x.is_meta:
        raise TypeError(f"{name}: wanted a tensor with values, got one on the meta device")
    return x.resolve_neg()  # itself but for the rare view whose values have the other sign


def to_numpy(x: Any, name: str = "array") -> np.ndarray:
    """A tensor or CuPy array (any device, bfloat16 included) or array-like as numpy.

    No copy is made where there need be none. Errors are those of `readable`.
    """
    if is_cupy(x):
        with x.device:
            return x.get()
    x = readable(x, name)
    if not is_tensor(x):
        return np.asarray(x)
    import torch

    x = x.detach().cpu().resolve_conj()
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy().view(BFLOAT16)
    return x.numpy()


def as_double(array: Any) -> Any:
    """An array in float64, in the same kind and place: a GPU widens rows sooner than the host."""
    if is_tensor(array):
        return array.detach().double()
    if not is_cupy(array):
        return np.asarray(array).astype(np.float64)
    with array.device:
        return array.astype(np.float64)


def take_rows(array: Any, indices: np.ndarray) -> Any:
    """``array[indices]``, a copy in the same kind and on the same device.   [N, ...], [k] int64 -> [k, ...]"""
    if not is_cupy(array):
        return array[indices]
    with array.device:  # otherwise the indices would go to whatever device is current
        return array[sys.modules["cupy"].asarray(indices)]


def contiguous_rows(array: Any, start: int, stop: int) -> Any:
    """A slice of rows of a tensor or CuPy array, elements in row order; a view where they lie so already."""
    if not is_cupy(array):
        return array[start:stop].contiguous()
    with array.device:
        return sys.modules["cupy"].ascontiguousarray(array[start:stop])


def tensor_of_cupy(array: Any) -> Any:
    """A CuPy array as a tensor that shares its memory, ordered after the work on CuPy's current stream.

    Raises
    ------
    BackendUnavailable
        torch cannot use the GPU that the array is on.
    """
    import torch

    if not torch.cuda.is_available():
        raise BackendUnavailable(
            f"torch {torch.__version__} cannot read CuPy arrays: torch.cuda.is_available() is False (a torch "
            "without CUDA, or for another driver); pass another backend, or features.get() to compute on the host"
        )
    with array.device:
        if array.dtype == BFLOAT16:  # not every CuPy knows how DLPack names it
            return torch.from_dlpack(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_dlpack(array)


def _cupy_of_tensor(tensor: Any) -> Any:
    """A tensor on the current GPU as a CuPy array that shares its memory, ordered after torch's work."""
    import torch

    cupy = sys.modules["cupy"]
    stream = cupy.cuda.get_current_stream().ptr
    if stream != torch.cuda.current_stream(tensor.device).cuda_stream:
        # Or torch would reuse the memory once the array is gone, while CuPy's last work on it is still to come.
        default = torch.cuda.default_stream(tensor.device)
        tensor.record_stream(torch.cuda.ExternalStream(stream, tensor.device) if stream else default)
    return cupy.from_dlpack(tensor)
