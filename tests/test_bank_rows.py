"""Rows of a feature bank: from every kind of file those that were written, gathered or in chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from bank_files import WRITERS, D, N, assert_same_bits, features, make

from proto_engine.bank import FeatureBank


def cases() -> list[tuple[str, Any]]:
    floats = [np.float16, np.float32, np.float64]
    return [(kind, dtype) for kind in WRITERS for dtype in floats] + [("safetensors", ml_dtypes.bfloat16)]


@pytest.mark.parametrize(("kind", "dtype"), cases())
def test_bank_file_gives_the_rows_that_were_written(tmp_path: Path, kind: str, dtype: Any) -> None:
    x = features(dtype)
    bank = make(tmp_path, kind, x)
    assert (bank.shape, len(bank), bank.dtype) == ((N, D), N, np.dtype(dtype))
    wanted = np.random.default_rng(1).integers(0, N, 64)
    gathered = bank.rows(wanted)
    assert gathered.flags.c_contiguous
    assert_same_bits(gathered, x[wanted])
    step = 1000 // (D * x.dtype.itemsize)
    position = 0
    for start, rows in bank.chunks(max_bytes=1000):
        assert start == position
        assert rows.flags.c_contiguous
        assert 1 <= len(rows) <= step
        assert_same_bits(rows, x[start : start + len(rows)])
        position += len(rows)
    assert position == N


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_bank_chunks_hold_a_row_at_least_and_all_rows_at_most(tmp_path: Path, kind: str) -> None:
    bank = make(tmp_path, kind, features())
    assert [len(rows) for _, rows in bank.chunks(max_bytes=1)] == [1] * N
    assert [len(rows) for _, rows in bank.chunks()] == [N]
    with pytest.raises(ValueError, match="max_bytes: wanted a positive number, got 0"):
        next(bank.chunks(max_bytes=0))


@pytest.mark.parametrize("kind", ["npy", "parquet-fixed"])
def test_bank_rows_checks_indices(tmp_path: Path, kind: str) -> None:
    bank = make(tmp_path, kind, features())
    assert bank.rows([]).shape == (0, D)
    with pytest.raises(IndexError, match=rf"indices: wanted rows 0 to {N - 1}, got -1 to 3"):
        bank.rows([3, -1])  # -1 stands for "no prototype" elsewhere: it must not mean the last row
    with pytest.raises(IndexError, match=rf"got 0 to {N}"):
        bank.rows(np.array([0, N]))
    with pytest.raises(TypeError, match="indices: wanted integers, got bool"):
        bank.rows(np.ones(N, dtype=bool))
    with pytest.raises(ValueError, match=r"indices: wanted one dimension, got shape \(1, 2\)"):
        bank.rows([[1, 2]])


def test_bank_repr_says_where_the_rows_are(tmp_path: Path) -> None:
    assert repr(FeatureBank(features())) == "FeatureBank(ndarray, shape=(200, 7), dtype=float32)"
    bank = make(tmp_path, "parquet-fixed", features())
    assert repr(bank) == "FeatureBank(parquet, shape=(200, 7), dtype=float32)"
    assert bank.array is None
