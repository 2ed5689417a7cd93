"""Arrays in GPU memory as kernels see them: a pointer, a shape, strides, a dtype, a device and a stream.

Whatever library an array comes from, native code needs no more than this to read it, and imports none of them.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from .array_kinds import is_cupy, is_tensor
from .bank_formats import BFLOAT16

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
_DTYPES = {name: BFLOAT16 if name == "bfloat16" else np.dtype(name) for name in (*_FLOATS, *_INTEGERS)}
_DEVICE_ORDINAL = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """A strided vector or matrix in GPU memory.

    Attributes
    ----------
    pointer : int
        Address of the first entry.
    shape : tuple of int, (n,) or (n, D)
        At least one entry.
    strides : tuple of int
        Distance between neighbors along each axis, in elements; may be 0 (broadcast) or negative.
    dtype : numpy.dtype
        A float or integer type or bool; bfloat16 is that of ml_dtypes.
    device : int
        Number of the GPU.
    stream : int
        The ``cudaStream_t`` on which the entries become valid. Work launched there needs no other
        synchronization; work launched elsewhere must wait for it. 0, 1 and 2 are CUDA's default streams.
    owner : Any
        Keeps the memory alive; nothing else is to be done with it.
    """

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype
    device: int
    stream: int
    owner: Any


def is_device_array(x: Any) -> bool:
    """Whether `device_array` can read ``x``: a CUDA tensor, a CuPy array or ``__cuda_array_interface__``."""
    if is_tensor(x):  # on the CPU it has the interface too, as a property that raises
        return bool(x.is_cuda)
    return is_cupy(x) or hasattr(x, "__cuda_array_interface__")


def device_array(x: Any, name: str = "features") -> DeviceArray:
    """Where an array in GPU memory is and how it is laid out, without copying or synchronizing.

    Parameters
    ----------
    x : torch.Tensor, cupy.ndarray or object with ``__cuda_array_interface__``, [n] or [n, D]
        The interface up to version 3.
    name : str
        The argument's name, for messages.

    Returns
    -------
    DeviceArray
        For a tensor or CuPy array the stream is the library's current one on the array's device; for others
        the one that the interface names, or the default stream where it names none.

    Raises
    ------
    TypeError
        Not an array in GPU memory, or its elements are not floats, integers or bool.
    ValueError
        Neither one- nor two-dimensional, empty, masked, sparse, or strides that are no multiple of the elements.
    """
    if not is_device_array(x):
        place = f" on {x.device}" if is_tensor(x) else ""
        raise TypeError(f"{name}: wanted an array in GPU memory, got {type(x).__name__}{place}")
    if is_tensor(x):
        return _from_torch(x, name)
    return _from_cupy(x, name) if is_cupy(x) else _from_interface(x, name)


def _from_torch(x: Any, name: str) -> DeviceArray:
    import torch

    if x.layout != torch.strided:
        raise ValueError(f"{name}: wanted a dense tensor, got layout {x.layout}")
    shape, dtype = tuple(x.shape), _checked(x.shape, str(x.dtype).removeprefix("torch."), name)
    owner = x.detach().resolve_neg()  # a view may say of its memory: with the opposite sign
    stream = torch.cuda.current_stream(x.device).cuda_stream
    return DeviceArray(owner.data_ptr(), shape, tuple(owner.stride()), dtype, x.device.index, stream, owner)


def _from_cupy(x: Any, name: str) -> DeviceArray:
    shape, dtype = tuple(x.shape), _checked(x.shape, x.dtype.name, name)
    stream = sys.modules["cupy"].cuda.get_current_stream(x.device.id).ptr
    return DeviceArray(x.data.ptr, shape, _in_elements(x.strides, dtype, name), dtype, x.device.id, stream, x)


def _from_interface(x: Any, name: str) -> DeviceArray:
    interface = x.__cuda_array_interface__
    stored = np.dtype(interface["typestr"])
    shape = tuple(int(size) for size in interface["shape"])
    dtype = _checked(shape, stored.name if stored.isnative else stored.str, name)
    if interface.get("mask") is not None:
        raise ValueError(f"{name}: wanted an array without a mask, got a masked {type(x).__name__}")
    stream = interface.get("stream")
    if stream == 0:
        raise ValueError(f"{name}: wanted a stream or None in __cuda_array_interface__, got 0, which it rules out")
    strides = interface.get("strides")
    if strides is None:  # in row order
        strides = tuple(int(np.prod(shape[axis + 1 :])) * dtype.itemsize for axis in range(len(shape)))
    pointer = int(interface["data"][0])
    elements = _in_elements(strides, dtype, name)
    return DeviceArray(pointer, shape, elements, dtype, _device_of(pointer, name), int(stream or 0), x)


def _checked(shape: Any, dtype: str, name: str) -> np.dtype:
    """The dtype of that name, after a look at the shape."""
    if dtype not in _DTYPES:
        raise TypeError(f"{name}: wanted {', '.join(_FLOATS)}, integers or bool, got {dtype}")
    if len(shape) not in (1, 2) or 0 in tuple(shape):
        raise ValueError(f"{name}: wanted [n] or [n, D] with n, D >= 1, got shape {tuple(shape)}")
    return _DTYPES[dtype]


def _in_elements(strides: Any, dtype: np.dtype, name: str) -> tuple[int, ...]:
    if any(step % dtype.itemsize for step in strides):
        raise ValueError(
            f"{name}: wanted strides that are multiples of {dtype.itemsize}, the size of an element, "
            f"got {tuple(strides)}"
        )
    return tuple(int(step) // dtype.itemsize for step in strides)


def _device_of(pointer: int, name: str) -> int:
    """The GPU that an address belongs to. The interface does not say; the driver knows."""
    device = ctypes.c_int(-1)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        error = driver.cuPointerGetAttribute(ctypes.byref(device), _DEVICE_ORDINAL, ctypes.c_uint64(pointer))
    except OSError as missing:
        raise ValueError(f"{name}: wanted an array in GPU memory, but there is no CUDA driver ({missing})") from None
    if error or device.value < 0:
        raise ValueError(f"{name}: wanted an array in GPU memory, got address {pointer:#x} (CUDA error {error})")
    return device.value
