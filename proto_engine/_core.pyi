"""The native module; csrc/proto_engine.h is the contract. Half types are passed as uint16 bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

cuda_architectures: str | None

def set_blas(sgemm: object, ssyrk: object) -> None: ...
def instruction_set() -> str: ...
def use_instruction_set(name: str) -> bool: ...
def squared_norms(x: np.ndarray, dtype: str, num_threads: int) -> NDArray[np.float64]: ...
def normalize(x: np.ndarray, dtype: str, squares: NDArray[np.float64], num_threads: int) -> NDArray[np.float32]: ...
def pair_similarity(
    x: np.ndarray,
    dtype: str,
    squares: NDArray[np.float64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    num_threads: int,
) -> NDArray[np.float64]: ...
def similarity(unit: NDArray[np.float32], tile: int, num_threads: int) -> NDArray[np.float32]: ...
def count_bracket(
    unit: NDArray[np.float32], lo: float, hi: float, capacity: int, tile: int, num_threads: int
) -> tuple[NDArray[np.int64], int, NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]: ...
def count_bracket_by_class(
    unit: NDArray[np.float32],
    offsets: NDArray[np.int64],
    lo: float,
    hi: float,
    capacity: int,
    tile: int,
    num_threads: int,
) -> tuple[NDArray[np.int32], int, NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]: ...
def histogram(
    x: np.ndarray,
    dtype: str,
    squares: NDArray[np.float64],
    unit: NDArray[np.float32],
    lo: float,
    hi: float,
    bound: float,
    bins: int,
    tile: int,
    num_threads: int,
) -> tuple[int, NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]: ...
def count_threshold(
    x: np.ndarray,
    dtype: str,
    squares: NDArray[np.float64],
    unit: NDArray[np.float32],
    cutoff: float,
    bound: float,
    tile: int,
    num_threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
def count_threshold_by_class(
    x: np.ndarray,
    dtype: str,
    squares: NDArray[np.float64],
    unit: NDArray[np.float32],
    offsets: NDArray[np.int64],
    cutoff: float,
    bound: float,
    tile: int,
    num_threads: int,
) -> NDArray[np.int32]: ...
def extreme_similarity(
    x: np.ndarray,
    dtype: str,
    squares: NDArray[np.float64],
    unit: NDArray[np.float32],
    order: NDArray[np.int64],
    rows: NDArray[np.int64],
    limit: NDArray[np.int64],
    smallest: NDArray[np.uint8],
    bound: float,
    num_threads: int,
) -> NDArray[np.float64]: ...
def score(x: np.ndarray, dtype: str, folded: NDArray[np.float64], num_threads: int) -> NDArray[np.float32]: ...
def score_top2(
    x: np.ndarray, dtype: str, folded: NDArray[np.float64], bound: float, num_threads: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]: ...

cuda: Any
"""Launches on a GPU (csrc/cuda_bindings.cpp), memory and streams (csrc/cuda_memory_bindings.cpp).

There only when `cuda_architectures` is not None.
"""
