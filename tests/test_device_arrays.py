"""Arrays in GPU memory as pointers: layout, dtype, device and stream of each kind, and clear words about others."""

from __future__ import annotations

import sys
import weakref

import fake_cupy
import ml_dtypes
import numpy as np
import pytest

from proto_engine import device_arrays
from proto_engine.device_arrays import device_array, is_device_array

torch = pytest.importorskip("torch")

TORCH_STREAM = 0x70AC4
DTYPES = ["float16", "bfloat16", "float32", "float64", "int8", "int32", "int64", "uint8", "bool"]


class CudaTensor(torch.Tensor):
    """A tensor in host memory that says it is on the second GPU."""

    is_cuda = property(lambda self: True)
    device = property(lambda self: torch.device("cuda", 1))


class Interface:
    """Nothing but ``__cuda_array_interface__``."""

    def __init__(self, array, **changes):
        self._keep = array
        strides = None if array.flags.c_contiguous else array.strides
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.__array_interface__["data"][0], False),
            "version": 3,
            "strides": strides,
            "stream": 1,
            **changes,
        }


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    """CuPy, torch's stream and the driver, without a GPU."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.make())
    stream = lambda device: type("Stream", (), {"cuda_stream": TORCH_STREAM + device.index})  # noqa: E731
    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    monkeypatch.setattr(device_arrays, "_device_of", lambda pointer, name: 3)


def host(dtype="float32", shape=(4, 6)):
    entries = np.arange(np.prod(shape)).reshape(shape) % 2
    return entries.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def tensor(array):
    bits = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) if array.dtype == ml_dtypes.bfloat16 else None
    return (torch.from_numpy(array) if bits is None else bits).as_subclass(CudaTensor)


def cupy_array(array):
    return sys.modules["cupy"].ndarray(array, device=2)


MAKERS = {"torch": (tensor, 1, TORCH_STREAM + 1), "cupy": (cupy_array, 2, fake_cupy.SIDE_STREAM)}
KINDS = {**MAKERS, "interface": (Interface, 3, 1)}
VIEWS = {
    "whole": lambda x: x,
    "rows": lambda x: x[1::2],
    "columns": lambda x: x[:, 1:4],
    "transposed": lambda x: x.T,
    "vector": lambda x: x[2],
    "strided vector": lambda x: x[:, 3],
}


# The interface has no name for bfloat16.
NAMED = [(kind, dtype) for kind in KINDS for dtype in DTYPES if (kind, dtype) != ("interface", "bfloat16")]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("kind", "dtype"), NAMED)
def test_device_array_tells_where_every_entry_is(kind, dtype, view):
    make, device, stream = KINDS[kind]
    array = VIEWS[view](host(dtype))
    found = device_array(make(array))
    assert (found.pointer, found.shape) == (array.__array_interface__["data"][0], array.shape)
    assert found.strides == tuple(step // array.itemsize for step in array.strides)
    assert (found.dtype, found.device, found.stream) == (array.dtype, device, stream)
    assert isinstance(found.dtype, np.dtype)
    assert all(type(number) is int for number in (found.pointer, *found.shape, *found.strides))


@pytest.mark.parametrize("kind", ["cupy", "interface"])
def test_device_array_of_rows_in_reverse_starts_at_the_last(kind):
    array = host()[::-1]
    found = device_array(KINDS[kind][0](array))
    assert (found.pointer, found.strides) == (array.__array_interface__["data"][0], (-6, 1))


def test_device_array_keeps_its_memory_alive():
    for make, *_ in KINDS.values():
        array = host()
        found, memory = device_array(make(array)), weakref.ref(array)
        del array
        assert memory() is not None
        del found
        assert memory() is None


def test_device_array_of_a_tensor_that_requires_grad_or_is_negated_lazily():
    x = tensor(host())
    assert device_array(x.clone().requires_grad_()).owner.requires_grad is False
    imaginary = torch.complex(torch.ones(3), torch.ones(3)).conj().imag.as_subclass(CudaTensor)
    assert imaginary.is_neg()
    owner = device_array(imaginary).owner
    assert not owner.is_neg() and owner.tolist() == [-1, -1, -1]
    assert device_array(imaginary).strides == (1,)


def test_device_array_honors_the_stream_of_the_interface():
    for given, want in ((None, 0), (1, 1), (2, 2), (0xABC, 0xABC)):
        assert device_array(Interface(host(), stream=given)).stream == want
    older = Interface(host(), version=2)
    del older.__cuda_array_interface__["stream"]
    assert device_array(older).stream == 0
    with pytest.raises(ValueError, match=r"features: wanted a stream or None .* got 0"):
        device_array(Interface(host(), stream=0))


def test_is_device_array_tells_gpu_memory_from_host_memory():
    assert all(is_device_array(make(host())) for make, *_ in KINDS.values())
    for other in (host(), torch.ones(2), torch.ones(2, device="meta"), [1.0], None, np.float32(1)):
        assert not is_device_array(other)


@pytest.mark.parametrize(
    ("error", "match", "make"),
    [
        (TypeError, "x: wanted an array in GPU memory, got ndarray$", host),
        (TypeError, "x: wanted an array in GPU memory, got Tensor on cpu", lambda: torch.ones(2, 2)),
        (TypeError, "x: wanted an array in GPU memory, got list", lambda: [[1.0]]),
        (TypeError, "x: wanted float16, .*, integers or bool, got complex64", lambda: tensor(host("complex64"))),
        (TypeError, "got float8_e4m3fn", lambda: tensor(host()).to(torch.float8_e4m3fn)),
        (TypeError, "got complex128", lambda: cupy_array(host("complex128"))),
        (TypeError, "got >f4", lambda: Interface(host(">f4"))),
        (TypeError, "got void16", lambda: Interface(host("bfloat16"))),
        (ValueError, r"x: wanted \[n\] or \[n, D\].*, got shape \(2, 3, 4\)", lambda: tensor(host(shape=(2, 3, 4)))),
        (ValueError, r"got shape \(0, 3\)", lambda: cupy_array(host(shape=(0, 3)))),
        (ValueError, r"got shape \(\)", lambda: Interface(np.array(1.0))),
        (ValueError, "x: wanted a dense tensor, got layout torch.sparse_coo", lambda: SparseTensor()),
        (ValueError, "x: wanted an array without a mask", lambda: Interface(host(), mask=host("bool"))),
        (ValueError, r"x: wanted strides .* of 4, .* got \(25, 4\)", lambda: Interface(host(), strides=(25, 4))),
    ],
)  # fmt: skip
def test_device_array_refuses_with_the_argument_named(error, match, make):
    with pytest.raises(error, match=match):
        device_array(make(), "x")


class SparseTensor(CudaTensor):
    layout = property(lambda self: torch.sparse_coo)


def test_device_array_without_a_driver_says_so(monkeypatch):
    monkeypatch.undo()

    def no_driver(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(device_arrays.ctypes, "CDLL", no_driver)
    with pytest.raises(ValueError, match=r"features: wanted an array in GPU memory, but there is no CUDA driver"):
        device_array(Interface(host()))


class FakeDriver:
    """libcuda, which knows one range of addresses."""

    def cuPointerGetAttribute(self, result, attribute, address):
        assert attribute == 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
        if address.value < 4096:
            return 1  # CUDA_ERROR_INVALID_VALUE
        result._obj.value = 5
        return 0


def test_device_array_asks_the_driver_for_the_device_of_an_address(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(device_arrays.ctypes, "CDLL", lambda name: FakeDriver())
    assert device_array(Interface(host())).device == 5
    with pytest.raises(ValueError, match=r"features: wanted an array in GPU memory, got address 0x40 \(CUDA error 1\)"):
        device_array(Interface(host(), data=(64, False)))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64"])
def test_device_array_of_real_arrays(dtype, monkeypatch):
    monkeypatch.undo()
    cupy = pytest.importorskip("cupy")
    last = torch.cuda.device_count() - 1
    x = torch.ones(6, 8).to(getattr(torch, dtype)).to(f"cuda:{last}")[::2, 1:5]
    side = torch.cuda.Stream(x.device)
    with torch.cuda.stream(side):
        found = device_array(x)
    assert (found.pointer, found.shape, found.strides) == (x.data_ptr(), (3, 4), (16, 1))
    assert (found.dtype.name, found.device, found.stream) == (dtype, last, side.cuda_stream)
    with cupy.cuda.Device(last):
        y = cupy.asarray(host(dtype))[::2, 1:5]
    found = device_array(y)
    assert (found.pointer, found.shape, found.strides) == (y.data.ptr, (2, 4), (12, 1))
    assert (found.dtype.name, found.device) == (dtype, last)
    if dtype != "bfloat16":
        through = device_array(Interface(host(dtype), **y.__cuda_array_interface__))
        assert (through.pointer, through.strides, through.dtype) == (found.pointer, found.strides, found.dtype)
        assert through.device == last
