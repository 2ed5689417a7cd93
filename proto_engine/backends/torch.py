"""The engine in plain torch operations, on any device that has float64; the rows stay on the device they are on.

Tiles on and above the diagonal, one float32 product each, reduced with a few operations on the whole tile
before the next one overwrites it. What float32 cannot decide is gathered and decided in float64, in the
pinned order of additions, a bounded number of pairs at a time. On the CPU the threads are torch's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ..array_kinds import is_cupy, tensor_of_cupy
from .base import Backend, Pool, classes_within, error_bound
from .exact import Inside, OnePassPool, float32_outwards
from .torch_rows import (
    condition,
    pinned_dots,
    plain,
    rows_within,
    sizes,
    square_root,
    square_rows,
    to_tensor,
    unit_rows,
)

__all__ = ["TorchBackend", "TorchPool", "condition", "to_tensor"]


class TorchPool(OnePassPool):
    """Rows as stored for the float64 look-ups, and their float32 unit rows for the tiles."""

    def __init__(self, rows: torch.Tensor, squares: np.ndarray, tile: int | None) -> None:
        self.m, self.dim = rows.shape
        self._rows = rows
        self._device = rows.device
        self._squares = to_tensor(squares).to(self._device)
        self._tile = min(sizes(self._device).tile if tile is None else tile, self.m)
        self._together = np.array([0, self.m])  # offsets of all rows as one class
        with plain(rows):
            self._unit = unit_rows(rows, self._squares)  # [m, D]

    def _tiles(self) -> Iterator[tuple[int, int, torch.Tensor]]:
        """(i0, j0, s) on and above the diagonal; NaN, which no comparison counts, stands on and below it."""
        buffer = torch.empty(self._tile**2, dtype=torch.float32, device=self._device)
        for i0 in range(0, self.m, self._tile):
            a = self._unit[i0 : i0 + self._tile]
            for j0 in range(i0, self.m, self._tile):
                b = self._unit[j0 : j0 + self._tile]
                s = buffer[: len(a) * len(b)].view(len(a), len(b))
                torch.mm(a, b.T, out=s)
                if i0 == j0:
                    s.masked_fill_(torch.ones_like(s, dtype=torch.bool).tril_(), torch.nan)
                yield i0, j0, s

    def _scan(
        self, lo: float, hi: float, above: torch.Tensor, offsets: np.ndarray
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """Count s32 > hi by class into ``above`` [m, C]; row, column and s32 of the pairs inside, in bounded pieces."""
        for i0, j0, s in self._tiles():
            height, width = s.shape
            is_above = s > hi
            ones = is_above.view(torch.int8)  # a third of the time of summing bools
            for c, start, stop in classes_within(offsets, j0, j0 + width):
                above[i0 : i0 + height, c] += ones[:, start:stop].sum(dim=1, dtype=torch.int32)
            for c, start, stop in classes_within(offsets, i0, i0 + height):
                above[j0 : j0 + width, c] += ones[start:stop].sum(dim=0, dtype=torch.int32)
            inside = (s >= lo).logical_and_(is_above.logical_not_()).view(-1)
            flat = s.view(-1)
            for position in self._positions(inside):
                if len(position):
                    row = torch.div(position, width, rounding_mode="floor")
                    yield row + i0, position - row * width + j0, flat[position]

    def _positions(self, flags: torch.Tensor) -> Iterator[torch.Tensor]:
        step = sizes(self._device).flags
        for start in range(0, len(flags), step):
            yield flags[start : start + step].nonzero().view(-1) + start

    def _similarities(self, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return pinned_dots(self._rows, i, self._rows, j) / square_root(self._squares[i] * self._squares[j])

    def _counts(self, offsets: np.ndarray, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.zeros((self.m, len(offsets) - 1), dtype=dtype, device=self._device)

    def _index(self, index: np.ndarray) -> torch.Tensor:
        return to_tensor(np.asarray(index, dtype=np.int64)).to(self._device)

    def pair_similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        with plain(self._rows):
            return self._similarities(self._index(first), self._index(second)).cpu().numpy()

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        step = rows_within(sizes(self._device).block_bytes, 8 * first.shape[1] * self.dim)
        found = []
        with plain(self._rows):
            for start in range(0, len(first), step):
                part = slice(start, start + step)
                left, right = self._unit[self._index(first[part])], self._unit[self._index(second[part])]  # [g, b, D]
                found.append(torch.bmm(left, right.transpose(1, 2)).cpu().numpy())
        return np.concatenate(found)

    def count_bracket(self, lo: float, hi: float, capacity: int) -> Inside:
        inside = self.count_bracket_by_class(lo, hi, capacity, self._together)
        inside.above = inside.above[:, 0].astype(np.int64)
        return inside

    def count_bracket_by_class(self, lo: float, hi: float, capacity: int, offsets: np.ndarray) -> Inside:
        num_inside = 0
        kept: list[tuple[np.ndarray, ...]] = [(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))]
        with plain(self._rows):
            above = self._counts(offsets, torch.int32)  # a row counts fewer than m < 2^31
            for row, column, s32 in self._scan(lo, hi, above, offsets):
                num_inside += len(row)
                if num_inside > capacity:  # only the number goes on
                    del kept[1:]
                    continue
                kept.append((row.int().cpu().numpy(), column.int().cpu().numpy(), s32.cpu().numpy()))
            rows, columns, values = (np.concatenate(part) for part in zip(*kept, strict=True))
            return Inside(above.cpu().numpy(), num_inside, rows, columns, values)

    def histogram(self, lo: float, hi: float, bins: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        count = np.zeros(bins, dtype=np.int64)
        least, most = np.full(bins, np.inf), np.full(bins, -np.inf)
        with plain(self._rows):
            above32, more = self._counts(self._together), 0
            reach = float32_outwards(lo - self.bound, hi + self.bound)
            for row, column, _ in self._scan(*reach, above32, self._together):
                value = self._similarities(row, column).cpu().numpy()
                more += int(np.count_nonzero(value > hi))
                value = value[(value >= lo) & (value <= hi)]
                b = np.minimum(((value - lo) / (hi - lo) * bins).astype(np.int64), bins - 1)
                count += np.bincount(b, minlength=bins)
                np.minimum.at(least, b, value)
                np.maximum.at(most, b, value)
            more += int(above32.sum()) // 2
        return self.m * (self.m - 1) // 2 - more - int(count.sum()), count, least, most

    def count_threshold(self, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
        with plain(self._rows):
            above, equal = self._counts(self._together), self._counts(self._together)
            for row, column, _ in self._scan(*self.reach_of(cutoff), above, self._together):
                value = self._similarities(row, column)
                for counts, chosen in ((above, value > cutoff), (equal, value == cutoff)):
                    for side in (row, column):
                        counts[:, 0] += torch.bincount(side[chosen], minlength=self.m)
            return above[:, 0].cpu().numpy(), (self.m - 1 - above - equal)[:, 0].cpu().numpy()

    def class_counts_at(self, cutoff: float, offsets: np.ndarray) -> np.ndarray:
        with plain(self._rows):
            above = self._counts(offsets, torch.int32)
            flat, num_classes = above.view(-1), len(offsets) - 1
            class_of = self._index(np.repeat(np.arange(num_classes), np.diff(offsets)))  # [m]
            for row, column, _ in self._scan(*self.reach_of(cutoff), above, offsets):
                chosen = self._similarities(row, column) > cutoff
                for i, j in ((row[chosen], column[chosen]), (column[chosen], row[chosen])):
                    flat.index_add_(0, i * num_classes + class_of[j], flat.new_ones(len(i)))
            return above.cpu().numpy()

    def extreme(self, order: np.ndarray, rows: np.ndarray, limit: np.ndarray, smallest: np.ndarray) -> np.ndarray:
        best = np.full(len(rows), -np.inf)  # max of sign * S, so that both directions are one comparison
        sign = np.where(smallest, -1.0, 1.0)
        with plain(self._rows):
            for start in range(0, len(rows), self._tile):
                group = slice(start, start + self._tile)
                best[group] = self._extreme_of_group(order, rows[group], limit[group], sign[group])
        return sign * best

    def _extreme_of_group(self, order: np.ndarray, rows: np.ndarray, limit: np.ndarray, sign: np.ndarray) -> np.ndarray:
        best = np.full(len(rows), -np.inf)
        chosen, ends, signs = self._index(rows), self._index(limit), to_tensor(sign).to(self._device)
        unit = self._unit[chosen] * signs.to(torch.float32)[:, None]
        for k0 in range(0, int(limit.max()), self._tile):
            column = self._index(order[k0 : min(k0 + self._tile, int(limit.max()))])  # [w]
            s = unit @ self._unit[column].T  # sign * s32
            beyond = torch.arange(k0, k0 + len(column), device=self._device) >= ends[:, None]
            s.masked_fill_(beyond, -torch.inf)
            # The greatest S of the slice lies within two bounds of the greatest s32; one more for rounding.
            floor = torch.maximum(s.amax(dim=1).double(), to_tensor(best).to(self._device)) - 3 * self.bound
            flags = (s >= floor.float()[:, None]).logical_and_(beyond.logical_not_()).view(-1)
            for position in self._positions(flags):
                row = torch.div(position, len(column), rounding_mode="floor")
                value = self._similarities(chosen[row], column[position - row * len(column)]) * signs[row]
                np.maximum.at(best, row.cpu().numpy(), value.cpu().numpy())
        return best

    def similarity(self) -> torch.Tensor:
        with plain(self._rows):
            out = torch.empty((self.m, self.m), dtype=torch.float32, device=self._device)
            for i0, j0, s in self._tiles():
                height, width = s.shape
                if i0 == j0:
                    s = s.triu(1)
                    s = s + s.T
                    s.fill_diagonal_(1.0)
                out[i0 : i0 + height, j0 : j0 + width] = s
                out[j0 : j0 + width, i0 : i0 + height] = s.T
            return out


class TorchBackend(Backend):
    """torch tensors in; ``tile`` is for tests, results do not depend on it."""

    name = "torch"
    takes_device_arrays = True

    def __init__(self, tile: int | None = None) -> None:
        self._tile = tile

    def native(self, rows: Any) -> torch.Tensor:
        return condition(to_tensor(tensor_of_cupy(rows) if is_cupy(rows) else rows))

    def squared_norms(self, rows: torch.Tensor) -> np.ndarray:
        with plain(rows):
            return square_rows(rows).cpu().numpy()

    def normalize(self, rows: torch.Tensor, squares: np.ndarray) -> torch.Tensor:
        with plain(rows):
            return unit_rows(rows, to_tensor(squares).to(rows.device))

    def pool(self, rows: torch.Tensor, squares: np.ndarray) -> Pool:
        return TorchPool(rows, squares, self._tile)

    def score(self, rows: torch.Tensor, folded: np.ndarray) -> torch.Tensor:
        with plain(rows):
            sigma = torch.empty((len(rows), len(folded)), dtype=torch.float32, device=rows.device)
            for start, _, s in self._score_blocks(rows, folded):
                sigma[start : start + len(s)] = s
            return sigma

    def top2(self, rows: torch.Tensor, folded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        label = np.full(len(rows), -1, dtype=np.int64)
        best, second = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
        reach = 2 * error_bound(rows.shape[1])
        with plain(rows):
            vectors = to_tensor(folded).to(rows.device)
            for start, squares, s in self._score_blocks(rows, folded):
                # Whoever is first or second in float64 lies within two bounds of the float32 second.
                runner_up = s.topk(min(2, s.shape[1]), dim=1).values[:, -1:]
                row, column = (s.double() >= runner_up.double() - reach).nonzero(as_tuple=True)
                if len(row) == 0:
                    continue
                block = rows[start : start + len(s)]
                value = pinned_dots(block, row, vectors, column) / square_root(squares[row])
                found, *result = _best_two(row.cpu().numpy(), column.cpu().numpy(), value.cpu().numpy())
                label[start + found], best[start + found], second[start + found] = result
        return label, best, second

    def _score_blocks(self, rows: torch.Tensor, folded: np.ndarray) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Start, squares [b] and s32 [b, C] of blocks of rows; NaN for unusable rows."""
        columns = to_tensor(folded).to(rows.device, torch.float32).T  # [D, C]
        step = rows_within(sizes(rows.device).block_bytes, 8 * (rows.shape[1] + len(folded)))
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            squares = square_rows(block)
            yield start, squares, unit_rows(block, squares) @ columns


def _best_two(row: np.ndarray, column: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of entries in ascending (row, column): the rows, the column of each row's greatest value (the first of
    equals), that value, and the greatest of the row's others (-inf without others)."""
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    best = np.maximum.reduceat(value, starts)
    is_best = np.flatnonzero(value == np.repeat(best, np.diff(starts, append=len(row))))
    first = is_best[np.flatnonzero(np.diff(row[is_best], prepend=-1))]
    others = value.copy()
    others[first] = -np.inf
    return row[starts], column[first], best, np.maximum.reduceat(others, starts)
