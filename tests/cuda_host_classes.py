"""Classes of rows and what the launches do to them, on the host: its memory is the device's."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

from proto_engine.backends.device import CLASS_STATE, ENTRY, PICKED

__all__ = ["CLASS_STATE", "ENTRY", "PICKED", "Classes", "at"]

TILE = 128
BINS = 4096
TOP, DENSEST, CANDIDATES = 256, 4, 4096
DTYPES = [np.dtype(t) for t in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)]
LOOPS = {"simt": 0, "mma": 1, "wgmma": 2, "wgmma-cluster": 3}
SHAPES = {"triangle": 0, "sample": 1, "rectangle": 2}
STREAM = 0
SPLIT_SCALE = 1024.0


def at(array: np.ndarray | None) -> int:
    return 0 if array is None else array.ctypes.data


class Classes:
    """Rows of several classes, one after another, with their squares and inverse norms."""

    def __init__(self, core: ModuleType, x: np.ndarray, sizes: Sequence[int]) -> None:
        self.core, self.cuda = core, core.cuda
        self.x, self.sizes = x, list(sizes)  # [M, D]; its rows may lie apart
        self.count, self.dim = x.shape
        assert sum(sizes) == self.count
        self.stride = x.strides[0] // x.itemsize
        self.offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.squares = np.full(self.count, np.nan)
        self.inverse = np.full(self.count, np.nan, np.float32)
        self.cuda.squares(self.rows, at(self.squares), STREAM)
        self.cuda.inverse(at(self.squares), self.count, at(self.inverse), STREAM)

    @property
    def num_classes(self) -> int:
        return len(self.sizes)

    @property
    def rows(self) -> tuple[int, ...]:
        """The rows as stored, for look-ups in float64."""
        return (at(self.x), self.count, self.dim, self.stride, DTYPES.index(self.x.dtype), at(self.squares))

    def part(self, c: int) -> slice:
        return slice(int(self.offsets[c]), int(self.offsets[c + 1]))

    def alone(self, c: int) -> Classes:
        return Classes(self.core, self.x[self.part(c)], [self.sizes[c]])

    def unit(self) -> np.ndarray:
        unit = np.full((self.count, self.dim), np.nan, np.float32)
        self.cuda.unit(self.rows, at(unit), STREAM)
        return unit

    def split(self) -> np.ndarray:
        """[M, 2 * padded] float16"""
        padded = -(-self.dim // 64) * 64
        split = np.full((self.count, 2 * padded), np.nan, np.float16)
        self.cuda.split(self.rows, at(split), padded, STREAM)
        return split

    def tile_rows(self, form: str) -> tuple[Any, ...]:
        """The rows for a tile loop: as "stored", "unit" rows or "split" ones."""
        if form == "stored":
            return (at(self.x), self.count, self.dim, self.stride, DTYPES.index(self.x.dtype), 1, at(self.inverse), 0.0)
        if form == "unit":
            self.made = self.unit()
            return (at(self.made), self.count, self.dim, self.dim, DTYPES.index(np.dtype(np.float32)), 1, 0, 1.0)
        self.made = self.split()
        padded = self.made.shape[1] // 2
        return (at(self.made), self.count, padded, 2 * padded, 0, 3, 0, 1.0 / SPLIT_SCALE)

    def tile_pass(self, loop: str, form: str, shape: str = "triangle", rounds: int = 1) -> tuple[Any, ...]:
        """A pass over the tiles of all classes."""
        sides = [-(-m // TILE) for m in self.sizes]
        if shape == "triangle":
            tiles = [side * (side + 1) // 2 for side in sides]
        else:
            tiles = [self.core.sample_tiles(side, rounds) for side in sides]
        self.tile_start = np.concatenate([[0], np.cumsum(tiles)]).astype(np.int64)
        last = int(self.tile_start[-1])
        work = (at(self.offsets), at(self.tile_start), 0, last, rounds, 0, SHAPES[shape])
        rows = self.tile_rows(form)
        return (LOOPS[loop], work, rows, rows)

    def similarity(self, loop: str, form: str) -> np.ndarray:
        """s32 of the only class, ones on the diagonal.   [m, m]"""
        out = np.full((self.count, self.count), np.nan, np.float32)
        self.cuda.similarity(self.tile_pass(loop, form), at(out), STREAM)
        return out
