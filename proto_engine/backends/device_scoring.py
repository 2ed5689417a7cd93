"""Scores of rows that are on a GPU already; `device_streaming` brings rows there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np

from .device import DTYPES, DeviceOutput, Gpu, Memory, StoredRows, uploaded
from .device_rows import DeviceRows

PADDING = 128  # kPadding of csrc/cuda/score_products.cuh


class Top2(NamedTuple):
    """Best class (int64; -1 unusable), its score and the second best (float64).   [n] each"""

    label: np.ndarray
    best: np.ndarray
    second: np.ndarray


class Output(ABC):
    """What is computed of rows: a launch, and the arrays that it fills, one after another in one piece of memory."""

    launch: str  # what computes it

    @abstractmethod
    def bytes_a_row(self, num_classes: int) -> int: ...

    def addresses(self, start: int, count: int) -> list[int]:
        """Where the launch puts its results for ``count`` rows, from an address on."""
        return [start]

    @abstractmethod
    def result(self, data: np.ndarray, count: int) -> Any:
        """The results of ``count`` rows from their bytes."""


class Top2Output(Output):
    """`Top2` of each chunk, by single blocks or by clusters of them."""

    def __init__(self, *, clusters: bool = False) -> None:
        self.launch = "score_top2_cluster" if clusters else "score_top2"

    def bytes_a_row(self, num_classes: int) -> int:
        return 24

    def addresses(self, start: int, count: int) -> list[int]:
        return [start, start + 8 * count, start + 16 * count]

    def result(self, data: np.ndarray, count: int) -> Top2:
        label, best, second = data.view(np.int64).reshape(3, count)
        return Top2(label, best.view(np.float64), second.view(np.float64))


class SigmaOutput(Output):
    """sigma of each chunk.   [b, C] float32"""

    launch = "score"

    def bytes_a_row(self, num_classes: int) -> int:
        return 4 * num_classes

    def result(self, data: np.ndarray, count: int) -> np.ndarray:
        return data.view(np.float32).reshape(count, -1)


class Folded(NamedTuple):
    """Folded vectors, made ready on the device for rows of one dtype."""

    workspace: Memory
    num_classes: int


def padded_dim(dim: int) -> int:
    return -(-dim // PADDING) * PADDING


def class_group(num_classes: int) -> int:
    return 16 if num_classes <= 16 else 32


def padded_classes(num_classes: int) -> int:
    group = class_group(num_classes)
    return -(-num_classes // group) * group


def exact_bytes(num_classes: int, dim: int) -> int:
    """Where the vectors for s32 begin in the workspace."""
    return num_classes * padded_dim(dim) * 8


def workspace_bytes(num_classes: int, dim: int) -> int:
    """``score_workspace_bytes`` of csrc/cuda/score.cu: float64 vectors, and what float32 products need."""
    return exact_bytes(num_classes, dim) + 4 * padded_classes(num_classes) * padded_dim(dim)


def prepare_folded(gpu: Gpu, folded: np.ndarray, dtype: np.dtype) -> Folded:
    """Folded vectors [C, D] float64, made ready for rows of that dtype."""
    num_classes, dim = folded.shape
    vectors = uploaded(gpu, folded)
    workspace = gpu.empty(workspace_bytes(num_classes, dim))
    gpu.launch("prepare_folded", vectors.pointer, num_classes, dim, DTYPES[dtype], workspace.pointer)
    return Folded(workspace, num_classes)


def top2(rows: DeviceRows, folded: np.ndarray, output: Top2Output) -> tuple[DeviceOutput, DeviceOutput, DeviceOutput]:
    """The best two classes of rows on a GPU, left there: label, best and second, as in `Top2`.   folded [C, D]"""
    gpu, n = rows.gpu, rows.count
    with gpu.current():
        ready = prepare_folded(gpu, folded, rows.dtype)
        memory = gpu.empty(n * output.bytes_a_row(len(folded)))
        launch(gpu, output, rows.stored(), ready, memory.pointer)
        label, best, second = (
            DeviceOutput(gpu, memory, (n,), dtype, offset)
            for dtype, offset in ((np.int64, 0), (np.float64, 8 * n), (np.float64, 16 * n))
        )
        return label, best, second


def score(rows: DeviceRows, folded: np.ndarray, output: SigmaOutput) -> DeviceOutput:
    """sigma of rows on a GPU, left there.   folded [C, D] float64 -> [n, C] float32"""
    gpu = rows.gpu
    with gpu.current():
        ready = prepare_folded(gpu, folded, rows.dtype)
        memory = gpu.empty(rows.count * output.bytes_a_row(len(folded)))
        launch(gpu, output, rows.stored(), ready, memory.pointer)
        return DeviceOutput(gpu, memory, (rows.count, len(folded)), np.float32)


def launch(gpu: Gpu, output: Output, rows: StoredRows, folded: Folded, results: int) -> None:
    addresses = output.addresses(results, rows.num_rows)
    gpu.launch(output.launch, rows, folded.workspace.pointer, folded.num_classes, *addresses)
