"""Feature banks in .safetensors files: the tensor chosen, any offset, contradictory headers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from bank_files import D, N, assert_same_bits, features

from proto_engine.bank import FeatureBank


def write_safetensors(path: Path, header: Any, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_bank_safetensors_chooses_the_tensor(tmp_path: Path) -> None:
    path, x = tmp_path / "bank.safetensors", features()
    safetensors.numpy.save_file({"a": x, "b": x + 1}, path, metadata={"made": "here"})
    assert_same_bits(FeatureBank.open(path, column="b").rows(np.arange(N)), x + 1)
    with pytest.raises(ValueError, match="name the tensor to use with column=, it holds 'a', 'b'"):
        FeatureBank.open(path)
    with pytest.raises(ValueError, match="has no tensor 'c', it holds 'a', 'b'"):
        FeatureBank.open(path, column="c")
    safetensors.numpy.save_file({"only": x}, path)
    assert_same_bits(FeatureBank.open(path).rows(np.arange(N)), x)
    safetensors.numpy.save_file({"features": x, "other": x + 1}, path)
    assert_same_bits(FeatureBank.open(path).rows(np.arange(N)), x)
    safetensors.numpy.save_file({}, path)
    with pytest.raises(ValueError, match="it holds nothing"):
        FeatureBank.open(path)


def test_bank_safetensors_at_unaligned_offsets_is_read_right(tmp_path: Path) -> None:
    path, x = tmp_path / "bank.safetensors", features()
    for extra in range(1, 4):
        header = json.dumps({"x": {"dtype": "F32", "shape": [N, D], "data_offsets": [0, x.nbytes]}})
        write_safetensors(path, header.ljust(len(header) + extra).encode(), x.tobytes())
        bank = FeatureBank.open(path)
        aligned = bank.array is not None
        assert aligned == ((path.stat().st_size - x.nbytes) % 4 == 0)
        for rows in (bank.rows(np.arange(N)), next(iter(bank.chunks()))[1]):
            assert rows.flags.aligned
            assert_same_bits(rows, x)


def test_bank_safetensors_refuses_contradictory_headers(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"

    def tensor(dtype: Any = "F32", shape: Any = (2, 3), offsets: Any = (0, 24)) -> dict[str, Any]:
        return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}

    cases: list[tuple[Any, type[Exception], str]] = [
        (b"[1]", ValueError, "header is not a JSON object"),
        (b"{broken", ValueError, "header is not a JSON object"),
        (b"[" * 10000, ValueError, "header is not a JSON object"),
        ({"x": 3}, ValueError, "entry in the header is malformed"),
        ({"x": {"dtype": "F32"}}, ValueError, "entry in the header is malformed"),
        (tensor(shape=(2, -3)), ValueError, "entry in the header is malformed"),
        (tensor(shape=(True, 6)), ValueError, "entry in the header is malformed"),
        (tensor(offsets=(0, 24, 48)), ValueError, "entry in the header is malformed"),
        (tensor(offsets=(-24, 0)), ValueError, "entry in the header is malformed"),
        (tensor(dtype=["F32"]), ValueError, "entry in the header is malformed"),
        (tensor(dtype="I64"), TypeError, "wanted F16, BF16, F32 or F64, got I64"),
        (tensor(shape=(6,)), ValueError, r"wanted two dimensions \[N, D\], got shape \(6,\)"),
        (tensor(shape=(0, 3), offsets=(0, 0)), ValueError, r"is empty: shape \(0, 3\)"),
        (tensor(offsets=(0, 20)), ValueError, r"20 bytes for shape \(2, 3\) of F32"),
        (tensor(offsets=(8, 32)), ValueError, "is truncated"),
    ]
    for header, kind, message in cases:
        write_safetensors(path, header, bytes(24))
        with pytest.raises(kind, match=message):
            FeatureBank.open(path)
