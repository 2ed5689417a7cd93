"""The programs that CuPy compiles from csrc/cuda, and what their kernels take.

Kernels take records by value; the records here are theirs, member by member, and every program that is compiled
claims so.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from . import device as mirror
from .cupy_compiler import Program, layout_claims

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


def by_value(types: tuple[np.dtype, ...], values: tuple[Any, ...]) -> list[np.ndarray]:
    """The arguments of a kernel, each as an array without dimensions."""
    return [np.array(value, dtype=dtype) for dtype, value in zip(types, values, strict=True)]
