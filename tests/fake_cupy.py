"""A stand-in for CuPy on a machine without a GPU: its arrays keep their entries in host memory.

It is as strict as the real one about what goes wrong silently otherwise: an array is used only while its
device is the current one, and turns into numpy only through ``get``.
"""

from __future__ import annotations

import types

import numpy as np

NULL_STREAM, SIDE_STREAM = 0, 0x5EED  # what get_current_stream gives for device 0, and for all others
_current = [0]


class Device:
    """``cupy.cuda.Device``."""

    def __init__(self, number):
        self.id = number

    def __enter__(self):
        _current.append(self.id)

    def __exit__(self, *_):
        _current.pop()


class ndarray:
    """``cupy.ndarray``, as far as the engine uses it."""

    def __init__(self, host, device=None):
        self._host = host
        self.device = Device(_current[-1] if device is None else device)

    def _here(self):
        assert self.device.id == _current[-1], f"array of device {self.device.id} used on device {_current[-1]}"
        return self._host

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    strides = property(lambda self: self._host.strides)
    data = property(lambda self: types.SimpleNamespace(ptr=self._host.__array_interface__["data"][0]))

    def __len__(self):
        return len(self._host)

    def __getitem__(self, index):
        if isinstance(index, slice) or (isinstance(index, tuple) and all(isinstance(i, slice) for i in index)):
            return ndarray(self._host[index], self.device.id)  # a view: nothing is launched
        return ndarray(self._here()[_host_index(index)])

    def __setitem__(self, index, value):
        self._here()[_host_index(index)] = value._here() if isinstance(value, ndarray) else value

    def get(self):
        return self._here().copy()

    def astype(self, dtype):
        return ndarray(self._here().astype(dtype), self.device.id)

    def view(self, dtype):
        return ndarray(self._host.view(dtype), self.device.id)

    def any(self):
        return self._here().any()

    def all(self, axis):
        return ndarray(self._here().all(axis), self.device.id)

    def _operation(name):
        def operation(self, other):
            return ndarray(getattr(self._here(), name)(_host_index(other)), self.device.id)

        return operation

    __lt__, __ne__, __eq__ = map(_operation, ("__lt__", "__ne__", "__eq__"))
    __sub__, __mul__, __or__, __matmul__ = map(_operation, ("__sub__", "__mul__", "__or__", "__matmul__"))
    __hash__ = None

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __dlpack__(self, **options):
        return self._here().__dlpack__(**options)

    def __dlpack_device__(self):
        return self._host.__dlpack_device__()  # the host: torch reads it here


def _host_index(index):
    """The real one takes its own arrays and slices; numpy arrays are refused, to see the transfers."""
    if isinstance(index, tuple):
        return tuple(_host_index(i) for i in index)
    assert isinstance(index, (ndarray, slice, int, float)), type(index)
    return index._here() if isinstance(index, ndarray) else index


def _asarray(array):
    return array if isinstance(array, ndarray) else ndarray(np.array(array))


def make() -> types.ModuleType:
    """A module to put into ``sys.modules["cupy"]``."""
    module = types.ModuleType("cupy")
    module.ndarray, module.generic = ndarray, np.generic
    module.asarray = _asarray
    module.ascontiguousarray = lambda array: ndarray(np.ascontiguousarray(array._here()))
    module.full = lambda shape, value, dtype: ndarray(np.full(shape, value, dtype))
    module.where = lambda *arrays: ndarray(np.where(*map(_host_index, arrays)))
    module.int64, module.float64 = np.int64, np.float64
    stream = lambda device: types.SimpleNamespace(ptr=SIDE_STREAM if device else NULL_STREAM)  # noqa: E731
    module.cuda = types.SimpleNamespace(Device=Device, get_current_stream=stream)
    return module
