"""What the backends that compute on a GPU share: rows in, pools, and the picks of all classes at once."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..array_kinds import contiguous_rows, is_cupy, is_tensor, to_numpy
from ..device_arrays import device_array, is_device_array
from . import device_scoring
from .base import Backend, Chunks, Picks, Pool, condition_numpy, conditioning_shift
from .device import OK, DeviceOutput, downloaded, uploaded
from .device_density import ClassBatch, undecided
from .device_pool import DevicePool
from .device_rows import DeviceRows, ReadyRows, make_ready
from .device_streaming import StreamingGpu, stream

_FIRST_DEVICE = 0
_BATCH_BYTES = 2**30  # of rows that are gathered at once
_BATCH_CLASSES = 1024  # 64 KB of histogram and candidates each; a grid has room for 65,535


class DeviceBackend(Backend):
    """A backend over a `Gpu`; ``loop`` names one of its tile loops, by default the fastest that may be used.

    ``clusters`` says whether clusters of blocks find the best two classes; by default they do where they may.
    """

    takes_device_arrays = True

    def __init__(self, loop: str | None = None, *, clusters: bool | None = None) -> None:
        self._loop, self._clusters = loop, clusters

    @abstractmethod
    def gpu(self, device: int, stream: int) -> StreamingGpu:
        """The device of that number, with work in the order of that stream."""

    @abstractmethod
    def _available_loops(self, device: int) -> list[str]:
        """Tile loops that can run there, the slowest first."""

    def _clusters_can_score(self, device: int) -> bool:
        """Whether there are clusters of blocks there, and scores for them."""
        return False

    @abstractmethod
    def compute_capability(self, device: int) -> tuple[int, int]:
        """Such as (9, 0)."""

    def loop(self, device: int) -> str:
        """The tile loop that is used there.

        Raises
        ------
        BackendUnavailable
            It was named and cannot run there, or it gave a wrong answer there.
        """
        from .loop_checks import choose_loop  # it runs the backend itself

        return choose_loop(self, device, self._loop, self._available_loops(device))

    def native(self, rows: Any) -> DeviceRows:
        if isinstance(rows, DeviceRows):
            return rows
        if not is_device_array(rows):
            return self.copied(condition_numpy(to_numpy(rows)))
        found = device_array(rows)
        if found.strides[1] != 1 or found.strides[0] < found.shape[1]:
            rows = contiguous_rows(rows, 0, len(rows))
            found = device_array(rows)
        if found.dtype == np.float64 and conditioning_shift(_largest(rows)).any():
            return self.copied(condition_numpy(to_numpy(rows)), found.device, found.stream)
        gpu, (count, dim) = self.gpu(found.device, found.stream), found.shape
        return DeviceRows(gpu, found.pointer, count, dim, found.strides[0], found.dtype, found.owner)

    def copied(self, rows: np.ndarray, device: int = 0, stream: int = 0) -> DeviceRows:
        """Host rows in new memory of a device."""
        gpu = self.gpu(device, stream)
        with gpu.current():
            memory = uploaded(gpu, rows)
        return DeviceRows(gpu, memory.pointer, len(rows), rows.shape[1], rows.shape[1], rows.dtype, memory)

    def squared_norms(self, rows: DeviceRows) -> np.ndarray:
        gpu = rows.gpu
        with gpu.current():
            squares = gpu.empty(8 * rows.count)
            gpu.launch("squares", rows.stored(), squares.pointer)
            return downloaded(gpu, squares.pointer, rows.count, np.float64)

    def normalize(self, rows: DeviceRows, squares: np.ndarray) -> DeviceOutput:
        gpu = rows.gpu
        with gpu.current():
            on_device = uploaded(gpu, squares)
            unit = gpu.empty(4 * rows.count * rows.dim)
            gpu.launch("unit", rows.stored(on_device.pointer), unit.pointer)
            return DeviceOutput(gpu, unit, rows.shape, np.float32)

    def pool(self, rows: DeviceRows, squares: np.ndarray) -> Pool:
        with rows.gpu.current():
            return DevicePool(make_ready(rows, squares, self.loop(rows.gpu.device)))

    def score(self, rows: DeviceRows, folded: np.ndarray) -> DeviceOutput:
        return device_scoring.score(rows, folded, self._sigma_output(rows.gpu.device))

    def top2(self, rows: DeviceRows, folded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        label, best, second = device_scoring.top2(rows, folded, self._top2_output(rows.gpu.device))
        return np.asarray(label), np.asarray(best), np.asarray(second)

    def score_chunks(self, chunks: Chunks, folded: np.ndarray) -> Iterator[tuple[int, Any]]:
        return self._chunk_results(chunks, folded, device_scoring.score, self._sigma_output)

    def top2_chunks(self, chunks: Chunks, folded: np.ndarray) -> Iterator[tuple[int, tuple[Any, Any, Any]]]:
        return self._chunk_results(chunks, folded, device_scoring.top2, self._top2_output)

    def _chunk_results(
        self,
        chunks: Chunks,
        folded: np.ndarray,
        compute: Callable[[DeviceRows, np.ndarray, Any], Any],
        output_on: Callable[[int], device_scoring.Output],
    ) -> Iterator[tuple[int, Any]]:
        """Results of each chunk: left on the GPU that its rows are on, or of host rows that are streamed."""
        for on_device, same in _runs(chunks):
            if not on_device:
                output = output_on(_FIRST_DEVICE)
                yield from stream(self.gpu(_FIRST_DEVICE, stream=0), same, folded, output)
                continue
            for start, rows in same:
                native = self.native(rows)
                yield start, compute(native, folded, output_on(native.gpu.device))

    def _sigma_output(self, device: int) -> device_scoring.SigmaOutput:
        from .loop_checks import require_scores  # it runs the backend itself

        require_scores(self, device)
        return device_scoring.SigmaOutput()

    def _top2_output(self, device: int) -> device_scoring.Top2Output:
        from .loop_checks import clusters_score, require_scores

        require_scores(self, device)  # clusters leave rows and classes that are not for them to single blocks
        return device_scoring.Top2Output(clusters=clusters_score(self, device, self._clusters))

    def pick_classes(
        self,
        bank: Any,
        squares: np.ndarray,
        pools: Sequence[np.ndarray],
        p: int,
        quantile: float,
        eta_max: float,
        may_pick: np.ndarray | None,
    ) -> list[Picks | None]:
        found: list[Picks | None] = []
        for batch in _batches(pools, bank.shape[1] * bank.dtype.itemsize):
            index = batch[0] if len(batch) == 1 else np.concatenate(batch)
            rows = self._gathered(bank, index)
            sizes = [len(pool) for pool in batch]
            allowed = None if may_pick is None else may_pick[index]
            found += self.pick_ragged(rows, squares[index], sizes, p, quantile, eta_max, allowed)
        return found

    def pick_ragged(
        self,
        rows: DeviceRows,
        squares: np.ndarray,
        sizes: Sequence[int],
        p: int,
        quantile: float,
        eta_max: float,
        may_pick: np.ndarray | None = None,
    ) -> list[Picks | None]:
        """`pick_classes` for classes whose rows lie one after another.   squares, may_pick [M], sizes [C]"""
        with rows.gpu.current():
            ready = make_ready(rows, squares, self.loop(rows.gpu.device))
            return _pick(ready, sizes, p, quantile, eta_max, may_pick)

    def _gathered(self, bank: Any, index: np.ndarray) -> DeviceRows:
        """Rows of the bank, on the device, in that order."""
        if not is_device_array(bank.array):
            return self.native(bank.rows(index))
        rows = self.native(bank.array)
        if len(index) == rows.count and bool((index == np.arange(rows.count)).all()):
            return rows
        with rows.gpu.current():
            return rows.gathered(index)


def _batches(pools: Sequence[np.ndarray], bytes_a_row: int) -> list[list[np.ndarray]]:
    """Pools in groups whose rows are gathered together."""
    batches: list[list[np.ndarray]] = []
    room = 0
    for pool in pools:
        if not batches or len(pool) > room or len(batches[-1]) == _BATCH_CLASSES:
            batches.append([])
            room = _BATCH_BYTES // bytes_a_row
        batches[-1].append(pool)
        room -= len(pool)
    return batches


def _pick(
    ready: ReadyRows, sizes: Sequence[int], p: int, quantile: float, eta_max: float, may_pick: np.ndarray | None
) -> list[Picks | None]:
    """Picks of classes whose rows lie one after another; None for those that the quick way leaves open."""
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    result: list[Picks | None] = [None] * len(sizes)

    def attempt(classes: np.ndarray, *, careful: bool) -> np.ndarray:
        first, last = int(offsets[classes[0]]), int(offsets[classes[-1] + 1])
        batch = ClassBatch(ready.part(first, last), offsets[classes[0] : classes[-1] + 2] - first)
        batch.close_in(quantile, careful=careful)
        picks = batch.picks(p, eta_max, None if may_pick is None else may_pick[first:last])
        for k, c in enumerate(classes):
            if picks.status[k] == OK:
                n = picks.num_picks[k]
                result[c] = Picks(
                    picks.row[k, :n].astype(np.int64),
                    picks.rho[k, :n].astype(np.int64),
                    picks.eta[k, :n].copy(),
                    float(picks.cutoff[k]),
                    int(picks.rejected[k]) / sizes[c],
                )
        return classes[undecided(picks.status)]

    everyone = np.arange(len(sizes))
    again = attempt(everyone, careful=False)
    if len(again) == 1:
        attempt(again, careful=True)
    elif len(again):  # features that have collapsed do so in most classes: together is quicker than one by one
        attempt(everyone, careful=True)
    return result


def _runs(chunks: Chunks) -> Iterator[tuple[bool, Chunks]]:
    """The chunks of a bank, which are all on a GPU or all on the host, there as NumPy; nothing for no chunks."""
    iterator = iter(chunks)
    for first in iterator:
        rest = itertools.chain([first], iterator)
        on_device = is_device_array(first[1])
        yield on_device, rest if on_device else ((start, to_numpy(rows)) for start, rows in rest)


def _largest(rows: Any) -> np.ndarray:
    """The greatest magnitude of each row of a device matrix.   [n] float64"""
    if is_tensor(rows):
        return rows.abs().amax(dim=1).cpu().numpy()
    assert is_cupy(rows)
    with rows.device:
        return abs(rows).max(axis=1).get()
