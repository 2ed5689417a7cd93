"""Greatest and least similarities of listed rows on a GPU: tiles find whom to look up, float64 decides."""

from __future__ import annotations

import numpy as np

from . import device_scan
from .device import ENTRY, RECTANGLE, TILE, Memory, TilePass, TileRows, Work, downloaded, filled, uploaded
from .device_rows import ReadyRows
from .device_scan import at_once_or_in_slabs, from_ordered

_COLUMNS_AT_ONCE = 32768


def extremes_of(
    rows: ReadyRows, order: np.ndarray, listed: np.ndarray, limit: np.ndarray, smallest: np.ndarray
) -> np.ndarray:
    """Max, or min where ``smallest``, of S over order[:limit[t]], for each listed row.   [n] float64"""
    gpu, n = rows.gpu, len(listed)
    on_device = [uploaded(gpu, array.astype(np.int64)) for array in (listed, order)]
    flags = uploaded(gpu, smallest.astype(np.uint8))
    tiles, keep = _tiles_of(rows, listed)
    best, eta = filled(gpu, 4 * n), filled(gpu, 8 * n)
    entries, length = gpu.empty(ENTRY.itemsize * device_scan.SLAB_PAIRS), gpu.empty(8)
    for start in range(0, int(limit.max()), _COLUMNS_AT_ONCE):
        columns = order[start : min(start + _COLUMNS_AT_ONCE, int(limit.max()))]
        column_tiles, keep_columns = _tiles_of(rows, columns)
        local = uploaded(gpu, np.clip(limit - start, 0, len(columns)).astype(np.int64))
        extremes = (local.pointer, flags.pointer, best.pointer)
        num_tiles = -(-n // TILE) * -(-len(columns) // TILE)
        starts = uploaded(gpu, np.array([0, n, 0, num_tiles], dtype=np.int64))

        def tile_pass(first: int, last: int) -> TilePass:
            work = Work(starts.pointer, starts.pointer + 16, first, last, 0, len(columns), RECTANGLE)  # noqa: B023
            return rows.tile_pass(work)._replace(rows=tiles, columns=column_tiles)  # noqa: B023

        def near(first: int, last: int) -> int:
            # The greatest S of the columns lies within two bounds of the greatest s32; one more for rounding.
            gpu.fill(length.pointer, 0, 8)
            reach, list_of = 3 * rows.bound, (entries.pointer, length.pointer, device_scan.SLAB_PAIRS)
            gpu.launch("near", tile_pass(first, last), extremes, reach, *list_of)  # noqa: B023
            return int(downloaded(gpu, length.pointer, 1, np.uint64)[0])

        gpu.launch("best", tile_pass(0, num_tiles), extremes)
        for found in at_once_or_in_slabs(near, num_tiles):
            gpu.launch(
                "list_extremes",
                rows.stored,
                entries.pointer,
                found,
                on_device[0].pointer,
                on_device[1].pointer + 8 * start,
                flags.pointer,
                eta.pointer,
            )
        del keep_columns
    del keep
    value = from_ordered(downloaded(gpu, eta.pointer, n, np.uint64))
    return np.where(smallest, -value, value)


def _tiles_of(rows: ReadyRows, index: np.ndarray) -> tuple[TileRows, list[Memory]]:
    """What the tile loop multiplies of these rows, in this order."""
    gpu, tiles = rows.gpu, rows.tiles
    order = uploaded(gpu, index.astype(np.int64))
    size = 4 if rows.loop == "simt" else 2
    width = tiles.dim * (2 if tiles.segments == 3 else 1)
    memory = gpu.empty(len(index) * width * size)
    gpu.launch(
        "gather", tiles.data, tiles.stride * size, order.pointer, len(index), width * size, memory.pointer, width * size
    )
    scale = gpu.empty(4 * len(index)) if tiles.scale else None
    if scale:
        gpu.launch("gather", tiles.scale, 4, order.pointer, len(index), 4, scale.pointer, 4)
    gathered = tiles._replace(
        data=memory.pointer, num_rows=len(index), stride=width, scale=scale.pointer if scale else 0
    )
    return gathered, [memory, order, *([scale] if scale else [])]
