"""The launch functions of csrc/cuda/proto_engine_cuda.h for kernels that CuPy launches: the same names, arguments,
grids and shared memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .cupy_compiler import Kernel, Program
from .cupy_programs import (
    BY_ELEMENT,
    COMMON,
    ELEMENTS,
    LOOPS,
    OPERAND,
    PARAMETERS,
    ROW_GROUPS,
    ROW_THREADS,
    TILE_THREADS,
    WORK,
    by_value,
    common_program,
    element_program,
    shared_bytes,
    tile_program,
)
from .device import StoredRows, TilePass, TileRows

MOST_BLOCKS = 2048  # kMostBlocks


def blocks_for(items: int, per_block: int) -> int:
    """Kernels walk over their work in steps of the grid: more blocks than MOST_BLOCKS would only queue."""
    return min(max(1, -(-items // per_block)), MOST_BLOCKS)


def class_grid(num_classes: int) -> tuple[int, int]:
    """(blocks, classes), for lists whose lengths only the device knows."""
    return blocks_for(MOST_BLOCKS, num_classes), num_classes


class Launches:
    """Launch functions on one stream. ``find`` gives a kernel of a program by its name."""

    def __init__(self, find: Callable[[Program, str], Kernel], stream: Any) -> None:
        self._find, self._stream = find, stream

    def _common(self, name: str, grid: int | tuple[int, int], *values: Any) -> None:
        kernel = self._find(common_program(), name)
        self._start(kernel, grid, by_value(COMMON[name], values))

    def _by_element(self, name: str, dtype: int, grid: int | tuple[int, int], *values: Any) -> None:
        kernel = self._find(element_program(dtype), f"{name}<{ELEMENTS[dtype]}>")
        self._start(kernel, grid, by_value(BY_ELEMENT[name], values))

    def _start(self, kernel: Kernel, grid: int | tuple[int, int], arguments: list[np.ndarray]) -> None:
        shape = grid if isinstance(grid, tuple) else (grid,)
        kernel.launch(shape, ROW_THREADS, 0, self._stream, arguments)

    def _pass(self, epilogue: str, tiles: TilePass, parameters: tuple[Any, ...]) -> None:
        number, work, rows, columns = tiles
        if (number, rows.dtype) not in LOOPS:
            raise ValueError(f"loop: wanted simt for float32 or mma for 16-bit rows, got {number}, dtype {rows.dtype}")
        loop, count = LOOPS[number, rows.dtype], work.last - work.first
        if count <= 0:
            return
        program = tile_program(loop, epilogue)
        kernel, shared = self._find(program, program.kernels[0]), shared_bytes(loop, epilogue)
        blocks = min(count, kernel.most_blocks(TILE_THREADS, shared))
        values = (tuple(work), _operand(rows), _operand(columns), parameters)
        arguments = by_value((WORK, OPERAND, OPERAND, PARAMETERS[epilogue]), values)
        kernel.launch((blocks,), TILE_THREADS, shared, self._stream, arguments)

    # ---- rows

    def gather(self, from_: int, from_stride: int, index: int, n: int, num_bytes: int, to: int, to_stride: int) -> None:
        if n == 0 or num_bytes == 0:
            return
        piece = 16 if (from_ | to | from_stride | to_stride | num_bytes) % 16 == 0 else 2
        grid = blocks_for(n * (num_bytes // piece), ROW_THREADS)
        self._common("gather_kernel", grid, from_, from_stride, index, n, num_bytes, to, to_stride, piece)

    def inverse(self, squares: int, n: int, inverse: int) -> None:
        if n:
            self._common("inverse_kernel", blocks_for(n, ROW_THREADS), squares, n, inverse)

    def squares(self, x: StoredRows, squares: int) -> None:
        if x.num_rows:
            grid = blocks_for(x.num_rows, ROW_GROUPS)
            self._by_element("squares_kernel", x.dtype, grid, x.data, x.stride, x.dim, x.num_rows, squares)

    def unit(self, x: StoredRows, unit: int) -> None:
        if x.num_rows:
            grid = blocks_for(x.num_rows, 1)
            self._by_element("unit_kernel", x.dtype, grid, x.data, x.stride, x.dim, x.num_rows, x.squares, unit)

    def split(self, x: StoredRows, split: int, padded: int) -> None:
        if padded < x.dim or padded % 64:
            raise ValueError(f"padded: wanted a multiple of 64 from {x.dim} on, got {padded}")
        if x.num_rows:
            grid = blocks_for(x.num_rows, 1)
            self._by_element(
                "split_kernel", x.dtype, grid, x.data, x.stride, x.dim, x.num_rows, x.squares, split, padded
            )

    def pairs(self, x: StoredRows, first: int, second: int, n: int, out: int) -> None:
        if n:
            self._by_element("pairs_kernel", x.dtype, blocks_for(n, ROW_GROUPS), _rows(x), first, second, n, out)

    # ---- passes over the tiles

    def histogram(self, tiles: TilePass, states: int, histogram: int) -> None:
        self._pass("Histogram", tiles, (states, histogram))

    def count(self, tiles: TilePass, states: int, above: int, entries: int, histogram: int) -> None:
        self._pass("Count", tiles, (states, above, entries, histogram))

    def count_classes(
        self,
        tiles: TilePass,
        class_of: int,
        num_classes: int,
        lo: float,
        hi: float,
        above: int,
        list_: int,
        length: int,
        capacity: int,
    ) -> None:
        self._pass("ClassCount", tiles, (class_of, num_classes, lo, hi, above, list_, length, capacity))

    def similarity(self, tiles: TilePass, out: int) -> None:
        self._pass("Store", tiles, (out,))

    def best(self, tiles: TilePass, extremes: tuple[int, int, int]) -> None:
        self._pass("Best", tiles, extremes)

    def near(
        self, tiles: TilePass, extremes: tuple[int, int, int], reach: float, list_: int, length: int, capacity: int
    ) -> None:
        self._pass("Near", tiles, (extremes, reach, list_, length, capacity))

    # ---- from brackets to densities, a class a block

    def narrow(self, classes: int, states: int, histogram: int, sigmas: float, margin: float) -> None:
        self._common("narrow_kernel", classes, states, histogram, sigmas, margin)

    def settle(self, classes: int, states: int, histogram: int, bound: float) -> None:
        self._common("settle_kernel", classes, states, histogram, bound)

    def decide(
        self, x: StoredRows, classes: int, offsets: int, states: int, entries: int, above: int, histogram: int
    ) -> None:
        values = (_rows(x), offsets, states, entries, above, histogram)
        self._by_element("decide_kernel", x.dtype, class_grid(classes), *values)

    def cutoff(self, classes: int, states: int, histogram: int, entries: int, candidates: int) -> None:
        self._common("locate_kernel", classes, states, histogram)
        self._common("collect_kernel", class_grid(classes), states, entries, candidates)
        self._common("cutoff_kernel", classes, states, candidates)

    def rho(self, classes: int, offsets: int, states: int, entries: int, above: int, equal: int, rho: int) -> None:
        self._common("patch_kernel", class_grid(classes), offsets, states, entries, above, equal)
        self._common("rho_kernel", class_grid(classes), offsets, states, above, equal, rho)

    # ---- picks

    def top(self, classes: int, offsets: int, states: int, rho: int, top: int) -> None:
        self._common("top_kernel", classes, offsets, states, rho, top)

    def pick(
        self,
        x: StoredRows,
        classes: int,
        offsets: int,
        states: int,
        rho: int,
        top: int,
        smallest: int,
        may_pick: int,
        p: int,
        eta_max: float,
        picked: int,
        row: int,
        density: int,
        eta: int,
    ) -> None:
        common = (_rows(x), offsets, states, rho, top, smallest)
        self._by_element("smallest_kernel", x.dtype, class_grid(classes), *common)
        self._by_element("pick_kernel", x.dtype, classes, *common, may_pick, p, eta_max, picked, row, density, eta)

    # ---- lists of pairs of one class

    def list_bins(
        self,
        x: StoredRows,
        list_: int,
        n: int,
        lo: float,
        hi: float,
        bins: int,
        count: int,
        least: int,
        most: int,
        above: int,
    ) -> None:
        if n:
            values = (_rows(x), list_, n, lo, hi, bins, count, least, most, above)
            self._by_element("list_bins_kernel", x.dtype, blocks_for(n, ROW_GROUPS), *values)

    def list_threshold(self, x: StoredRows, list_: int, n: int, cutoff: float, above: int, equal: int) -> None:
        if n:
            values = (_rows(x), list_, n, cutoff, above, equal)
            self._by_element("list_threshold_kernel", x.dtype, blocks_for(n, ROW_GROUPS), *values)

    def list_classes(
        self, x: StoredRows, list_: int, n: int, cutoff: float, class_of: int, num_classes: int, above: int
    ) -> None:
        if n:
            values = (_rows(x), list_, n, cutoff, class_of, num_classes, above)
            self._by_element("list_classes_kernel", x.dtype, blocks_for(n, ROW_GROUPS), *values)

    def list_extremes(self, x: StoredRows, list_: int, n: int, rows: int, order: int, smallest: int, eta: int) -> None:
        if n:
            values = (_rows(x), list_, n, rows, order, smallest, eta)
            self._by_element("list_extremes_kernel", x.dtype, blocks_for(n, ROW_GROUPS), *values)


def _rows(x: StoredRows) -> tuple[int, ...]:
    """ROWS of rows as stored."""
    return x.data, x.stride, x.dim, x.squares


def _operand(x: TileRows) -> tuple[Any, ...]:
    """OPERAND of rows for a tile loop."""
    return x.data, x.stride, x.scale, x.uniform, x.dim, x.segments
