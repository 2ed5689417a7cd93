"""The launch functions of csrc/cuda/proto_engine_cuda.h for kernels that CuPy launches: the same names, arguments,
grids and shared memory.

Kernels take records by value; the records here are theirs, member by member, and every program that is compiled
claims so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from . import device as mirror
from .cupy_compiler import Kernel, Program, layout_claims
from .device import StoredRows, TilePass, TileRows

MOST_BLOCKS = 2048  # kMostBlocks
ROW_THREADS = SCAN_THREADS = mirror.TOP  # kRowThreads, kScanThreads and kTop: one block shape
ROW_GROUPS = ROW_THREADS // 8  # kRowGroups: rows that a block works on at a time
ELEMENTS = ("Float16", "BFloat16", "float", "double")  # by the number of their dtype
LOOPS = {(0, 2): "SimtLoop<float>", (1, 0): "MmaLoop<Float16>", (1, 1): "MmaLoop<BFloat16>"}  # by loop and dtype
TILE_THREADS = 256

P, Q, I, F, D = (np.dtype(code) for code in ("u8", "i8", "i4", "f4", "f8"))  # noqa: E741 - an address is P


def record(*members: tuple[str, Any]) -> np.dtype:
    return np.dtype(list(members), align=True)


ROWS = record(("data", P), ("stride", Q), ("dim", Q), ("squares", P))
WORK = record(("offsets", P), ("tile_start", P), ("first", Q), ("last", Q), ("rounds", Q), ("columns", Q), ("shape", I))
OPERAND = record(("data", P), ("stride", Q), ("scale", P), ("uniform", F), ("dim", I), ("segments", I))
EXTREMES = record(("limit", P), ("smallest", P), ("best", P))
PARAMETERS = {
    "Histogram": record(("state", P), ("histogram", P)),
    "Count": record(("state", P), ("above", P), ("entries", P), ("histogram", P)),
    "ClassCount": record(
        ("class_of", P),
        ("num_classes", Q),
        ("lo", F),
        ("hi", F),
        ("above", P),
        ("list", P),
        ("length", P),
        ("capacity", P),
    ),
    "Store": record(("out", P)),
    "Best": EXTREMES,
    "Near": record(("extremes", EXTREMES), ("reach", F), ("list", P), ("length", P), ("capacity", P)),
}

# What the kernels take, in order.
COMMON = {
    "gather_kernel": (P, Q, P, Q, Q, P, Q, I),
    "inverse_kernel": (P, Q, P),
    "narrow_kernel": (P, P, D, D),
    "settle_kernel": (P, P, D),
    "locate_kernel": (P, P),
    "collect_kernel": (P, P, P),
    "cutoff_kernel": (P, P),
    "patch_kernel": (P, P, P, P, P),
    "rho_kernel": (P, P, P, P, P),
    "top_kernel": (P, P, P, P),
}
BY_ELEMENT = {
    "squares_kernel": (P, Q, Q, Q, P),
    "unit_kernel": (P, Q, Q, Q, P, P),
    "split_kernel": (P, Q, Q, Q, P, P, Q),
    "pairs_kernel": (ROWS, P, P, Q, P),
    "decide_kernel": (ROWS, P, P, P, P, P),
    "smallest_kernel": (ROWS, P, P, P, P, P),
    "pick_kernel": (ROWS, P, P, P, P, P, P, I, D, P, P, P, P),
    "list_bins_kernel": (ROWS, P, Q, D, D, I, P, P, P, P),
    "list_threshold_kernel": (ROWS, P, Q, D, P, P),
    "list_classes_kernel": (ROWS, P, Q, D, P, Q, P),
    "list_extremes_kernel": (ROWS, P, Q, P, P, P, P),
}

_LOOP_SHARED = {
    "SimtLoop": record(("a", (F, (16, mirror.TILE + 4))), ("b", (F, (16, mirror.TILE + 4)))),
    "MmaLoop": record(("a", ("u2", (4, mirror.TILE * 32))), ("b", ("u2", (4, mirror.TILE * 32)))),
}
_TILE_COUNTS = record(("rows", ("u4", mirror.TILE)), ("columns", ("u4", mirror.TILE)))
_EPILOGUE_SHARED = {
    "Histogram": record(("bins", ("u4", mirror.BINS)), ("c", I)),
    "Count": _TILE_COUNTS,
    "ClassCount": _TILE_COUNTS,
}
_NOTHING = np.dtype("u1")  # an empty struct takes a byte


def shared_bytes(loop: str, epilogue: str) -> int:
    """Dynamic shared memory of a pass over the tiles: ``sizeof(TileShared)``."""
    members = ("loop", _LOOP_SHARED[loop.split("<")[0]]), ("epilogue", _EPILOGUE_SHARED.get(epilogue, _NOTHING))
    return record(*members).itemsize


# ---- programs ------------------------------------------------------------------------------------------


@cache
def common_program() -> Program:
    """What does not depend on the type of the elements."""
    claims = [
        f"kRowThreads == {ROW_THREADS} && kScanThreads == {SCAN_THREADS} && kRowGroups == {ROW_GROUPS}",
        f"kBins == {mirror.BINS} && kTop == {mirror.TOP} && kDensest == {mirror.DENSEST}",
        f"kMaxCandidates == {mirror.MAX_CANDIDATES}",
        *layout_claims("ClassState", mirror.CLASS_STATE),
        *layout_claims("Entry", mirror.ENTRY),
        *layout_claims("Picked", mirror.PICKED),
    ]
    return Program(("gather.cuh", "finish.cuh", "peaks.cuh"), tuple(COMMON), tuple(claims))


@cache
def element_program(dtype: int) -> Program:
    """Rows as stored, of one type."""
    element = ELEMENTS[dtype]
    kernels = tuple(f"{name}<{element}>" for name in BY_ELEMENT)
    claims = layout_claims(f"StoredRows<{element}>", ROWS)
    return Program(("finish.cuh", "lists.cuh", "class_counts.cuh", "peaks.cuh"), kernels, tuple(claims))


@cache
def tile_program(loop: str, epilogue: str) -> Program:
    """One pass over the tiles: they take longest to compile, and few need all of them."""
    header, least = ("simt_loop.cuh", (7, 5)) if loop.startswith("Simt") else ("mma_loop.cuh", (8, 0))
    struct = f"{epilogue}Epilogue<{loop}>"
    claims = [
        f"kTile == {mirror.TILE} && {loop}::kThreads == {TILE_THREADS}",
        f"sizeof(TileShared<{loop}, {struct}>) == {shared_bytes(loop, epilogue)}",
        *layout_claims("Work", WORK),
        *layout_claims("Operand", OPERAND),
        *layout_claims(f"{struct}::Params", PARAMETERS[epilogue]),
    ]
    return Program(
        ("lists.cuh", "class_counts.cuh", header, "tile_kernel.cuh"),
        (f"tile_kernel<{loop}, {struct}>",),
        tuple(claims),
        least,
    )


# ---- launches ------------------------------------------------------------------------------------------


def blocks_for(items: int, per_block: int) -> int:
    """Kernels walk over their work in steps of the grid: more blocks than MOST_BLOCKS would only queue."""
    return min(max(1, -(-items // per_block)), MOST_BLOCKS)


def class_grid(num_classes: int) -> tuple[int, int]:
    """(blocks, classes), for lists whose lengths only the device knows."""
    return blocks_for(MOST_BLOCKS, num_classes), num_classes


def by_value(types: tuple[np.dtype, ...], values: tuple[Any, ...]) -> list[np.ndarray]:
    """The arguments of a kernel, each as an array without dimensions."""
    return [np.array(value, dtype=dtype) for dtype, value in zip(types, values, strict=True)]


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
