"""The CUDA kernels compiled for the host (see tests/cuda_host) and how to call them."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "tests" / "cuda_host"
FLAGS = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-fPIC", "-shared", "-pthread"]
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]  # `#pragma unroll` is the GPU's
SANITIZED = os.environ.get("PROTO_ENGINE_SANITIZED") == "1"

TILE = 128
BINS = 4096
ELEMENTS: dict[Any, int] = {
    np.dtype(np.float16): 0,
    np.dtype(ml_dtypes.bfloat16): 1,
    np.dtype(np.float32): 2,
    np.dtype(np.float64): 3,
}
LOOPS = {"simt": 0, "mma": 1}
EPILOGUES = {"count": 0, "histogram": 1, "store": 2}
SHAPES = {"triangle": 0, "sample": 1, "rectangle": 2}

CLASS_STATE = np.dtype(
    [(name, "i8") for name in ("m", "rank", "list_start", "capacity")]
    + [(name, "f4") for name in ("lo", "hi", "bins_lo", "bins_hi")]
    + [(name, "f8") for name in ("window_lo", "window_hi", "exact_lo", "exact_hi")]
    + [(name, "u8") for name in ("above", "inside", "below_window", "num_candidates")]
    + [(name, "i8") for name in ("candidate_rank", "diagonal", "bin")]
    + [(name, "f8") for name in ("expected", "cutoff")]
    + [(name, "i4") for name in ("status", "padding")]
)
assert CLASS_STATE.itemsize == 160
ENTRY = np.dtype([("row", "i4"), ("column", "i4"), ("value", "f8")])


class HostError(RuntimeError):
    """What the stand-in for CUDA found wrong with a launch."""


class Work(ctypes.Structure):
    _fields_ = [
        ("offsets", ctypes.c_void_p),
        ("tile_start", ctypes.c_void_p),
        ("first", ctypes.c_int64),
        ("last", ctypes.c_int64),
        ("rounds", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("shape", ctypes.c_int32),
    ]


class Operand(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        ("scale", ctypes.c_void_p),
        ("uniform", ctypes.c_float),
        ("dim", ctypes.c_int32),
        ("segments", ctypes.c_int32),
    ]


def compiler() -> str | None:
    """A C++ compiler, if there is one."""
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next((found for name in names if (found := shutil.which(name))), None)


def build(folder: Path, source: str = "kernels.cpp") -> Path:
    """Compile one of the sources in tests/cuda_host into a library in ``folder``."""
    library = folder / f"{Path(source).stem}.so"
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if SANITIZED else []
    includes = [f"-I{SOURCES}", f"-I{ROOT / 'csrc' / 'cuda'}"]
    command = [str(compiler()), *FLAGS, *WARNINGS, *sanitizers, "-DPROTO_ENGINE_CUDA_HOST", *includes]
    outcome = subprocess.run([*command, "-o", str(library), str(SOURCES / source)], capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    return library


class Library:
    """The C functions of a library, with arrays as pointers and errors as exceptions."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))

    def __call__(self, name: str, *arguments: Any) -> None:
        """Call a function that returns null or the text of an error."""
        function = getattr(self._library, name)
        function.restype = ctypes.c_char_p
        error = function(*(as_argument(argument) for argument in arguments))
        if error is not None:
            raise HostError(error.decode())

    def value(self, restype: Any, name: str, *arguments: Any) -> Any:
        """Call a function that cannot fail."""
        function = getattr(self._library, name)
        function.restype = restype
        return function(*(as_argument(argument) for argument in arguments))

    def launch_as(self, x: int, y: int = 1, seed: int = 0) -> None:
        """Grid of the launches to come, and the seed that shuffles blocks and threads (0: in order)."""
        self.value(None, "set_launch", x, y, seed)


def as_argument(value: Any) -> Any:
    """NumPy arrays as pointers, Python's ints and floats as the widest of C's."""
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, ctypes.Structure):
        return ctypes.byref(value)
    if isinstance(value, int):
        return ctypes.c_int64(value)
    if isinstance(value, float):
        return ctypes.c_double(value)
    return value


def tiles_of(m: int) -> int:
    side = -(-m // TILE)
    return side * (side + 1) // 2


class Rows:
    """Rows of classes, one after another, as the tile loops read them."""

    def __init__(self, x: np.ndarray, sizes: Sequence[int], squares: np.ndarray) -> None:
        self.x = np.ascontiguousarray(x)  # [M, D]
        self.sizes = list(sizes)
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)
        self.squares = squares
        with np.errstate(divide="ignore"):
            self.inverse = (1.0 / np.sqrt(squares)).astype(np.float32)

    @property
    def num_classes(self) -> int:
        return len(self.sizes)

    def operand(self) -> Operand:
        """The rows as stored, with their inverse norms."""
        dim = self.x.shape[1]
        return Operand(self.x.ctypes.data, dim, self.inverse.ctypes.data, 0.0, dim, 1)

    def work(self, shape: str = "triangle", rounds: int = 1) -> Work:
        tiles = [tiles_of(m) if shape == "triangle" else sample_tiles(m, rounds) for m in self.sizes]
        self.tile_start = np.concatenate([[0], np.cumsum(tiles)]).astype(np.int64)  # kept alive with self
        last = int(self.tile_start[-1])
        return Work(self.offsets.ctypes.data, self.tile_start.ctypes.data, 0, last, rounds, 0, SHAPES[shape])


def sample_tiles(m: int, rounds: int) -> int:
    side = -(-m // TILE)
    return side * rounds if side > 4 else side * (side + 1) // 2


def run_tiles(library: Library, loop: str, epilogue: str, rows: Rows, work: Work, *params: np.ndarray) -> None:
    """One pass of tile_kernel over the tiles of ``work``."""
    pointers = (ctypes.c_void_p * len(params))(*(array.ctypes.data for array in params))
    operand = rows.operand()
    library("run_tiles", LOOPS[loop], ELEMENTS[rows.x.dtype], EPILOGUES[epilogue], work, operand, operand, pointers)
