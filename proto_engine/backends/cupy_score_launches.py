"""The launch functions of csrc/cuda/score.h for kernels that CuPy launches, beside those of `cupy_launches`."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

from .cupy_compiler import Program, layout_claims
from .cupy_launches import Launches, blocks_for
from .cupy_programs import ELEMENTS, D, P, Q, by_value, record
from .device import StoredRows
from .device_scoring import PADDING, class_group, exact_bytes, padded_classes, padded_dim

ROWS_AT_A_TIME = 64  # kScoreRows
THREADS = 512  # kScoreThreads
SLICE_BYTES = 256  # kSliceBytes
SHARED_BYTES = 163 * 1024  # kSharedBytes
FOLDED_SCALE = 16384.0  # kFoldedScale
_FOLD_THREADS = 256
_SIZES = (2, 2, 4, 8)  # of elements, by the number of their dtype
_UNIT = 2.0**-24

PARAMS = record(
    ("rows", P),
    ("n", Q),
    ("stride", Q),
    ("dim", Q),
    ("aligned", "u1"),
    ("folded", P),
    ("exact", P),
    ("padded", Q),
    ("num_classes", Q),
    ("reach", D),
    ("label", P),
    ("best", P),
    ("second", P),
    ("sigma", P),
)
FOLD = (P, Q, Q, P, P)


class Variant(NamedTuple):
    """Template arguments of the kernel of the scores."""

    dtype: int  # of the rows
    tensor: bool  # on tensor cores
    classes: int  # at a time
    sigma: bool  # all scores, or the best two

    @property
    def kernel(self) -> str:
        return f"score_kernel<{self._common}, {str(self.sigma).lower()}>"

    @property
    def _common(self) -> str:
        return f"{ELEMENTS[self.dtype]}, {str(self.tensor).lower()}, {self.classes}"

    @property
    def shared_bytes(self) -> int:
        """``sizeof(ScoreShared)``."""
        columns = SLICE_BYTES // _SIZES[self.dtype]
        terms, size, parts = (2, 2, 4) if self.tensor else (1, 4, THREADS // (4 * self.classes))
        exact = self.classes * columns * 8 if self.classes <= 16 else 0
        vectors = max(terms * self.classes * columns * size, exact)
        stage = ROWS_AT_A_TIME * SLICE_BYTES + -(-vectors // 128) * 128
        lists = 4 * ROWS_AT_A_TIME * (parts * (self.classes + 4) + 2 * self.classes)
        stages = 4 if 4 * stage + lists <= SHARED_BYTES else 3
        return -(-(stages * stage + lists) // 128) * 128

    @property
    def program(self) -> Program:
        return _score_program(self)


@cache
def _score_program(variant: Variant) -> Program:
    claims = [
        f"kScoreRows == {ROWS_AT_A_TIME} && kScoreThreads == {THREADS} && kPadding == {PADDING}",
        f"kSliceBytes == {SLICE_BYTES} && kSharedBytes == {SHARED_BYTES} && kFoldedScale == {FOLDED_SCALE}f",
        f"sizeof(ScoreShared<{variant._common}>) == {variant.shared_bytes}",
        *layout_claims("ScoreParams", PARAMS),
    ]
    return Program(("score.cuh",), (variant.kernel,), tuple(claims), least_capability=(8, 0))


@cache
def fold_program(element: str) -> Program:
    return Program(("score.cuh",), (f"fold_kernel<{element}>",), least_capability=(8, 0))


def tensor_roundings(dtype: int, dim: int) -> float:
    return (64.0 if dtype == 1 else 6.0) + 98.0 + float(padded_dim(dim) // PADDING) + 5.0 + 8.0


def use_tensor_cores(dtype: int, dim: int) -> bool:
    return dtype <= 1 and tensor_roundings(dtype, dim) + dim / 32.0 + 8.0 <= dim + 8.0


def score_reach(dtype: int, dim: int) -> float:
    """What a class must reach on top of its row's second best, see score_products.cuh: the same float64 steps."""
    tensor = use_tensor_cores(dtype, dim)
    n = (tensor_roundings(dtype, dim) if tensor else dim + 8.0) * _UNIT
    bound = n / (1.0 - n) if n < 0.5 else math.inf
    norm = (dim + 16.0) * _UNIT
    return 2.0 * bound * (FOLDED_SCALE if tensor else 1.0) / (1.0 - norm) if norm < 0.5 else math.inf


class AllLaunches(Launches):
    """Launch functions on one stream, those of the scores included."""

    def prepare_folded(self, folded: int, num_classes: int, dim: int, dtype: int, workspace: int) -> None:
        if num_classes < 1 or dim < 1:
            raise ValueError(f"folded: wanted at least one class and one dimension, got {num_classes} and {dim}")
        element = ELEMENTS[dtype] if use_tensor_cores(dtype, dim) else "float"
        program = fold_program(element)
        kernel = self._find(program, program.kernels[0])
        grid = (blocks_for(padded_classes(num_classes) * padded_dim(dim), _FOLD_THREADS),)
        values = (folded, num_classes, dim, workspace, workspace + exact_bytes(num_classes, dim))
        kernel.launch(grid, _FOLD_THREADS, 0, self._stream, by_value(FOLD, values))

    def score_top2(
        self, rows: StoredRows, workspace: int, num_classes: int, label: int, best: int, second: int
    ) -> None:
        self._score(rows, workspace, num_classes, (label, best, second, 0), sigma=False)

    def score(self, rows: StoredRows, workspace: int, num_classes: int, sigma: int) -> None:
        self._score(rows, workspace, num_classes, (0, 0, 0, sigma), sigma=True)

    def _score(
        self, rows: StoredRows, workspace: int, num_classes: int, outputs: tuple[int, ...], *, sigma: bool
    ) -> None:
        if rows.num_rows == 0:
            return
        slices, groups = -(-rows.dim // 32), -(-num_classes // 16)
        if rows.dim < 1 or num_classes < 1 or groups >= (2**31 - 1) // slices:
            raise ValueError(f"folded: wanted fewer than 2**40 entries, got {num_classes} classes of {rows.dim}")
        tensor = use_tensor_cores(rows.dtype, rows.dim)
        variant = Variant(rows.dtype, tensor, class_group(num_classes), sigma)
        kernel, shared = self._find(variant.program, variant.kernel), variant.shared_bytes
        kernel.most_blocks(THREADS, shared)  # so much shared memory must be asked for
        blocks = min(-(-rows.num_rows // ROWS_AT_A_TIME), kernel.processors)  # one block each fits
        aligned = rows.data % 16 == 0 and rows.stride * _SIZES[rows.dtype] % 16 == 0
        values: tuple[Any, ...] = (
            rows.data,
            rows.num_rows,
            rows.stride,
            rows.dim,
            aligned,
            workspace + exact_bytes(num_classes, rows.dim),
            workspace,
            padded_dim(rows.dim),
            num_classes,
            score_reach(rows.dtype, rows.dim),
            *outputs,
        )
        kernel.launch((blocks,), THREADS, shared, self._stream, by_value((PARAMS,), (values,)))
