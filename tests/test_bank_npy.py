"""Feature banks in .npy files: which arrays and headers are read, and that nothing is unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from bank_files import N, assert_same_bits, features

from proto_engine.bank import FeatureBank


def test_bank_npy_never_unpickles(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    np.save(tmp_path / "objects.npy", np.array([[Bomb(), 1], [2, 3]], dtype=object), allow_pickle=True)
    with pytest.raises(TypeError, match="holds Python objects, which are refused"):
        FeatureBank.open(tmp_path / "objects.npy")
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"is not a \.npy file"):
        FeatureBank.open(tmp_path / "pickle.npy")
    assert not marker.exists()


def test_bank_npy_refuses_other_arrays(tmp_path: Path) -> None:
    path = tmp_path / "bank.npy"
    structured = np.zeros((2, 3), dtype=[("a", "f4"), ("b", "f4")])
    cases: list[tuple[np.ndarray, type[Exception], str]] = [
        (
            np.zeros((2, 3), dtype=np.int32),
            TypeError,
            "wanted float16, bfloat16, float32 or float64, got int32",
        ),
        (np.zeros((2, 3), dtype="U4"), TypeError, "got <U4"),
        (structured, TypeError, "got a structured array"),
        (
            np.zeros((2, 3), dtype=">f4"),
            TypeError,
            r"not in this machine's byte order; .*astype\('float32'\)",
        ),
        (np.zeros((2, 3), dtype=ml_dtypes.bfloat16), TypeError, r"cannot hold bfloat16: use \.safetensors"),
        (np.zeros(3), ValueError, r"wanted two dimensions \[N, D\], got shape \(3,\)"),
        (np.zeros((2, 3, 4)), ValueError, r"wanted two dimensions \[N, D\], got shape \(2, 3, 4\)"),
        (np.zeros((0, 3)), ValueError, r"is empty: shape \(0, 3\)"),
        (np.zeros((3, 0)), ValueError, r"is empty: shape \(3, 0\)"),
    ]
    for array, kind, message in cases:
        np.save(path, array)
        with pytest.raises(kind, match=message):
            FeatureBank.open(path)


def test_bank_npy_reads_header_version_2_and_refuses_3(tmp_path: Path) -> None:
    path, x = tmp_path / "bank.npy", features()
    with path.open("wb") as file:
        np.lib.format.write_array(file, x, version=(2, 0))
    assert_same_bits(FeatureBank.open(path).rows(np.arange(N)), x)
    with path.open("wb") as file:
        np.lib.format.write_array(file, x, version=(3, 0))
    with pytest.raises(ValueError, match=r"format version 3\.0 holds structured arrays only"):
        FeatureBank.open(path)


def test_bank_npy_names_the_lengths(tmp_path: Path) -> None:
    path = tmp_path / "bank.npy"
    np.save(path, features())
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=f"truncated: {len(content) - 1} bytes, its header asks for {len(content)}"):
        FeatureBank.open(path)
    path.write_bytes(content + b"more")
    with pytest.raises(ValueError, match="something follows the array"):
        FeatureBank.open(path)


@pytest.mark.parametrize("shape", [(True, 16), (-2, -4), (-2, 4)])
def test_bank_npy_refuses_sizes_that_are_none(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = tmp_path / "bank.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.write(b"\0" * 64)
    message = rf"bank\.npy' has no readable .npy header: wanted whole numbers of at least 0, got shape \({shape[0]}, "
    with pytest.raises(ValueError, match=message):
        FeatureBank.open(path)
