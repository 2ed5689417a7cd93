"""Cutoff, density and picks of many classes at once, in a fixed series of launches.

The steps are those of `exact`, with the bracket, its order statistic and the float64 look-ups on the device
too: a histogram of some tiles brackets each cutoff, one pass over all tiles counts, a few short kernels
finish. The host waits once, for the answer (twice for large classes, to allocate no more than they need).
Every class comes with a status; the caller takes another way for those that are not OK.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .base import cutoff_rank
from .device import (
    BINS,
    CLASS_STATE,
    DENSEST,
    ENTRY,
    MAX_CANDIDATES,
    MISSED,
    OVERFLOW,
    PICKED,
    SAMPLE,
    TILE,
    TOP,
    TRIANGLE,
    TilePass,
    Work,
    downloaded,
    filled,
    uploaded,
)
from .device_rows import ReadyRows

FARTHEST = 1.0625  # beyond every similarity
SAMPLE_SIGMAS = 6.0
SMALL_SIDE = 4  # tile rows up to which the sample is everything (kSmallSide)
SMALL_CLASS = 4096  # rows up to which one histogram brackets the cutoff well enough
SAMPLED_SHARE = 0.02  # of the tiles of a large class
MEMORY_SHARE = 0.4  # of the free memory of the device, for lists of pairs
_ROOM_SHARE, _LEAST_ROOM = 1 / 8, 2**16  # of the pairs of a small class, inside its bracket


class PickedRows(NamedTuple):
    """The picks of every class.   C classes, p picks; ``status`` tells which classes have them"""

    status: np.ndarray  # [C] int32
    cutoff: np.ndarray  # [C] float64
    num_picks: np.ndarray  # [C] int32
    rejected: np.ndarray  # [C] int32
    row: np.ndarray  # [C, p] int32, positions in the class
    rho: np.ndarray  # [C, p] int32
    eta: np.ndarray  # [C, p] float64


def triangle(n: np.ndarray) -> np.ndarray:
    return n * (n + 1) // 2


def sample_tiles(side: np.ndarray, rounds: int) -> np.ndarray:
    """Tiles of the sample of classes that are ``side`` tiles wide (schedule.cuh)."""
    return np.where(side <= SMALL_SIDE, triangle(side), side * np.minimum(rounds, (side - 1) // 2))


def tile_starts(tiles: np.ndarray) -> np.ndarray:
    """Where each class begins in the one list of tiles.   [C + 1] int64"""
    return np.concatenate([[0], np.cumsum(tiles)]).astype(np.int64)


class ClassBatch:
    """Classes whose rows lie one after another: ``offsets`` [C + 1] says where each begins; none is empty."""

    def __init__(self, rows: ReadyRows, offsets: np.ndarray) -> None:
        self.rows, self.gpu = rows, rows.gpu
        self._sizes = np.diff(offsets)  # [C]
        self._num_classes, self._num_rows = len(self._sizes), int(offsets[-1])
        self._side = -(-self._sizes // TILE)
        self._tiles = tile_starts(triangle(self._side))
        self._offsets = uploaded(self.gpu, offsets.astype(np.int64))
        self._tile_starts = uploaded(self.gpu, self._tiles)
        self._states = self.gpu.empty(self._num_classes * CLASS_STATE.itemsize)
        self._rho = self.gpu.empty(4 * self._num_rows)

    def close_in(self, quantile: float, *, careful: bool = False) -> None:
        """Launch everything from the bracket to rho. ``careful`` takes a larger sample and measured room."""
        gpu, num_classes, states = self.gpu, self._num_classes, self._initial_states(quantile)
        gpu.upload(states, self._states.pointer)
        histogram = filled(gpu, 8 * BINS * num_classes)
        counts = filled(gpu, 2 * 4 * self._num_rows)
        above, equal = counts.pointer, counts.pointer + 4 * self._num_rows
        stored, bound = self.rows.stored, self.rows.bound

        large = careful or int(self._sizes.max()) > SMALL_CLASS
        self._sample(2 if not large else 1, histogram.pointer, margin=0.0 if large else 3 * bound)
        if large:
            share = int(SAMPLED_SHARE * int(self._side.max()) / 2)
            self._sample(max(2, share), histogram.pointer, margin=3 * bound)
            states = self._downloaded_states()
            self._set_room(states, measured=True)
            gpu.upload(states, self._states.pointer)
        entries = gpu.empty(ENTRY.itemsize * int(states["capacity"].sum()))
        gpu.launch("count", self._pass(TRIANGLE), self._states.pointer, above, entries.pointer, histogram.pointer)
        gpu.launch("settle", num_classes, self._states.pointer, histogram.pointer, bound)
        gpu.launch(
            "decide",
            stored,
            num_classes,
            self._offsets.pointer,
            self._states.pointer,
            entries.pointer,
            above,
            histogram.pointer,
        )
        candidates = gpu.empty(8 * MAX_CANDIDATES * num_classes)
        gpu.launch("cutoff", num_classes, self._states.pointer, histogram.pointer, entries.pointer, candidates.pointer)
        gpu.launch(
            "rho",
            num_classes,
            self._offsets.pointer,
            self._states.pointer,
            entries.pointer,
            above,
            equal,
            self._rho.pointer,
        )

    def states(self) -> np.ndarray:
        """The records of all classes.   [C] CLASS_STATE"""
        return self._downloaded_states()

    def densities(self) -> np.ndarray:
        """rho of all rows.   [M] int64"""
        return downloaded(self.gpu, self._rho.pointer, self._num_rows, np.int32).astype(np.int64)

    def picks(self, p: int, eta_max: float, may_pick: np.ndarray | None) -> PickedRows:
        """The published rule.   may_pick: [M] bool, or None for all rows"""
        gpu, num_classes = self.gpu, self._num_classes
        top = gpu.empty(4 * TOP * num_classes)
        gpu.launch("top", num_classes, self._offsets.pointer, self._states.pointer, self._rho.pointer, top.pointer)
        smallest = filled(gpu, 8 * DENSEST * num_classes, 0xFF)
        allowed = None if may_pick is None else uploaded(gpu, may_pick.astype(np.uint8))
        cells = num_classes * p
        sizes = np.array([8 * cells, 4 * cells, 4 * cells, PICKED.itemsize * num_classes])  # eta, row, rho, picked
        answer = filled(gpu, int(sizes.sum()))
        eta, row, rho, picked = (answer.pointer + int(start) for start in np.cumsum([0, *sizes[:-1]]))
        gpu.launch(
            "pick",
            self.rows.stored,
            num_classes,
            self._offsets.pointer,
            self._states.pointer,
            self._rho.pointer,
            top.pointer,
            smallest.pointer,
            allowed.pointer if allowed else 0,
            p,
            eta_max,
            picked,
            row,
            rho,
            eta,
        )
        found = downloaded(gpu, answer.pointer, int(sizes.sum()), np.uint8)
        parts = np.split(found, np.cumsum(sizes)[:-1])
        picks = parts[3].view(PICKED)
        states = self._downloaded_states()
        return PickedRows(
            picks["status"],
            states["cutoff"],
            picks["count"],
            picks["rejected"],
            parts[1].view(np.int32).reshape(num_classes, p),
            parts[2].view(np.int32).reshape(num_classes, p),
            parts[0].view(np.float64).reshape(num_classes, p),
        )

    def _initial_states(self, quantile: float) -> np.ndarray:
        states = np.zeros(self._num_classes, dtype=CLASS_STATE)
        states["m"] = self._sizes
        states["rank"] = [cutoff_rank(quantile, int(m)) for m in self._sizes]
        states["bins_lo"], states["bins_hi"] = -FARTHEST, FARTHEST
        self._set_room(states, measured=False)
        return states

    def _set_room(self, states: np.ndarray, *, measured: bool) -> None:
        """How many entries each class's list can hold; none for classes that memory does not suffice for."""
        pairs = self._sizes * (self._sizes - 1) // 2
        wanted = 1.25 * states["expected"] if measured else _ROOM_SHARE * pairs
        room = np.minimum(pairs, np.maximum(wanted, _LEAST_ROOM)).astype(np.int64)
        if measured:
            limit = int(MEMORY_SHARE * self.gpu.free_bytes()) // ENTRY.itemsize
            room[np.cumsum(room) > limit] = 0
        states["capacity"], states["list_start"] = room, tile_starts(room)[:-1]

    def _sample(self, rounds: int, histogram: int, *, margin: float) -> None:
        starts = uploaded(self.gpu, tile_starts(sample_tiles(self._side, rounds)))
        total = int(sample_tiles(self._side, rounds).sum())
        self.gpu.launch("histogram", self._pass(SAMPLE, starts.pointer, total, rounds), self._states.pointer, histogram)
        self.gpu.launch("narrow", self._num_classes, self._states.pointer, histogram, SAMPLE_SIGMAS, margin)

    def _pass(self, shape: int, starts: int = 0, total: int = 0, rounds: int = 0) -> TilePass:
        if shape == TRIANGLE:
            starts, total = self._tile_starts.pointer, int(self._tiles[-1])
        work = Work(self._offsets.pointer, starts, 0, total, rounds, columns=0, shape=shape)
        return self.rows.tile_pass(work)

    def _downloaded_states(self) -> np.ndarray:
        return downloaded(self.gpu, self._states.pointer, self._num_classes, CLASS_STATE)


def undecided(status: np.ndarray) -> np.ndarray:
    """Classes that a careful second attempt may settle."""
    return np.flatnonzero(np.isin(status, (MISSED, OVERFLOW)))
