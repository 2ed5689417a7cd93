"""The launches of a selection are a fixed series: done again as they were, captured into a graph or not, they give
the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import cuda_host_library
import numpy as np
import pytest
from exact_cases import assert_same_bits

from proto_engine.backends.cuda import NativeGpu, native_module
from proto_engine.backends.device import OK
from proto_engine.backends.device_density import ClassBatch, PickedRows
from proto_engine.backends.device_rows import DeviceRows, make_ready

SIZES = [300, 129, 7, 260]
DIM = 24


class Recorder(NativeGpu):
    """A GPU that remembers all that it was asked to do, keeps the memory, and can do it again."""

    def __init__(self, native: Any, stream: int = 0) -> None:
        super().__init__(native, 0, stream)
        self.series: list[tuple[str, tuple[Any, ...]]] = []
        self._kept: list[Any] = []

    def empty(self, num_bytes: int) -> Any:
        self._kept.append(super().empty(num_bytes))
        return self._kept[-1]

    def upload(self, array: np.ndarray, to: int) -> None:
        """Through memory of its own, so that what kernels change can be brought back without the host."""
        original = self.empty(array.nbytes)
        super().upload(array, original.pointer)
        self.launch("copy", to, original.pointer, array.nbytes)

    def fill(self, address: int, byte: int, num_bytes: int) -> None:
        self.launch("fill", address, byte, num_bytes)

    def launch(self, name: str, *arguments: Any) -> None:
        self.series.append((name, arguments))
        super().launch(name, *arguments)

    def again(self) -> None:
        for name, arguments in self.series:
            super().launch(name, *arguments)


class Selection:
    """Cutoffs, densities and picks of some classes, and where on the device they are."""

    def __init__(self, gpu: Recorder, loop: str) -> None:
        rng = np.random.default_rng(0)
        x = (rng.standard_normal((sum(SIZES), DIM)) + 0.2).astype(np.float16)
        squares = np.square(x.astype(np.float64)).sum(axis=1)  # any squares will do: the same both times
        memory = gpu.empty(x.nbytes)
        gpu.upload(x.view(np.uint8).reshape(-1), memory.pointer)
        rows = DeviceRows(gpu, memory.pointer, len(x), DIM, DIM, np.dtype(np.float16), memory)
        self._batch = ClassBatch(make_ready(rows, squares, loop), np.concatenate([[0], np.cumsum(SIZES)]))
        self._batch.close_in(0.6)
        self.picks = self._batch.picks(4, 0.95, None)
        self.result = self.read()

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        states = self._batch.states()
        return np.stack(
            [states[name].astype(np.float64) for name in ("cutoff", "status", "inside")]
        ), self._batch.densities()


def assert_settled(selection: Selection) -> None:
    picks: PickedRows = selection.picks
    assert (picks.status == OK).all() and (picks.num_picks == 4).all()


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    reason = cuda_host_library.missing()
    if reason is not None:
        pytest.skip(reason)
    yield cuda_host_library.load(tmp_path_factory)


@pytest.mark.parametrize("loop", ["simt", "mma"])
def test_the_series_done_again_gives_the_same_bits(core, loop):
    gpu = Recorder(core.cuda)
    selection = Selection(gpu, loop)
    assert_settled(selection)
    gpu.again()
    for found, wanted in zip(selection.read(), selection.result, strict=True):
        assert_same_bits(found, wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("loop", ["simt", "mma", "wgmma"])
def test_the_series_can_be_captured_into_a_graph(loop):
    import torch

    if loop == "wgmma" and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("wgmma needs compute capability 9.0")
    stream = torch.cuda.Stream()
    gpu = Recorder(native_module(), stream.cuda_stream)
    selection = Selection(gpu, loop)  # loads every kernel: that cannot be captured
    assert_settled(selection)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        gpu.again()
    for _ in range(3):
        graph.replay()
        torch.cuda.synchronize()
        for found, wanted in zip(selection.read(), selection.result, strict=True):
            assert_same_bits(found, wanted)
