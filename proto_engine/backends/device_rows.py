"""Rows on a GPU, made ready for a tile loop.

=====  ====================  ==========================================================================
loop   rows                  what is multiplied
=====  ====================  ==========================================================================
simt   any                   float32 unit rows, in float32
mma,   float16, bfloat16     the rows as stored, on tensor cores; inverse norms in the epilogue
wgmma  float32, float64      unit rows as the sum of two float16, three products on tensor cores
=====  ====================  ==========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..bank_formats import BFLOAT16
from .base import error_bound
from .device import DTYPES, LOOPS, Gpu, StoredRows, TilePass, TileRows, Work, uploaded

CHUNK = 128  # elements that tensor cores sum before float32 takes over (kChunk)
SPLIT_SCALE = 1024.0
_SAFE_SQUARES = (2.0**-80, 2.0**80)  # of bfloat16 rows, so that no product leaves float32
_ITEMSIZE = {code: dtype.itemsize for dtype, code in DTYPES.items()}


def tensor_core_bound(dim: int, segments: int) -> float:
    """How far s32 from tensor cores can be from the pinned float64 similarity.

    Parameters
    ----------
    dim : int
        D.
    segments : int
        1 for rows as stored; 3 for float32 rows split in two.

    Returns
    -------
    float
        ``n u / (1 - n u)`` with ``n = 3 min(segments D, 128) + segments ceil(D / 128) + 32`` and ``u = 2**-24``.

    Notes
    -----
    Tensor cores add a few products and the running sum at once, each cut off below the last bit of the
    largest (Fasi, Higham, Mikaitis, Pranesh: *Numerical behavior of NVIDIA tensor cores*, PeerJ Computer
    Science 7, 2021). With four products at a time, the fewest of any generation, five terms lose at most 2 u
    of the largest each and the result once more: 12 u for four products, 3 u each. Sums are taken out after
    128 products, so these errors do not pile up beyond 3 * 128 u of the sum of absolute products, which is
    at most 1 for unit rows; each chunk costs one rounding more. Chunks go on from segment to segment: those
    of short split rows are as long, and beside the sum of the high halves a product of low ones loses as much
    as any. The last 32 pay for what is left: the inverse norms and both multiplications by them (4), and for
    split rows the products of the low halves that are left out, the roundings of the halves and of the unit
    row (less than 18).
    """
    n = (3 * min(segments * dim, CHUNK) + segments * -(-dim // CHUNK) + 32) * 2.0**-24
    return n / (1.0 - n)


@dataclass
class DeviceRows:
    """A matrix on a GPU, elements of a row side by side.   [count, dim]"""

    gpu: Gpu
    pointer: int
    count: int
    dim: int
    stride: int  # elements
    dtype: np.dtype
    owner: Any  # keeps the memory

    def __len__(self) -> int:
        return self.count

    @property
    def shape(self) -> tuple[int, int]:
        return self.count, self.dim

    def stored(self, squares: int = 0) -> StoredRows:
        return StoredRows(self.pointer, self.count, self.dim, self.stride, DTYPES[self.dtype], squares)

    def gathered(self, index: np.ndarray, multiple: int = 1) -> DeviceRows:
        """Rows of that order in new memory; rows begin at multiples of ``multiple`` elements, zeros between."""
        size = self.dtype.itemsize
        stride = -(-self.dim // multiple) * multiple
        memory = self.gpu.empty(len(index) * stride * size)
        if stride != self.dim:
            self.gpu.fill(memory.pointer, 0, len(index) * stride * size)
        order = uploaded(self.gpu, index.astype(np.int64, copy=False))
        self.gpu.launch(
            "gather",
            self.pointer,
            self.stride * size,
            order.pointer,
            len(index),
            self.dim * size,
            memory.pointer,
            stride * size,
        )
        return DeviceRows(self.gpu, memory.pointer, len(index), self.dim, stride, self.dtype, memory)


@dataclass
class ReadyRows:
    """Rows with their squares, and what a tile loop multiplies of them."""

    gpu: Gpu
    loop: str
    stored: StoredRows
    tiles: TileRows
    bound: float  # |s32 - S| is at most this
    owners: list[Any] = field(default_factory=list)

    def tile_pass(self, work: Work) -> TilePass:
        """A pass over tiles of these rows against each other."""
        return TilePass(LOOPS[self.loop], work, self.tiles, self.tiles)

    def part(self, start: int, stop: int) -> ReadyRows:
        """Rows ``start`` to ``stop``, without a copy."""
        stored, tiles = self.stored, self.tiles
        scale = tiles.scale and tiles.scale + 4 * start
        return ReadyRows(
            self.gpu,
            self.loop,
            stored._replace(
                data=stored.data + start * stored.stride * _ITEMSIZE[stored.dtype],
                num_rows=stop - start,
                squares=stored.squares + 8 * start,
            ),
            tiles._replace(
                data=tiles.data + start * tiles.stride * _ITEMSIZE[tiles.dtype], num_rows=stop - start, scale=scale
            ),
            self.bound,
            self.owners,
        )


def make_ready(rows: DeviceRows, squares: np.ndarray, loop: str) -> ReadyRows:
    """Rows, all usable, made ready for the tile loop of that name.   squares [count] float64"""
    gpu = rows.gpu
    device_squares = uploaded(gpu, squares)
    stored = rows.stored(device_squares.pointer)
    owners: list[Any] = [rows.owner, device_squares]
    if loop == "simt":
        unit = gpu.empty(4 * rows.count * rows.dim)
        gpu.launch("unit", stored, unit.pointer)
        tiles = TileRows(
            unit.pointer, rows.count, rows.dim, rows.dim, DTYPES[np.dtype(np.float32)], segments=1, scale=0, uniform=1.0
        )
        return ReadyRows(gpu, loop, stored, tiles, error_bound(rows.dim), [*owners, unit])
    if rows.dtype in (np.float16, BFLOAT16) and (rows.dtype == np.float16 or _is_safe(squares)):
        if rows.dim % 8 or rows.stride % 8 or rows.pointer % 16:  # copies are made 16 bytes at a time
            rows = rows.gathered(np.arange(rows.count), multiple=8)
            owners.append(rows.owner)
        inverse = gpu.empty(4 * rows.count)
        gpu.launch("inverse", device_squares.pointer, rows.count, inverse.pointer)
        padded = -(-rows.dim // 8) * 8
        tiles = TileRows(
            rows.pointer, rows.count, padded, rows.stride, DTYPES[rows.dtype], 1, inverse.pointer, uniform=1.0
        )
        return ReadyRows(gpu, loop, stored, tiles, tensor_core_bound(padded, 1), [*owners, inverse])
    padded = -(-rows.dim // 64) * 64
    split = gpu.empty(4 * rows.count * padded)
    gpu.launch("split", stored, split.pointer, padded)
    tiles = TileRows(
        split.pointer, rows.count, padded, 2 * padded, DTYPES[np.dtype(np.float16)], 3, 0, uniform=1.0 / SPLIT_SCALE
    )
    return ReadyRows(gpu, loop, stored, tiles, tensor_core_bound(padded, 3), [*owners, split])


def _is_safe(squares: np.ndarray) -> bool:
    return bool(_SAFE_SQUARES[0] <= squares.min() and squares.max() <= _SAFE_SQUARES[1])
