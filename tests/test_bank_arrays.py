"""Feature banks over arrays in memory: numpy, torch and CuPy, each giving its own kind."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import fake_cupy
import ml_dtypes
import numpy as np
import pytest
from bank_files import D, N, assert_same_bits, features

from proto_engine.array_kinds import to_numpy
from proto_engine.bank import FeatureBank


def test_bank_takes_strided_arrays() -> None:
    x = features()
    for view in (x[::2], x[:, ::-1], x[::-1, 1:4], np.asfortranarray(x)):
        bank = FeatureBank(view)
        assert_same_bits(np.concatenate([rows for _, rows in bank.chunks(max_bytes=200)]), view)
        assert_same_bits(bank.rows([5, 0, 5]), view[[5, 0, 5]])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_bank_over_a_tensor_gives_tensors(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(features()).to(getattr(torch, dtype))
    for tensor in (x, x.t().contiguous().t()):
        bank = FeatureBank(tensor)
        assert (bank.shape, bank.dtype, bank.array is tensor) == ((N, D), x.dtype, True)
        for indices in (np.array([3, 1, 3]), torch.tensor([3, 1, 3]), [3, 1, 3]):
            rows = bank.rows(indices)
            assert rows.is_contiguous()
            assert torch.equal(rows, x[[3, 1, 3]])
        chunks = list(bank.chunks(max_bytes=100))
        assert all(rows.is_contiguous() for _, rows in chunks)
        assert torch.equal(torch.cat([rows for _, rows in chunks]), x)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_bank_over_a_cupy_array_gives_cupy_arrays_on_its_device(monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    cupy = fake_cupy.make()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    x = features(dtype)
    for host in (x, np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2]):
        array = cupy.ndarray(host, device=1)
        bank = FeatureBank(array)
        assert (bank.shape, len(bank), bank.dtype, bank.array is array) == ((N, D), N, np.dtype(dtype), True)
        for indices in (np.array([3, 1, 3]), cupy.ndarray(np.array([3, 1, 3]), device=1), [3, 1, 3]):
            rows = bank.rows(indices)
            assert (type(rows), rows.device.id) == (cupy.ndarray, 1)
            assert_same_bits(to_numpy(rows), x[[3, 1, 3]])
        chunks = list(bank.chunks(max_bytes=100))
        assert {rows.device.id for _, rows in chunks} == {1}
        assert max(rows.shape[0] for _, rows in chunks) == max(1, 100 // (D * x.itemsize))
        assert all(rows.strides == (D * x.itemsize, x.itemsize) for _, rows in chunks)
        assert_same_bits(np.concatenate([to_numpy(rows) for _, rows in chunks]), x)
    with pytest.raises(TypeError, match="array: wanted float16, bfloat16, float32 or float64, got int64"):
        FeatureBank(cupy.ndarray(np.ones((2, 3), np.int64)))
    with pytest.raises(IndexError, match="indices: wanted rows 0 to 199, got 0 to 200"):
        FeatureBank(cupy.ndarray(x)).rows(cupy.ndarray(np.array([0, 200])))


def test_bank_refuses_what_only_looks_like_an_array() -> None:
    class Looks:
        shape, dtype = (2, 3), np.dtype(np.float32)

    with pytest.raises(TypeError, match="array: wanted a numpy array, torch tensor or CuPy array, got Looks"):
        FeatureBank(Looks())


def test_bank_refuses_arrays_it_cannot_hold() -> None:
    for shape in ((3,), (2, 3, 4), (0, 4), (4, 0)):
        with pytest.raises(ValueError, match=r"array: wanted \[N, D\] with N, D >= 1, got shape"):
            FeatureBank(np.zeros(shape, dtype=np.float32))
    for dtype in (np.int64, np.bool_, np.complex64, object, np.longdouble):
        with pytest.raises(TypeError, match="array: wanted float16, bfloat16, float32 or float64, got"):
            FeatureBank(np.zeros((2, 3), dtype=dtype))
    with pytest.raises(TypeError, match="array: wanted a numpy array, torch tensor or CuPy array, got list"):
        FeatureBank([[1.0, 2.0]])
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"got torch\.int64"):
        FeatureBank(torch.zeros(2, 3, dtype=torch.int64))


def test_bank_import_does_not_import_torch_or_pyarrow() -> None:
    code = "import sys, proto_engine.bank; sys.exit(any(name in sys.modules for name in ('torch', 'pyarrow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
