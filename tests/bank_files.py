"""Small feature banks, and the files of every kind that hold one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

from proto_engine.bank import FeatureBank

N, D = 200, 7


def features(dtype: Any = np.float32, num_samples: int = N, dim: int = D) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(num_samples, dim)).astype(dtype)


def list_column(x: np.ndarray, fixed: bool = True) -> pa.Array:
    values = pa.array(x.ravel())
    if fixed:
        return pa.FixedSizeListArray.from_arrays(values, x.shape[1])
    return pa.ListArray.from_arrays(np.arange(len(x) + 1, dtype=np.int32) * x.shape[1], values)


def write_parquet(path: Path, x: np.ndarray, fixed: bool = True, **options: Any) -> None:
    table = pa.table({"id": np.arange(len(x)), "feature": list_column(x, fixed)})
    pq.write_table(table, path, **{"row_group_size": 33, **options})


WRITERS: dict[str, tuple[str, Callable[[Path, np.ndarray], Any]]] = {
    "npy": ("bank.npy", np.save),
    "npy-fortran": ("bank.npy", lambda path, x: np.save(path, np.asfortranarray(x))),
    "safetensors": ("bank.safetensors", lambda path, x: safetensors.numpy.save_file({"features": x}, path)),
    "parquet-fixed": ("bank.parquet", write_parquet),
    "parquet-lists": ("bank.parquet", lambda path, x: write_parquet(path, x, fixed=False)),
}


def make(tmp_path: Path, kind: str, x: np.ndarray) -> FeatureBank:
    name, write = WRITERS[kind]
    write(tmp_path / name, x)
    return FeatureBank.open(tmp_path / name)


def assert_same_bits(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    assert got.tobytes() == wanted.tobytes()
