"""Scores of host rows in two lanes: order of operations, every row once, no memory touched before its time."""

from __future__ import annotations

import functools
import weakref
from collections import deque
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from exact_cases import DTYPES, REFERENCE, assert_same_bits, class_vectors

from proto_engine.backends import device_streaming
from proto_engine.backends.base import error_bound
from proto_engine.backends.device import DTYPES as CODES
from proto_engine.backends.device import StoredRows
from proto_engine.backends.device_rows import DeviceRows
from proto_engine.backends.device_scoring import SigmaOutput, Top2Output, score, top2, workspace_bytes
from proto_engine.backends.device_streaming import stream

DTYPE_OF = {code: dtype for dtype, code in CODES.items()}


class Memory:
    """Of the fake device: host memory, looked up by address; given back in the order of its stream."""

    def __init__(self, num_bytes: int, gpu: FakeGpu) -> None:
        data = np.full(max(num_bytes, 1), 0xFF, dtype=np.uint8)
        self.pointer = data.ctypes.data
        gpu.memory[self.pointer] = data
        weakref.finalize(self, gpu.queue.append, ("free", functools.partial(gpu.memory.pop, self.pointer)))


class FakeGpu:
    """A device whose work is done as late as it can be: when somebody waits for it.

    Every stream is a queue; an event empties its own up to the mark. So what the host reads too early is
    poison, and what it overwrites too early is seen.
    """

    device = 0

    def __init__(self, parent: FakeGpu | None = None) -> None:
        self.queue: deque[tuple[str, Any]] = deque()
        self.memory: dict[int, np.ndarray] = {} if parent is None else parent.memory
        self.log: list[tuple[int, str]] = [] if parent is None else parent.log
        self.locked: list[tuple[int, int]] = [] if parent is None else parent.locked
        self.streams: list[FakeGpu] = [self] if parent is None else parent.streams
        self.is_current: list[bool] = [False] if parent is None else parent.is_current
        self.stream = 0 if parent is None else len(self.streams)
        self.fails_at: str | None = None

    @contextmanager
    def current(self):
        before, self.is_current[0] = self.is_current[0], True
        try:
            yield
        finally:
            self.is_current[0] = before

    def enqueue(self, name: str, work: Any) -> None:
        assert self.is_current[0], "the device must be the current one"
        self.log.append((self.stream, name))
        if name == self.fails_at:
            raise RuntimeError(f"{name} failed")
        self.queue.append((name, work))

    def run(self) -> None:
        while self.queue:
            self.queue.popleft()[1]()

    def at(self, address: int, num_bytes: int) -> np.ndarray:
        for start, data in list(self.memory.items()):
            if start <= address and address + num_bytes <= start + len(data):
                return data[address - start : address - start + num_bytes]
        raise AssertionError("an address outside of all memory of the device")

    def assert_idle(self) -> None:
        """Nothing is under way, and all memory is given back."""
        for each in self.streams:
            assert {name for name, _ in each.queue} <= {"free", "wait"}
            each.run()
        assert not self.memory

    # ---- Gpu

    def empty(self, num_bytes: int) -> Memory:
        assert self.is_current[0]
        return Memory(num_bytes, self)

    def upload(self, array: np.ndarray, to: int) -> None:
        kept = array.reshape(-1).view(np.uint8).copy()
        self.enqueue("upload", lambda: np.copyto(self.at(to, kept.size), kept))

    def download(self, address: int, array: np.ndarray) -> None:
        self.run()
        np.copyto(array.reshape(-1).view(np.uint8), self.at(address, array.nbytes))

    def fill(self, address: int, byte: int, num_bytes: int) -> None:
        raise AssertionError("nothing is to be filled")

    def free_bytes(self) -> int:
        return 2**30

    def launch(self, name: str, *arguments: Any) -> None:
        self.enqueue(name, lambda: getattr(self, f"run_{name}")(*arguments))

    # ---- what is launched

    def run_prepare_folded(self, folded: int, num_classes: int, dim: int, dtype: int, workspace: int) -> None:
        space = self.at(workspace, workspace_bytes(num_classes, dim))
        vectors = self.at(folded, 8 * num_classes * dim)
        space[:] = 0
        space[: vectors.size] = vectors

    def rows_and_folded(self, x: StoredRows, workspace: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
        dtype = DTYPE_OF[x.dtype]
        rows = (
            self.at(x.data, x.num_rows * x.stride * dtype.itemsize)
            .view(dtype)
            .reshape(x.num_rows, x.stride)[:, : x.dim]
        )
        return rows, self.at(workspace, 8 * num_classes * x.dim).view(np.float64).reshape(num_classes, x.dim)

    def run_score_top2(self, x: StoredRows, workspace: int, num_classes: int, *columns: int) -> None:
        results = REFERENCE.top2(*self.rows_and_folded(x, workspace, num_classes))
        for address, values in zip(columns, results, strict=True):
            np.copyto(self.at(address, 8 * x.num_rows), values.view(np.uint8))

    def run_score(self, x: StoredRows, workspace: int, num_classes: int, sigma: int) -> None:
        result = REFERENCE.score(*self.rows_and_folded(x, workspace, num_classes)).astype(np.float32)
        np.copyto(self.at(sigma, result.nbytes), result.reshape(-1).view(np.uint8))

    # ---- StreamingGpu

    def new_stream(self) -> FakeGpu:
        assert self.is_current[0]
        other = FakeGpu(self)
        other.fails_at = self.fails_at
        self.streams.append(other)
        return other

    def pinned(self, num_bytes: int) -> np.ndarray:
        array = np.full(num_bytes, 0xFF, dtype=np.uint8)
        self.locked.append((array.ctypes.data, array.ctypes.data + num_bytes))
        return array

    def is_pinned(self, array: np.ndarray) -> bool:
        start = array.ctypes.data
        return any(first <= start and start + array.nbytes <= last for first, last in self.locked)

    def send(self, array: np.ndarray, to: int) -> None:
        assert array.dtype == np.uint8 and array.flags.c_contiguous and self.is_pinned(array)
        self.enqueue("send", lambda: np.copyto(self.at(to, array.size), array))

    def receive(self, address: int, array: np.ndarray) -> None:
        assert array.dtype == np.uint8 and array.flags.c_contiguous and self.is_pinned(array)
        self.enqueue("receive", lambda: np.copyto(array, self.at(address, array.size)))

    def event(self) -> FakeEvent:
        assert self.is_current[0]
        return FakeEvent(self)

    def wait_for(self, event: FakeEvent) -> None:
        assert self.is_current[0]
        self.queue.append(("wait", event.pass_mark))


class FakeEvent:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.passed = False
        gpu.queue.append(("mark", self._mark))

    def _mark(self) -> None:
        self.passed = True

    def pass_mark(self) -> None:
        while not self.passed:
            self.gpu.queue.popleft()[1]()

    def synchronize(self) -> None:
        self.gpu.log.append((self.gpu.stream, "synchronize"))
        self.pass_mark()


def problem(n: int, dim: int, num_classes: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([n, dim])
    x = rng.standard_normal((n, dim)).astype(DTYPES[dtype])
    if n > 1:
        x[n // 2] = 0
    return x, class_vectors(rng, num_classes, dim)


def chunks_of(x: np.ndarray, size: int) -> list[tuple[int, np.ndarray]]:
    return [(start, x[start : start + size]) for start in range(0, len(x), size)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 7, 20, 39, 40, 100])
def test_every_row_is_scored_once_and_results_come_in_order(dtype, size):
    x, folded = problem(40, 9, 5, dtype)
    found = list(stream(FakeGpu(), iter(chunks_of(x, size)), folded, Top2Output()))
    assert [start for start, _ in found] == list(range(0, 40, size))
    for column, wanted in enumerate(REFERENCE.top2(x, folded)):
        assert_same_bits(np.concatenate([result[column] for _, result in found]), wanted)
    sigma = np.concatenate([s for _, s in stream(FakeGpu(), chunks_of(x, size), folded, SigmaOutput())])
    assert_same_bits(sigma, REFERENCE.score(x, folded).astype(np.float32))


def test_the_next_chunk_is_on_its_way_before_anyone_waits():
    x, folded = problem(40, 9, 5)
    gpu = FakeGpu()
    list(stream(gpu, chunks_of(x, 10), folded, Top2Output()))
    lane = ["send", "score_top2", "receive"]
    order = [(0, "upload"), (0, "prepare_folded")]
    order += [(1, name) for name in lane] + [(2, name) for name in lane]
    for stream_number in (1, 2):
        order += [(stream_number, name) for name in ("synchronize", *lane)]
    assert gpu.log == [*order, (1, "synchronize"), (2, "synchronize")]


def test_memory_is_used_again_and_grows_for_a_larger_chunk():
    x, folded = problem(60, 9, 5)
    gpu = FakeGpu()
    pieces = [(0, x[:10]), (10, x[10:20]), (20, x[20:25]), (25, x[25:30]), (30, x[30:60])]
    found = list(stream(gpu, pieces, folded, Top2Output()))
    assert_same_bits(np.concatenate([result.label for _, result in found]), REFERENCE.top2(x, folded)[0])
    assert len(gpu.locked) == 2 * 2 + 2  # rows and results of two lanes, once more for the last chunk
    gpu.assert_idle()


def test_chunks_may_be_overwritten_as_soon_as_the_next_is_asked_for():
    x, folded = problem(50, 9, 5)
    buffer = np.empty((10, 9), dtype=np.float32)

    def chunks():
        for start, rows in chunks_of(x, 10):
            buffer[:] = rows
            yield start, buffer

    found = list(stream(FakeGpu(), chunks(), folded, Top2Output()))
    assert_same_bits(np.concatenate([result.best for _, result in found]), REFERENCE.top2(x, folded)[1])


def test_page_locked_rows_are_copied_from_where_they_are():
    x, folded = problem(40, 9, 5)
    gpu = FakeGpu()
    locked = gpu.pinned(x.nbytes).view(np.float32).reshape(x.shape)
    locked[:] = x
    found = list(stream(gpu, chunks_of(locked, 15), folded, Top2Output()))
    assert_same_bits(np.concatenate([result.second for _, result in found]), REFERENCE.top2(x, folded)[2])
    assert len(gpu.locked) == 1 + 2  # only for the results
    every_second = list(stream(gpu, chunks_of(locked[::2], 15), folded, Top2Output()))
    assert_same_bits(np.concatenate([result.second for _, result in every_second]), REFERENCE.top2(x[::2], folded)[2])


def test_large_chunks_are_copied_by_several_threads(monkeypatch):
    monkeypatch.setenv("PROTO_ENGINE_NUM_THREADS", "3")
    monkeypatch.setattr(device_streaming, "_ALONE_BYTES", 0)
    x, folded = problem(100, 9, 5, "bfloat16")
    found = list(stream(FakeGpu(), chunks_of(x, 41), folded, Top2Output()))
    assert_same_bits(np.concatenate([result.best for _, result in found]), REFERENCE.top2(x, folded)[1])


def test_float64_rows_of_extreme_size_are_scaled_on_their_way():
    x, folded = problem(20, 9, 5, "float64")
    wanted = REFERENCE.top2(x, folded)
    found = list(stream(FakeGpu(), chunks_of(x * 2.0**900, 8), folded, Top2Output()))
    assert_same_bits(np.concatenate([result.best for _, result in found]), wanted[1])


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_caller_who_stops_early_leaves_nothing_under_way(taken):
    x, folded = problem(50, 9, 5)
    gpu = FakeGpu()
    results = stream(gpu, chunks_of(x, 10), folded, Top2Output())
    for _ in range(taken):
        next(results)
        assert not gpu.is_current[0]  # the caller's device is the current one again
    results.close()
    gpu.assert_idle()


@pytest.mark.parametrize("what", ["send", "score_top2", "receive"])
def test_after_an_error_nothing_is_under_way(what):
    x, folded = problem(50, 9, 5)
    gpu = FakeGpu()
    gpu.fails_at = what
    with pytest.raises(RuntimeError, match=f"{what} failed"):
        list(stream(gpu, chunks_of(x, 10), folded, Top2Output()))
    gpu.assert_idle()


def test_no_chunks_no_results():
    assert list(stream(FakeGpu(), [], problem(1, 4, 2)[1], Top2Output())) == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_on_the_device_are_scored_where_they_are(dtype):
    x, folded = problem(30, 9, 5, dtype)
    gpu = FakeGpu()
    with gpu.current():
        memory = gpu.empty(x.nbytes)
        gpu.upload(x, memory.pointer)
    rows = DeviceRows(gpu, memory.pointer, *x.shape, x.shape[1], x.dtype, memory)
    for found, wanted in zip(top2(rows, folded, Top2Output()), REFERENCE.top2(x, folded), strict=True):
        assert_same_bits(found, wanted)
    sigma = score(rows, folded, SigmaOutput())
    assert sigma.shape == (30, 5)
    assert_same_bits(np.asarray(sigma), REFERENCE.score(x, folded).astype(np.float32))


# ---- on a GPU ------------------------------------------------------------------------------------------


def native_backend() -> Any:
    from proto_engine.backends.cuda import CudaBackend, unavailable_reason

    if unavailable_reason() is not None:
        pytest.skip(str(unavailable_reason()))
    return CudaBackend()


def near_problem(n: int, dim: int, num_classes: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows, a third of them multiples of class vectors; a row without a direction; rows of extreme size."""
    x, folded = problem(n, dim, num_classes, "float64")
    near = np.arange(0, n, 3)
    x[near] = folded[near % num_classes] * np.where(near % 2, -2.0, 0.5)[:, None]
    x[n // 2] = 0
    x = x.astype(DTYPES[dtype])
    small, large = {"float16": (6e-5, 6e3)}.get(dtype, (1e-30, 1e30))
    x[1] *= np.array(small, dtype=x.dtype)
    x[2] *= np.array(large, dtype=x.dtype)
    return x, folded


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [1, 2, 14, 16, 33, 100])
def test_kernels_give_the_bits_of_the_reference(dtype, num_classes):
    backend = native_backend()
    for n, dim in ((3, 8), (70, 100), (200, 301), (9000, 40), (130, 512), (65, 2048)):
        x, folded = near_problem(n, dim, num_classes, dtype)
        rows = backend.native(x)
        for found, wanted in zip(backend.top2(rows, folded), REFERENCE.top2(x, folded), strict=True):
            assert_same_bits(found, wanted)
        sigma, wanted = np.asarray(backend.score(rows, folded)), REFERENCE.score(x, folded)
        assert_same_bits(np.isnan(sigma), np.isnan(wanted))
        assert np.nanmax(np.abs(sigma - wanted)) <= error_bound(dim)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_streams_of_a_gpu_give_the_bits_of_the_reference(dtype):
    gpu = native_backend().gpu(0, 0)
    x, folded = near_problem(5000, 264, 14, dtype)
    with gpu.current():
        locked = gpu.pinned(x.nbytes).view(x.dtype).reshape(x.shape)
    locked[:] = x
    assert gpu.is_pinned(locked) and gpu.is_pinned(locked[100:]) and not gpu.is_pinned(x)
    wanted = REFERENCE.top2(x, folded)
    for source in (x, locked, locked[::-1][::-1]):
        for size in (5000, 2500, 700, 33):
            found = list(stream(gpu, chunks_of(source, size), folded, Top2Output()))
            for column in range(3):
                assert_same_bits(np.concatenate([result[column] for _, result in found]), wanted[column])
