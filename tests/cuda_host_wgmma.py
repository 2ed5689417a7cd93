"""The launches of the tile loops for Hopper, compiled for the host, and rows for them."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cuda_host_library
import ml_dtypes
import numpy as np
import pytest
from cuda_host_classes import LOOPS, SHAPES, TILE, at

EPILOGUES = {"count": 0, "histogram": 1, "store": 2}


class Work(ctypes.Structure):
    _fields_ = [
        ("offsets", ctypes.c_void_p),
        ("tile_start", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("first", "last", "rounds", "columns")),
        ("shape", ctypes.c_int32),
    ]


class TileRows(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        ("scale", ctypes.c_void_p),
        ("uniform", ctypes.c_float),
        ("dim", ctypes.c_int32),
        ("segments", ctypes.c_int32),
        ("count", ctypes.c_int64),
        ("dtype", ctypes.c_int32),
    ]


class TilePass(ctypes.Structure):
    _fields_ = [("loop", ctypes.c_int32), ("work", Work), ("rows", TileRows), ("columns", TileRows)]


class HostError(RuntimeError):
    """What the stand-in for CUDA found wrong with a launch."""


class Library:
    """The launches of the loop, compiled for the host."""

    def __init__(self, folder: Path) -> None:
        native, stand_in = cuda_host_library.NATIVE, cuda_host_library.STAND_IN
        sources = [stand_in / "wgmma.cpp", stand_in / "cluster.cpp", native / "cuda" / "tensor_map.cu"]
        command = [str(cuda_host_library.compiler()), "-shared", "-O1", *cuda_host_library.FLAGS, "-Wno-psabi"]
        command += cuda_host_library.SANITIZERS if cuda_host_library.SANITIZED else []
        command += ["-DPROTO_ENGINE_CUDA_HOST", *(f"-I{path}" for path in (native, native / "cuda", stand_in))]
        target = folder / "wgmma.so"
        cuda_host_library.run([*command, "-x", "c++", *map(str, sources), "-o", str(target)])
        self.library = ctypes.CDLL(str(target))

    def __call__(self, name: str, *arguments: Any) -> None:
        function = getattr(self.library, name)
        function.restype = ctypes.c_char_p
        error = function(*(ctypes.c_int64(a) if isinstance(a, int) else a for a in arguments))
        if error is not None:
            self.unfinished()  # none of the next launch's business
            raise HostError(error.decode())

    def unfinished(self) -> int:
        """Blocks that ended in the midst of a copy, a phase or a product."""
        return int(self.library.host_unfinished_blocks())

    def run(self, epilogue: str, tiles: TilePass, *params: np.ndarray, seed: int = 0) -> None:
        pointers = (ctypes.c_void_p * len(params))(*map(at, params))
        bfloat16 = int(tiles.rows.dtype == 1)
        self("host_wgmma", seed, bfloat16, EPILOGUES[epilogue], ctypes.byref(tiles), pointers)
        assert self.unfinished() == 0


def load(temporary: pytest.TempPathFactory) -> Library:
    """The library; compiled once a session."""
    return _compiled(temporary.getbasetemp())


@functools.cache
def _compiled(folder: Path) -> Library:
    return Library(folder)


def whole_numbers(m: int, dim: int, dtype: Any, seed: int = 0) -> np.ndarray:
    """Rows whose products float32 adds without rounding, in any order.   [m, dim]"""
    return np.random.default_rng(seed).integers(-8, 9, (m, dim)).astype(dtype)


def products(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) @ y.astype(np.float32).T


class Rows:
    """Rows for the loop: as they are, or [high | low] halves of which three products are added."""

    def __init__(self, x: np.ndarray, *, dim: int | None = None, segments: int = 1, uniform: float | None = None):
        self.x = x
        self.scale = np.random.default_rng(9).random(len(x), dtype=np.float32) + np.float32(0.5)
        dim = dim or x.shape[1] // (1 if segments == 1 else 2)
        stride = x.strides[0] // 2
        dtype = int(x.dtype == ml_dtypes.bfloat16)
        scale = at(self.scale) if uniform is None else 0
        self.tile_rows = TileRows(at(x), stride, scale, uniform or 0.0, dim, segments, len(x), dtype)


def triangle(sizes: Sequence[int], rows: Rows, loop: int = LOOPS["wgmma"]) -> TilePass:
    sides = [-(-m // TILE) for m in sizes]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    tile_start = np.concatenate([[0], np.cumsum([side * (side + 1) // 2 for side in sides])]).astype(np.int64)
    work = Work(at(offsets), at(tile_start), 0, int(tile_start[-1]), 1, 0, SHAPES["triangle"])
    tiles = TilePass(loop, work, rows.tile_rows, rows.tile_rows)
    tiles.alive = (rows, offsets, tile_start)  # as long as the pass that points to them
    return tiles
