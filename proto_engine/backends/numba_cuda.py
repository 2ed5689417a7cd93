"""The engine in numba.cuda: short rather than fast, to read beside its kernels, where the tiling is explained.

The device multiplies tiles and looks up pairs in float64; NumPy does the rest on what comes back. One launch visits
a slab of tiles, so that the lists it fills have a size known beforehand. Rows are NumPy arrays, copied to the device;
numba's simulator (NUMBA_ENABLE_CUDASIM=1) runs it all without a GPU, very slowly.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import BackendUnavailable
from .base import Backend, Pool, classes_within, error_bound, usable
from .exact import ExactPool, Inside, float32_outwards
from .process_setting import ProcessSetting, Undo

try:
    from numba import config, cuda

    from . import numba_cuda_kernels as kernels
except ImportError as error:
    _not_imported: str | None = f"numba with its CUDA target cannot be imported: {error}"
else:
    _not_imported = None

_TILE = 16  # threads along a side of a block, and entries of S along a side of its tile
_LARGEST_TILE = 32  # a block has at most 1,024 threads
_SLAB = 64  # tiles along a side of what one launch visits
_PAIRS = 2**20  # of float64 look-ups in one launch
_BLOCK_BYTES = 2**26  # of rows on the device at a time, where not all are needed at once
_BLOCK_ROWS = 2**16


def unavailable_reason() -> str | None:
    """Why this backend cannot run here; None where it can, and always in numba's simulator."""
    if _not_imported is not None:
        return _not_imported
    if config.ENABLE_CUDASIM:
        return None
    if not cuda.is_available():
        driver_error = cuda.cuda_error()
        if driver_error is not None:
            return "numba finds no CUDA driver or no GPU: " + " ".join(str(driver_error).split())
        return "numba finds a GPU but not libNVVM, its compiler: set CUDA_HOME to a CUDA toolkit"
    try:
        cuda.runtime.get_version()  # numba looks up here which GPUs it can compile for
    except Exception as error:  # of several classes, depending on what is missing
        return f"numba finds a GPU but not the CUDA runtime: set CUDA_HOME to a CUDA toolkit ({error})"
    return None


def _silence(undo: Undo) -> None:
    """numba warns about grids of a few blocks; small classes have no larger ones."""
    undo.append(functools.partial(setattr, config, "CUDA_LOW_OCCUPANCY_WARNINGS", config.CUDA_LOW_OCCUPANCY_WARNINGS))
    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0


_quiet = ProcessSetting(_silence)


def _to_device(rows: np.ndarray, dtype: Any = None) -> Any:
    """A C contiguous copy on the device; without a dtype as float32 or float64, to which half types widen exactly."""
    wanted = (np.float32 if rows.itemsize < 8 else np.float64) if dtype is None else dtype
    with np.errstate(over="ignore", invalid="ignore"):
        return cuda.to_device(np.require(rows, dtype=wanted, requirements=["C", "A"]))


class _Launcher:
    """The kernels with the size of a tile, from arrays on the device to NumPy arrays."""

    def __init__(self, tile: int) -> None:
        self.tile = min(tile, _LARGEST_TILE)
        self.slab = _SLAB * self.tile  # rows

    def dots(self, left: Any, first: np.ndarray, right: Any, second: np.ndarray) -> np.ndarray:
        """Pinned sums of products of left[first] and right[second].   [n] float64"""
        sums = np.empty(len(first))
        threads = self.tile**2
        for start in range(0, len(first), _PAIRS):
            part = slice(start, start + _PAIRS)
            i, j = _to_device(first[part], np.int64), _to_device(second[part], np.int64)
            out = cuda.device_array(len(i), np.float64)
            with _quiet.held():
                kernels.dot_pairs[-(-len(i) // threads), threads](left, i, right, j, out)
            sums[part] = out.copy_to_host()
        return sums

    def squares(self, x: Any) -> np.ndarray:
        everyone = np.arange(len(x))
        return self.dots(x, everyone, x, everyone)

    def unit_rows(self, x: Any, squares: np.ndarray) -> Any:
        """float32 unit rows on the device; NaN where the squares allow none.   [n, D]"""
        inverse = np.full(len(squares), np.nan)
        good = usable(squares)
        inverse[good] = 1.0 / np.sqrt(squares[good])
        unit = cuda.device_array(x.shape, np.float32)
        with _quiet.held():
            kernels.scale_rows[-(-len(x) // self.tile), (self.tile, self.tile)](x, _to_device(inverse), unit)
        return unit

    def products(self, left: Any, rows: np.ndarray, right: Any, columns: np.ndarray) -> np.ndarray:
        """left[rows] @ right[columns].T.   [r, c] float32"""
        out = cuda.device_array((len(rows), len(columns)), np.float32)
        lists = _to_device(rows, np.int64), _to_device(columns, np.int64)
        self._on_tiles(kernels.store_tiles, out.shape, left, lists[0], right, lists[1], out)
        return out.copy_to_host()

    def scan(self, unit: Any, lo: float, hi: float, above: Any) -> Iterator[tuple[np.ndarray, ...]]:
        """Count s32 > hi into ``above`` [m] on the device; row, column and s32 of the pairs inside, slab by slab."""
        m = len(unit)
        lists = [cuda.device_array(min(m, self.slab) ** 2, dtype) for dtype in (np.int32, np.int32, np.float32)]
        for i0 in range(0, m, self.slab):
            for j0 in range(i0, m, self.slab):
                found = _to_device(np.zeros(1), np.int32)
                shape = min(m - i0, self.slab), min(m - j0, self.slab)
                self._on_tiles(
                    kernels.scan_tiles, shape, unit, i0, j0, np.float32(lo), np.float32(hi), above, found, *lists
                )
                num_found = int(found.copy_to_host()[0])
                if num_found:
                    yield tuple(entries[:num_found].copy_to_host() for entries in lists)

    def _on_tiles(self, kernel: Any, shape: tuple[int, ...], *arguments: Any) -> None:
        grid = -(-shape[0] // self.tile), -(-shape[1] // self.tile)
        shared_bytes = 2 * self.tile * (self.tile + 1) * 4
        with _quiet.held():
            kernel[grid, (self.tile, self.tile), 0, shared_bytes](*arguments)


class NumbaCudaPool(ExactPool):
    """Rows as float32 or float64 for the look-ups and their float32 unit rows for the tiles, both on the device."""

    def __init__(self, rows: np.ndarray, squares: np.ndarray, launcher: _Launcher) -> None:
        self.m, self.dim = rows.shape
        self._squares, self._launcher = squares, launcher
        try:
            self._rows = _to_device(rows)
            self._unit = launcher.unit_rows(self._rows, squares)  # [m, D]
        except cuda.cudadrv.driver.CudaAPIError as error:
            if "OUT_OF_MEMORY" not in str(error):
                raise
            raise BackendUnavailable(
                f"backend 'numba-cuda' has no room on the GPU for {self.m} rows of dimension {self.dim}: {error}"
            ) from error

    def pair_similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        dot = self._launcher.dots(self._rows, first, self._rows, second)
        return dot / np.sqrt(self._squares[first] * self._squares[second])

    def _scan(self, lo: float, hi: float, above: Any) -> Iterator[tuple[np.ndarray, ...]]:
        return self._launcher.scan(self._unit, lo, hi, above)

    def _counts(self) -> Any:
        return _to_device(np.zeros(self.m), np.int32)  # a row counts fewer than m < 2^31

    def count_bracket(self, lo: float, hi: float, capacity: int) -> Inside:
        above, num_inside = self._counts(), 0
        kept: list[tuple[np.ndarray, ...]] = [(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))]
        for entries in self._scan(lo, hi, above):
            num_inside += len(entries[0])
            if num_inside > capacity:  # only the number goes on
                del kept[1:]
            else:
                kept.append(entries)
        rows, columns, values = (np.concatenate(part) for part in zip(*kept, strict=True))
        return Inside(above.copy_to_host().astype(np.int64), num_inside, rows, columns, values)

    def histogram(self, lo: float, hi: float, bins: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        count = np.zeros(bins, dtype=np.int64)
        least, most = np.full(bins, np.inf), np.full(bins, -np.inf)
        above, more = self._counts(), 0
        for row, column, _ in self._scan(*float32_outwards(lo - self.bound, hi + self.bound), above):
            value = self.pair_similarity(row, column)
            more += int(np.count_nonzero(value > hi))
            value = value[(value >= lo) & (value <= hi)]
            b = np.minimum(((value - lo) / (hi - lo) * bins).astype(np.int64), bins - 1)
            count += np.bincount(b, minlength=bins)
            np.minimum.at(least, b, value)
            np.maximum.at(most, b, value)
        more += int(above.copy_to_host().sum(dtype=np.int64)) // 2
        return self.m * (self.m - 1) // 2 - more - int(count.sum()), count, least, most

    def count_threshold(self, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
        above32 = self._counts()
        above, equal = np.zeros(self.m, np.int64), np.zeros(self.m, np.int64)
        for row, column, _ in self._scan(*self.reach_of(cutoff), above32):
            value = self.pair_similarity(row, column)
            for counts, chosen in ((above, value > cutoff), (equal, value == cutoff)):
                for side in (row, column):
                    counts += np.bincount(side[chosen], minlength=self.m)
        above += above32.copy_to_host()
        return above, self.m - 1 - above - equal

    def class_counts_at(self, cutoff: float, offsets: np.ndarray) -> np.ndarray:
        """Slab after slab of S by the host: short rather than fast, as all of this backend."""
        counts = np.zeros((self.m, len(offsets) - 1), dtype=np.int32)
        lo, hi = self.reach_of(cutoff)
        everyone = np.arange(self.m)
        slabs = [everyone[start : start + self._launcher.slab] for start in everyone[:: self._launcher.slab]]
        for a, rows in enumerate(slabs):
            for columns in slabs[a:]:
                s = self._launcher.products(self._unit, rows, self._unit, columns)
                above, near = s > hi, (s >= lo) & (s <= hi)
                row, column = np.nonzero(near)
                above[row, column] = self.pair_similarity(rows[row], columns[column]) > cutoff
                above &= columns > rows[:, None]
                for c, start, stop in classes_within(offsets, int(columns[0]), int(columns[-1]) + 1):
                    counts[rows, c] += above[:, start:stop].sum(axis=1, dtype=np.int32)
                for c, start, stop in classes_within(offsets, int(rows[0]), int(rows[-1]) + 1):
                    counts[columns, c] += above[start:stop].sum(axis=0, dtype=np.int32)
        return counts

    def extreme(self, order: np.ndarray, rows: np.ndarray, limit: np.ndarray, smallest: np.ndarray) -> np.ndarray:
        best = np.full(len(rows), -np.inf)  # max of sign * S, so that both directions are one comparison
        sign = np.where(smallest, -1.0, 1.0)
        slab = self._launcher.slab
        for start in range(0, len(rows), slab):
            group = slice(start, start + slab)
            for k0 in range(0, int(limit[group].max()), slab):
                self._improve(order[k0 : k0 + slab], rows[group], limit[group] - k0, sign[group], best[group])
        return sign * best

    def _improve(
        self, columns: np.ndarray, rows: np.ndarray, limit: np.ndarray, sign: np.ndarray, best: np.ndarray
    ) -> None:
        """best[r] = max of sign * S over columns[:limit[r]]; S only where s32 could be that of the greatest."""
        s = self._launcher.products(self._unit, rows, self._unit, columns)
        s *= sign.astype(np.float32)[:, None]
        s[np.arange(len(columns)) >= limit[:, None]] = np.nan  # no comparison holds
        # The greatest S of the columns lies within two bounds of the greatest s32; one more for rounding.
        floor = np.maximum(np.fmax.reduce(s, axis=1, initial=-np.inf).astype(np.float64), best) - 3 * self.bound
        row, at = np.nonzero(s >= floor[:, None])
        np.maximum.at(best, row, sign[row] * self.pair_similarity(rows[row], columns[at]))

    def similarity(self) -> np.ndarray:
        out = np.empty((self.m, self.m), dtype=np.float32)
        everyone = np.arange(self.m)
        slabs = [everyone[start : start + self._launcher.slab] for start in everyone[:: self._launcher.slab]]
        for a, rows in enumerate(slabs):
            for columns in slabs[a:]:
                s = self._launcher.products(self._unit, rows, self._unit, columns)
                out[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = s
                out[columns[0] : columns[-1] + 1, rows[0] : rows[-1] + 1] = s.T
        np.fill_diagonal(out, 1.0)
        return out


class NumbaCudaBackend(Backend):
    """NumPy rows in, NumPy results out; ``tile`` is for tests, results do not depend on it."""

    name = "numba-cuda"

    def __init__(self, tile: int | None = None) -> None:
        self._launcher = _Launcher(_TILE if tile is None else tile)

    def squared_norms(self, rows: np.ndarray) -> np.ndarray:
        squares = np.empty(len(rows))
        for part, block in self._blocks(rows):
            squares[part] = self._launcher.squares(block)
        return squares

    def normalize(self, rows: np.ndarray, squares: np.ndarray) -> np.ndarray:
        unit = np.empty(rows.shape, dtype=np.float32)
        for part, block in self._blocks(rows):
            unit[part] = self._launcher.unit_rows(block, squares[part]).copy_to_host()
        return unit

    def pool(self, rows: np.ndarray, squares: np.ndarray) -> Pool:
        return NumbaCudaPool(rows, squares, self._launcher)

    def score(self, rows: np.ndarray, folded: np.ndarray) -> np.ndarray:
        sigma = np.empty((len(rows), len(folded)), dtype=np.float32)
        for part, _, _, s in self._score_blocks(rows, folded):
            sigma[part] = s
        return sigma

    def top2(self, rows: np.ndarray, folded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        label = np.full(len(rows), -1, dtype=np.int64)
        best, second = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
        reach = 2 * error_bound(rows.shape[1])
        vectors = _to_device(folded, np.float64)
        for part, block, squares, s in self._score_blocks(rows, folded):
            # Whoever is first or second in float64 lies within two bounds of the float32 second.
            place = max(0, s.shape[1] - 2)
            runner_up = np.partition(s, place, axis=1)[:, place].astype(np.float64)
            row, column = np.nonzero(s >= runner_up[:, None] - reach)  # none of a row of NaN
            sigma = np.full(s.shape, -np.inf)
            sigma[row, column] = self._launcher.dots(block, row, vectors, column) / np.sqrt(squares[row])
            good = np.flatnonzero(usable(squares))
            first = sigma[good].argmax(axis=1)  # the lowest class of equals
            label[part.start + good], best[part.start + good] = first, sigma[good, first]
            sigma[good, first] = -np.inf
            second[part.start + good] = sigma[good].max(axis=1)
        return label, best, second

    def _blocks(self, rows: np.ndarray, bytes_a_row: int = 0) -> Iterator[tuple[slice, Any]]:
        """Blocks of rows, copied to the device."""
        step = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // (8 * rows.shape[1] + bytes_a_row)))
        for start in range(0, len(rows), step):
            part = slice(start, min(start + step, len(rows)))
            yield part, _to_device(rows[part])

    def _score_blocks(
        self, rows: np.ndarray, folded: np.ndarray
    ) -> Iterator[tuple[slice, Any, np.ndarray, np.ndarray]]:
        """Blocks of rows on the device, their squares [b] and s32 [b, C]; NaN for unusable rows."""
        vectors = _to_device(folded, np.float32)
        classes = np.arange(len(folded))
        for part, block in self._blocks(rows, 8 * len(folded)):
            squares = self._launcher.squares(block)
            unit = self._launcher.unit_rows(block, squares)
            yield part, block, squares, self._launcher.products(unit, np.arange(len(squares)), vectors, classes)
