"""The compiled loops of the numba backend. Rows are float32 or float64, C contiguous.

Letters as everywhere: x [n, D] rows, squares [n] float64, s a tile or block of float32 similarities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils

from .reference import BLOCK

_SCAN = 32  # columns looked at together: only where one of them is inside does a slower loop follow


def compiled(function: Callable) -> Callable:
    """Compile on first use in a process.

    Nothing is kept on disk: numba would unpickle it when it comes back. No fastmath: a product and a sum
    must not become one instruction, nor sums change their order.
    """
    return numba.njit(nogil=True, error_model="numpy")(function)


# ---- the pinned sum --------------------------------------------------------------------------------


def _dot_intrinsic(typing_context: Any, a: Any, b: Any) -> Any:
    """Sum of products of two float rows in the order of `reference.pinned_dot`.

    Eight lanes are one LLVM vector. numba does not turn eight scalar sums into one by itself, and a
    loop over eight sums in memory is three times slower.
    """
    if not all(isinstance(row, numba.types.Array) and row.ndim == 1 and row.layout == "C" for row in (a, b)):
        return None
    double = ir.DoubleType()
    lanes = ir.VectorType(double, 8)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        kinds = [kind.dtype for kind in signature.args]
        dim = builder.extract_value(rows[0].shape, 0)
        zero, one, eight, block = (ir.Constant(dim.type, value) for value in (0, 1, 8, BLOCK))

        def product(k: Any, width: int) -> Any:
            factors = []
            for row, kind in zip(rows, kinds, strict=True):
                element, wide = context.get_data_type(kind), double
                if width == 8:
                    element, wide = ir.VectorType(element, 8), lanes
                address = builder.bitcast(builder.gep(row.data, [k]), element.as_pointer())
                value = builder.load(address, align=kind.bitwidth // 8)
                factors.append(value if kind == numba.types.float64 else builder.fpext(value, wide))
            return builder.fmul(*factors)

        add = builder.fadd
        total = cgutils.alloca_once_value(builder, ir.Constant(double, 0.0))
        lane_sums, rest = cgutils.alloca_once(builder, lanes), cgutils.alloca_once(builder, lanes)
        with cgutils.for_range_slice(builder, zero, dim, block, inc=True) as (begin, _):
            end = builder.add(begin, block)
            end = builder.select(builder.icmp_signed("<", end, dim), end, dim)
            whole = builder.and_(end, ir.Constant(dim.type, -8))
            builder.store(ir.Constant(lanes, [0.0] * 8), lane_sums)
            with cgutils.for_range_slice(builder, begin, whole, eight, inc=True) as (k, _):
                builder.store(add(builder.load(lane_sums), product(k, 8)), lane_sums)
            # The last elements go one by one into a copy: addressed like that, lane_sums could not stay in registers.
            builder.store(builder.load(lane_sums), rest)
            by_lane = builder.bitcast(rest, double.as_pointer())
            with cgutils.for_range_slice(builder, whole, end, one, inc=True) as (k, _):
                lane = builder.gep(by_lane, [builder.sub(k, whole)])
                builder.store(add(builder.load(lane), product(k, 1)), lane)
            lane = [builder.load(builder.gep(by_lane, [ir.Constant(dim.type, index)])) for index in range(8)]
            even = add(add(lane[0], lane[4]), add(lane[2], lane[6]))
            block_sum = add(even, add(add(lane[1], lane[5]), add(lane[3], lane[7])))
            builder.store(add(builder.load(total), block_sum), total)
        return builder.load(total)

    return numba.types.float64(a, b), generate


_dot = numba.extending.intrinsic(_dot_intrinsic)


@compiled
def square_rows(x: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(x)):
        out[i] = _dot(x[i], x[i])


@compiled
def scale_rows(x: np.ndarray, squares: np.ndarray, unit: np.ndarray) -> None:
    for i in range(len(x)):
        usable = np.isfinite(squares[i]) and squares[i] > 0.0
        inverse = 1.0 / np.sqrt(squares[i]) if usable else np.nan
        row, out = x[i], unit[i]
        for k in range(row.size):
            out[k] = np.float64(row[k]) * inverse


@compiled
def similar_pairs(x: np.ndarray, squares: np.ndarray, first: np.ndarray, second: np.ndarray, out: np.ndarray) -> None:
    for t in range(len(first)):
        i, j = first[t], second[t]
        out[t] = _dot(x[i], x[j]) / np.sqrt(squares[i] * squares[j])


# ---- what is done with a tile: s[r, c] is s32 of rows i0 + r and j0 + c ------------------------------


@compiled
def _scan_part(
    row: np.ndarray, begin: int, end: int, lo: float, hi: float, first: int, positions: np.ndarray, found: int
) -> tuple[Any, int]:
    """How many of row[begin:end] are above hi; ``positions`` of those inside, as first + column, from ``found`` on."""
    total = np.int64(0)
    for c0 in range(begin, end, _SCAN):
        part = row[c0 : min(c0 + _SCAN, end)]
        greater, reach = np.int32(0), np.int32(0)
        for c in range(part.size):
            greater += np.int32(part[c] > hi)
            reach += np.int32(part[c] >= lo)
        total += greater
        if reach != greater:
            for c in range(part.size):  # without a branch: written everywhere, kept where it is inside
                positions[found] = first + c0 + c
                found += int((part[c] >= lo) & (part[c] <= hi))
    return total, found


@compiled
def scan_tile(
    s: np.ndarray, diagonal: bool, lo: float, hi: float, above: np.ndarray, i0: int, j0: int, positions: np.ndarray
) -> int:
    """Counts s > hi for row and column; ``positions`` of lo <= s <= hi as r * width + c; their number."""
    height, width = s.shape
    found = 0
    for r in range(height):
        skip = r + 1 if diagonal else 0
        row, column_above = s[r, skip:], above[j0 + skip : j0 + width]
        for c in range(row.size):
            column_above[c] += np.int32(row[c] > hi)
        total, found = _scan_part(s[r], skip, width, lo, hi, r * width, positions, found)
        above[i0 + r] += total
    return found


@compiled
def scan_tile_by_class(
    s: np.ndarray,
    diagonal: bool,
    lo: float,
    hi: float,
    row_ends: np.ndarray,
    column_ends: np.ndarray,
    of_rows: np.ndarray,
    of_columns: np.ndarray,
    positions: np.ndarray,
) -> int:
    """`scan_tile` with counts by the class of the other row; the classes end at ``row_ends`` and ``column_ends``.

    of_rows [height, classes of columns] and of_columns [classes of rows, width] are started from zero.
    """
    height, width = s.shape
    found = own = 0
    for r in range(height):
        while r >= row_ends[own]:
            own += 1
        begin = r + 1 if diagonal else 0
        row, by_column = s[r, begin:], of_columns[own, begin:]
        for c in range(row.size):
            by_column[c] += np.int32(row[c] > hi)
        for b in range(len(column_ends)):
            total, found = _scan_part(s[r], begin, column_ends[b], lo, hi, r * width, positions, found)
            of_rows[r, b] += total
            begin = max(begin, column_ends[b])
    return found


@compiled
def decide_pairs(
    x: np.ndarray,
    squares: np.ndarray,
    i0: int,
    j0: int,
    width: int,
    positions: np.ndarray,
    cutoff: float,
    above: np.ndarray,
    equal: np.ndarray,
) -> None:
    for position in positions:
        i, j = i0 + position // width, j0 + position % width
        value = _dot(x[i], x[j]) / np.sqrt(squares[i] * squares[j])
        if value > cutoff:
            above[i] += 1
            above[j] += 1
        elif value == cutoff:
            equal[i] += 1
            equal[j] += 1


@compiled
def fill_bins(
    x: np.ndarray,
    squares: np.ndarray,
    i0: int,
    j0: int,
    width: int,
    positions: np.ndarray,
    lo: float,
    hi: float,
    count: np.ndarray,
    least: np.ndarray,
    most: np.ndarray,
) -> int:
    """Puts S of the positions into bins of [lo, hi]; returns how many are above hi."""
    above, bins = 0, len(count)
    for position in positions:
        i, j = i0 + position // width, j0 + position % width
        value = _dot(x[i], x[j]) / np.sqrt(squares[i] * squares[j])
        if value > hi:
            above += 1
        elif value >= lo:
            b = min(int((value - lo) / (hi - lo) * bins), bins - 1)
            count[b] += 1
            least[b] = min(least[b], value)
            most[b] = max(most[b], value)
    return above


# ---- eta and scores ----------------------------------------------------------------------------------


@compiled
def improve_best(
    s: np.ndarray,
    x: np.ndarray,
    squares: np.ndarray,
    rows: np.ndarray,
    order: np.ndarray,
    limit: np.ndarray,
    sign: np.ndarray,
    bound: float,
    best: np.ndarray,
) -> None:
    """best[r] = max of sign * S over the columns below limit[r]; S only where s32 could still beat it."""
    for r in range(len(rows)):
        i, row = rows[r], s[r]
        for c in range(min(limit[r], row.size)):
            if sign[r] * row[c] + bound >= best[r]:
                j = order[c]
                best[r] = max(best[r], sign[r] * (_dot(x[i], x[j]) / np.sqrt(squares[i] * squares[j])))


@compiled
def best_two(
    s: np.ndarray,
    x: np.ndarray,
    squares: np.ndarray,
    folded: np.ndarray,
    bound: float,
    label: np.ndarray,
    best: np.ndarray,
    second: np.ndarray,
) -> None:
    for r in range(len(x)):
        label[r], best[r], second[r] = -1, np.nan, np.nan
        if not (np.isfinite(squares[r]) and squares[r] > 0.0):
            continue
        first32 = second32 = -np.inf
        for c in range(s.shape[1]):
            value = np.float64(s[r, c])
            second32 = max(second32, min(first32, value))
            first32 = max(first32, value)
        # Whoever is first or second in float64 lies within two bounds of the float32 second.
        top, runner_up, norm = -np.inf, -np.inf, np.sqrt(squares[r])
        for c in range(s.shape[1]):
            if s[r, c] >= second32 - 2.0 * bound:
                value = _dot(x[r], folded[c]) / norm
                if label[r] < 0 or value > top:
                    top, runner_up, label[r] = value, top, c
                else:
                    runner_up = max(runner_up, value)
        best[r], second[r] = top, runner_up
