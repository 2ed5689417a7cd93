"""What the engine needs of a GPU: memory, copies, and launches by name. Two things provide it: the native
module (`cuda`), and CuPy with kernels compiled at run time (`cupy`).

The records below are those of csrc/cuda/state.cuh; tuples are passed to launches member by member.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..bank_formats import BFLOAT16

TILE = 128  # rows and columns of a tile
BINS = 4096  # of every histogram on the device
MAX_CANDIDATES = 4096
TOP = 256  # rows of the density order that the device looks at
DENSEST = 4

CLASS_STATE = np.dtype(
    [(name, "i8") for name in ("m", "rank", "list_start", "capacity")]
    + [(name, "f4") for name in ("lo", "hi", "bins_lo", "bins_hi")]
    + [(name, "f8") for name in ("window_lo", "window_hi", "exact_lo", "exact_hi")]
    + [(name, "u8") for name in ("above", "inside", "below_window", "num_candidates")]
    + [(name, "i8") for name in ("candidate_rank", "diagonal", "bin")]
    + [(name, "f8") for name in ("expected", "cutoff")]
    + [(name, "i4") for name in ("status", "padding")]
)
ENTRY = np.dtype([("row", "i4"), ("column", "i4"), ("value", "f8")])
PICKED = np.dtype([(name, "i4") for name in ("count", "rejected", "status", "padding")])

OK, MISSED, OVERFLOW, TIES, DEEP = range(5)  # status of a class
TRIANGLE, SAMPLE, RECTANGLE = range(3)  # shape of the work
LOOPS = {"simt": 0, "mma": 1, "wgmma": 2, "wgmma-cluster": 3}
SCORE_CLUSTER = "score-cluster"  # the scores of clusters of blocks, beside those of single blocks
WITHOUT_LOOPS = "PROTO_ENGINE_WITHOUT_LOOPS"
DTYPES = {np.dtype(np.float16): 0, BFLOAT16: 1, np.dtype(np.float32): 2, np.dtype(np.float64): 3}


def loops_left_out() -> frozenset[str]:
    """Tile loops and "score-cluster", where they must not be started, as PROTO_ENGINE_WITHOUT_LOOPS lists them with
    commas in between: a self-check finds a loop that is wrong, and waits forever for one that hangs."""
    known = (*LOOPS, SCORE_CLUSTER)
    names = frozenset(filter(None, map(str.strip, os.environ.get(WITHOUT_LOOPS, "").split(","))))
    if unknown := sorted(names.difference(known)):
        raise ValueError(f"{WITHOUT_LOOPS}: wanted some of {', '.join(known)}, got {', '.join(unknown)}")
    return names


class StoredRows(NamedTuple):
    """Rows as stored, any stride; ``squares`` is the address of their [num_rows] float64 squares, or 0."""

    data: int
    num_rows: int
    dim: int
    stride: int
    dtype: int
    squares: int


class TileRows(NamedTuple):
    """Rows for a tile loop: ``scale`` is the address of [num_rows] float32 inverse norms, or 0 for ``uniform``."""

    data: int
    num_rows: int
    dim: int
    stride: int
    dtype: int
    segments: int
    scale: int
    uniform: float


class Work(NamedTuple):
    """Tiles ``first`` to ``last`` of the one list of all classes; addresses of [C + 1] int64 each."""

    offsets: int
    tile_start: int
    first: int
    last: int
    rounds: int
    columns: int
    shape: int


class TilePass(NamedTuple):
    loop: int
    work: Work
    rows: TileRows
    columns: TileRows


class Memory(Protocol):
    """Memory of the device; given back when nobody refers to it."""

    @property
    def pointer(self) -> int: ...


class Gpu(Protocol):
    """One device and one stream of it."""

    device: int
    stream: int

    def current(self) -> AbstractContextManager[Any]:
        """Makes the device the current one meanwhile."""

    def empty(self, num_bytes: int) -> Memory: ...

    def upload(self, array: np.ndarray, to: int) -> None:
        """Copies a contiguous array to an address."""

    def download(self, address: int, array: np.ndarray) -> None:
        """Copies to a contiguous array, and waits for it."""

    def fill(self, address: int, byte: int, num_bytes: int) -> None: ...

    def free_bytes(self) -> int:
        """Memory of the device that could be had now."""

    def launch(self, name: str, *arguments: Any) -> None:
        """A launch function of csrc/cuda/proto_engine_cuda.h without its prefix, less the stream."""


def uploaded(gpu: Gpu, array: np.ndarray) -> Memory:
    """An array in new memory of the device."""
    array = np.ascontiguousarray(array)
    memory = gpu.empty(array.nbytes)
    gpu.upload(array, memory.pointer)
    return memory


def filled(gpu: Gpu, num_bytes: int, byte: int = 0) -> Memory:
    memory = gpu.empty(num_bytes)
    gpu.fill(memory.pointer, byte, num_bytes)
    return memory


def downloaded(gpu: Gpu, address: int, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
    """A new array with what is at an address of the device."""
    array = np.empty(shape, dtype=dtype)
    if array.nbytes:
        gpu.download(address, array)
    return array


class DeviceOutput:
    """A result that stays on the device: an array that torch and CuPy can take over without a copy."""

    def __init__(self, gpu: Gpu, memory: Memory, shape: tuple[int, ...], dtype: Any, offset: int = 0) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._gpu, self._memory, self._offset = gpu, memory, offset  # in bytes

    @property
    def pointer(self) -> int:
        return self._memory.pointer + self._offset

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "version": 3,
            "stream": self._gpu.stream or 1,
        }

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        with self._gpu.current():
            return downloaded(self._gpu, self.pointer, self.shape, self.dtype).astype(dtype or self.dtype, copy=False)
