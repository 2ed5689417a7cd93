"""Scores on a GPU of rows that come from the host in chunks.

They take turns on two lanes, each with a stream, memory on the device and page-locked memory of its own::

    lane 0   copy 0 | score 0 | results 0          copy 2 | score 2 | results 2
    lane 1            copy 1 ...... | score 1 | results 1     copy 3 ......

so that the next chunk is on its way while one is scored, and the copies, which take longest, follow each other
without a gap. The host fills a lane's page-locked memory while the other lane copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from .base import condition_numpy
from .device import DTYPES, Gpu, Memory, StoredRows
from .device_scoring import Folded, Output, launch, prepare_folded
from .host import num_threads

LANES = 2
_COPYING_THREADS = 4  # one alone fills page-locked memory more slowly than a PCIe bus empties it
_ALONE_BYTES = 2**22  # not worth more than one thread


class Event(Protocol):
    """A point in the work of a stream."""

    def wait(self, stream: int) -> None:
        """Work of that stream from now on begins when the event has passed."""

    def synchronize(self) -> None:
        """Waits, without the interpreter's lock, until the work before it is done."""


class StreamingGpu(Gpu, Protocol):
    """A `Gpu` whose copies need not be waited for.

    Notes
    -----
    What the native module does for it, in ``_core.cuda`` (sizes in bytes, addresses and streams as int):

    ``Stream(device)``
        ``.pointer``; cudaStreamCreateWithFlags(cudaStreamNonBlocking), destroyed with the object.
    ``Event(device)``
        cudaEventCreateWithFlags(cudaEventDisableTiming), destroyed with the object; ``.record(stream)``,
        ``.synchronize()`` without the GIL, ``.wait(stream)``: cudaStreamWaitEvent(stream, event).
    ``PinnedMemory(num_bytes)``
        Writable buffer of bytes, for ``numpy.frombuffer``; cudaHostAlloc, cudaFreeHost with the object.
    ``is_pinned(address) -> bool``
        cudaPointerGetAttributes says cudaMemoryTypeHost; an error means False, and is cleared.
    ``upload(to, array, stream)``, ``download_async(array, address, stream)``
        cudaMemcpyAsync from and to a C-contiguous uint8 array, which the caller keeps.
    ``prepare_folded(folded, num_classes, dim, dtype, workspace, stream)``
    ``score_top2(rows, workspace, num_classes, label, best, second, stream)``
    ``score(rows, workspace, num_classes, sigma, stream)``
        The launch functions of csrc/cuda/score.h; ``rows`` is a `StoredRows` and the rest are addresses.
    """

    def new_stream(self) -> StreamingGpu:
        """The same device, with work in the order of a stream of its own."""

    def pinned(self, num_bytes: int) -> np.ndarray:
        """Page-locked memory.   [num_bytes] uint8"""

    def is_pinned(self, array: np.ndarray) -> bool:
        """Whether the array lies in page-locked memory, whoever locked it."""

    def send(self, array: np.ndarray, to: int) -> None:
        """Begins to copy a contiguous page-locked array to an address."""

    def receive(self, address: int, array: np.ndarray) -> None:
        """Begins to copy from an address to a contiguous page-locked array."""

    def event(self) -> Event:
        """A mark behind the work so far."""

    def wait_for(self, event: Event) -> None:
        """Work from now on begins when the event has passed."""


def stream(
    gpu: StreamingGpu, chunks: Iterable[tuple[int, np.ndarray]], folded: np.ndarray, output: Output
) -> Iterator[tuple[int, Any]]:
    """Results for rows on the host, chunk by chunk.

    Parameters
    ----------
    gpu : StreamingGpu
        Where they are scored.
    chunks : iterable of (int, array [b, D])
        Row number of the first row, and the rows: of one dtype, any number at a time. They are read before the
        next chunk is asked for, unless they lie in page-locked memory: such rows must stay until their results
        have come.
    folded : array of float64, [C, D]
    output : Output
        `Top2Output` or `SigmaOutput`.

    Yields
    ------
    start : int
    result : Top2 or array
        Of every chunk in turn, up to two chunks behind the one that was asked for last.
    """
    workers = min(_COPYING_THREADS, num_threads())
    with ThreadPoolExecutor(workers) as threads:
        lanes = [_Lane(gpu, output, threads, workers) for _ in range(LANES)]
        ready: Folded | None = None
        turn = 0
        try:
            for start, rows in chunks:
                if ready is None:
                    ready = _prepare_for(gpu, lanes, folded, rows.dtype)
                lane = lanes[turn % LANES]
                turn += 1
                yield from lane.results()
                lane.begin(start, condition_numpy(rows), ready)
            for last in range(turn, turn + LANES):
                yield from lanes[last % LANES].results()
        finally:  # also where the caller stops early: nothing may be freed that is still in use
            for lane in lanes:
                lane.finish()


def _prepare_for(gpu: StreamingGpu, lanes: list[_Lane], folded: np.ndarray, dtype: np.dtype) -> Folded:
    with gpu.current():
        ready = prepare_folded(gpu, folded, dtype)
        prepared = gpu.event()
        for lane in lanes:
            lane.gpu.wait_for(prepared)
        return ready


class _Lane:
    """A stream, and room for one chunk and its results on either side."""

    def __init__(self, gpu: StreamingGpu, output: Output, threads: ThreadPoolExecutor, workers: int) -> None:
        with gpu.current():
            self.gpu = gpu.new_stream()
        self._output, self._threads, self._workers = output, threads, workers
        self._done: Event | None = None  # of the chunk under way
        self._start = self._count = 0
        self._source: np.ndarray | None = None  # kept while it is copied from
        self._pinned_rows = self._pinned_results = np.empty(0, dtype=np.uint8)
        self._device_rows: Memory | None = None
        self._device_results: Memory | None = None
        self._room = 0  # on the device, for rows
        self._used = 0  # bytes of the results under way

    def begin(self, start: int, rows: np.ndarray, folded: Folded) -> None:
        """Copy, score, copy back; returns at once. The chunk before must have been finished."""
        gpu, (count, dim) = self.gpu, rows.shape
        with gpu.current():
            self._start, self._count, self._used = start, count, count * self._output.bytes_a_row(folded.num_classes)
            on_device, results = self._rooms(rows.nbytes)
            self._source = self._ready_to_send(rows)
            try:
                gpu.send(self._source, on_device)
                stored = StoredRows(on_device, count, dim, dim, DTYPES[rows.dtype], 0)
                launch(gpu, self._output, stored, folded, results)
                gpu.receive(results, self._pinned_results[: self._used])
            finally:
                self._done = gpu.event()  # behind whatever has begun

    def results(self) -> Iterator[tuple[int, Any]]:
        """Of the chunk under way, if there is one; waits for it."""
        if self._done is not None:
            self.finish()
            data = self._pinned_results[: self._used].copy()  # the lane is free again
            yield self._start, self._output.result(data, self._count)

    def finish(self) -> None:
        """Waits for the chunk under way."""
        if self._done is not None:
            self._done.synchronize()
            self._done = self._source = None

    def _rooms(self, row_bytes: int) -> tuple[int, int]:
        """Addresses for the rows and the results; more room than before where it is needed."""
        if self._device_rows is None or row_bytes > self._room:
            self._device_rows, self._room = self.gpu.empty(row_bytes), row_bytes
        if self._device_results is None or self._used > len(self._pinned_results):
            self._device_results = self.gpu.empty(self._used)
            self._pinned_results = self.gpu.pinned(self._used)
        return self._device_rows.pointer, self._device_results.pointer

    def _ready_to_send(self, rows: np.ndarray) -> np.ndarray:
        """The rows' bytes in page-locked memory: where they are, or copied to the lane's."""
        rows = rows.view(np.dtype(f"u{rows.itemsize}"))  # so that NumPy copies without the interpreter's lock
        if rows.flags.c_contiguous and self.gpu.is_pinned(rows):
            return rows.reshape(-1).view(np.uint8)
        if rows.nbytes > len(self._pinned_rows):
            self._pinned_rows = self.gpu.pinned(rows.nbytes)
        target = self._pinned_rows[: rows.nbytes]
        shaped = target.view(rows.dtype).reshape(rows.shape)
        parts = self._workers if rows.nbytes > _ALONE_BYTES else 1
        cuts = np.linspace(0, len(rows), parts + 1).astype(np.int64)
        list(self._threads.map(lambda a, b: np.copyto(shaped[a:b], rows[a:b]), cuts[:-1], cuts[1:]))
        return target
