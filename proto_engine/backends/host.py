"""Shared by the backends that run on the host: threads, tiles, the BLAS, stored element types."""

from __future__ import annotations

import functools
import math
import os
from typing import Any

import ml_dtypes
import numpy as np
from threadpoolctl import ThreadpoolController

from .base import Backend
from .process_setting import ProcessSetting, Undo

_MOST_THREADS = 4096


def num_threads() -> int:
    """Worker threads: PROTO_ENGINE_NUM_THREADS, or the processors that this process may use."""
    wanted = os.environ.get("PROTO_ENGINE_NUM_THREADS")
    if wanted:
        if not wanted.isdecimal() or not 1 <= int(wanted) <= _MOST_THREADS:
            raise ValueError(
                f"PROTO_ENGINE_NUM_THREADS: wanted a whole number from 1 to {_MOST_THREADS}, got {wanted!r}"
            )
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_tile(m: int, threads: int) -> int:
    """Side of a tile: large enough for the matrix product, and of large classes small enough for several a thread."""
    tiles_a_side = math.isqrt(8 * threads) + 1  # about four tiles a thread in the triangle
    return int(np.clip(m // tiles_a_side // 64 * 64, 128, 512))


def stored(rows: np.ndarray) -> tuple[np.ndarray, str]:
    """Rows as the native code reads them: elements of a row side by side, half types as uint16 bits."""
    dtype = rows.dtype.name
    if rows.strides[1] != rows.itemsize or rows.strides[0] < rows.shape[1] * rows.itemsize:
        rows = np.ascontiguousarray(rows)
    elif rows.strides[0] % rows.itemsize or not rows.flags.aligned:
        rows = rows.copy(order="C")
    if rows.dtype in (np.float16, ml_dtypes.bfloat16):
        rows = rows.view(np.uint16)
    return rows, dtype


@functools.cache
def _controller() -> ThreadpoolController:
    """Looks through the loaded libraries: once is enough. The BLAS alone: OpenMP's number is each thread's own."""
    return ThreadpoolController().select(user_api="blas")


# Our threads each multiply a tile of their own: the BLAS must not split a product again.
def _limit_blas(undo: Undo) -> None:
    for library in _controller().lib_controllers:
        if getattr(library, "threading_layer", None) == "openmp":
            continue  # then the number is each thread's own, too
        undo.append(functools.partial(_set_threads, library, library.get_num_threads()))
        _set_threads(library, 1)


def _set_threads(library: Any, number: int) -> None:
    """From any Python thread: threadpoolctl 3.8 keeps all others from it once one has set it."""
    give_up_control = getattr(library, "clear_controlling_thread", lambda force: None)
    give_up_control(force=True)
    library.set_num_threads(number)
    give_up_control(force=True)


_blas = ProcessSetting(_limit_blas)
single_threaded_blas = _blas.held


def unit_products(unit: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """s32 of all pairs of two groups of unit rows, [g, b] each.   [g, b, b] float32"""
    with single_threaded_blas():  # a group at a time: what is gathered stays in cache
        return np.stack([np.dot(unit[left], unit[right].T) for left, right in zip(first, second, strict=True)])


class HostBackend(Backend):
    """A backend that runs our threads over tiles; ``threads`` and ``tile`` are for tests, results do not depend
    on them."""

    def __init__(self, threads: int | None = None, tile: int | None = None) -> None:
        self._threads = threads
        self._tile = tile

    @property
    def _num_threads(self) -> int:
        return num_threads() if self._threads is None else self._threads
