"""The kernels of the numba.cuda backend, and in them the tiling explained.

The similarities of m unit rows are the matrix S = U U^T. It is cut into square tiles of T x T entries. A block
of T x T threads computes one tile, each thread one entry::

                column tiles
                 0   1   2   3
       row   0  [d] [x] [x] [x]      [x]  computed once, counted for its rows and for its columns
     tiles   1   .  [d] [x] [x]      [d]  on the diagonal: only the entries above it count
             2   .   .  [d] [x]       .   never computed: S is symmetric
             3   .   .   .  [d]

A tile is built from T rows of U and T others, a slice of T elements at a time. Every thread fetches one element
of either slice into shared memory; then each element is used T times without going back for it::

                              b: slice of the column tile's rows
                              +-----------+
                              | T x T     |
                              +-----------+
        a: slice of the       +-----------+
        row tile's rows       | tile of S |   thread (y, x) adds up a[y, :] . b[x, :], slice after slice,
        +-----------+         |     * ----|-- and keeps its sum in a register
        | T x T     |         |           |
        +-----------+         +-----------+

Flops: m (m - 1) / 2 entries of 2 D flops, so m^2 D. Bytes fetched: m^2 / (2 T^2) tiles of 2 T D float32 numbers,
so 4 m^2 D / T; without shared memory it would be T times as many. For m = 1,280, D = 2,048 and T = 16 that is
3.4 Gflop and 0.8 GB, most of it from the cache, since U itself has 10 MB.

S is never stored (20 GB for m = 71,000): a tile ends in an epilogue that reduces it while its entries are still in
registers. `scan_tiles` counts what lies above a bracket and appends the few entries inside to a list, `store_tiles`
writes a piece of S that the host asked for. What float32 cannot decide, `dot_pairs` computes in float64.

Shapes: rows x [n, D] float32 or float64, unit rows u [n, D] float32. All are C contiguous.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import config, cuda, float32, float64

LANES, BLOCK = 8, 256  # of the pinned sum


def kernel(function: Callable) -> Any:
    """Compile on first use in a process; nothing is kept on disk, since numba would unpickle it."""
    return cuda.jit(function)


def device(function: Callable) -> Any:
    """A function that kernels call."""
    return cuda.jit(device=True)(function)


if config.ENABLE_CUDASIM:  # NumPy rounds every product

    def rounded_product(a: Any, b: Any) -> Any:
        return a * b

else:
    from numba.cuda import libdevice

    # NVVM makes one instruction of a product and a sum, and numba has no option against it. The product of two
    # float32 numbers is exact in float64, so nothing would change, but with float64 rows the last bit would.
    rounded_product = libdevice.dmul_rn


# ---- float64: the pinned sum -------------------------------------------------------------------------


@kernel
def dot_pairs(left: Any, first: Any, right: Any, second: Any, out: Any) -> None:
    """out[t] = left[first[t]] . right[second[t]] in the order of `reference.pinned_dot`; a thread a pair."""
    t = cuda.grid(1)
    if t >= len(out):
        return
    i, j = first[t], second[t]
    lane = cuda.local.array(LANES, float64)
    dim, total = left.shape[1], float64(0.0)
    for start in range(0, dim, BLOCK):
        for k in range(LANES):
            lane[k] = 0.0
        for k in range(start, start + BLOCK if start + BLOCK < dim else dim):
            lane[k % LANES] += rounded_product(float64(left[i, k]), float64(right[j, k]))
        even = (lane[0] + lane[4]) + (lane[2] + lane[6])
        total += even + ((lane[1] + lane[5]) + (lane[3] + lane[7]))
    out[t] = total


@kernel
def scale_rows(x: Any, inverse: Any, u: Any) -> None:
    """u[i] = inverse[i] x[i], rounded to float32; a row of threads a row, block after block."""
    i = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    if i < u.shape[0]:
        for k in range(cuda.threadIdx.x, u.shape[1], cuda.blockDim.x):
            u[i, k] = float32(float64(x[i, k]) * inverse[i])


# ---- float32: the tile, and what becomes of it -------------------------------------------------------


@device
def tile_entry(left: Any, i: int, right: Any, j: int) -> Any:
    """Entry (y, x) of a tile of left @ right.T, for thread (y, x) of its block.

    The thread brings in row i of ``left`` and row j of ``right``: those that y stands for on both sides. Rows past
    the end count as zeros. All threads of the block must come here, for they wait for each other.

    The sum may be contracted: `error_bound` allows for any way of adding up.
    """
    size, x, y = cuda.blockDim.x, cuda.threadIdx.x, cuda.threadIdx.y
    pitch = size + 1  # one more than the tile: threads side by side then read different memory banks
    shared = cuda.shared.array(0, float32)  # two slices; the launch says how large
    a, b = shared[: size * pitch], shared[size * pitch : 2 * size * pitch]
    own, dim = y * pitch + x, left.shape[1]
    total = float32(0.0)
    for k0 in range(0, dim, size):
        k = k0 + x
        a[own] = left[i, k] if i < left.shape[0] and k < dim else float32(0.0)
        b[own] = right[j, k] if j < right.shape[0] and k < dim else float32(0.0)
        cuda.syncthreads()  # both slices are there
        for t in range(size):
            total += a[y * pitch + t] * b[x * pitch + t]
        cuda.syncthreads()  # nobody reads them anymore
    return total


@kernel
def scan_tiles(
    u: Any, i0: int, j0: int, lo: float, hi: float, above: Any, found: Any, row: Any, column: Any, value: Any
) -> None:
    """The epilogue that counts. Tiles of S from entry (i0, j0) on; the grid is [row tiles, column tiles].

    Adds #{s > hi} to ``above`` [m] for row and column, and appends the entries with lo <= s <= hi to the lists, at
    places that ``found`` [1] hands out. The lists must hold all entries of the grid.
    """
    top, left = i0 + cuda.blockIdx.x * cuda.blockDim.x, j0 + cuda.blockIdx.y * cuda.blockDim.x
    if left < top:  # below the diagonal; the whole block leaves
        return
    i, j = top + cuda.threadIdx.y, left + cuda.threadIdx.x
    s = tile_entry(u, i, u, left + cuda.threadIdx.y)
    if i < j and j < u.shape[0]:
        if s > hi:
            cuda.atomic.add(above, i, 1)
            cuda.atomic.add(above, j, 1)
        elif s >= lo:
            place = cuda.atomic.add(found, 0, 1)
            row[place], column[place], value[place] = i, j, s


@kernel
def store_tiles(left: Any, rows: Any, right: Any, columns: Any, out: Any) -> None:
    """The epilogue that stores: out[r, c] = left[rows[r]] . right[columns[c]]. The grid: [row tiles, column tiles]."""
    r = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.y
    c0 = cuda.blockIdx.y * cuda.blockDim.x
    i = rows[r] if r < len(rows) else left.shape[0]
    j = columns[c0 + cuda.threadIdx.y] if c0 + cuda.threadIdx.y < len(columns) else right.shape[0]
    s = tile_entry(left, i, right, j)
    if r < len(rows) and c0 + cuda.threadIdx.x < len(columns):
        out[r, c0 + cuda.threadIdx.x] = s
