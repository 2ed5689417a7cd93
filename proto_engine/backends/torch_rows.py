"""Rows as tensors: the modes torch must not be in, conversion, unit rows, and the pinned float64 sums.

Everything is done on the device that the rows are on, a bounded piece at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import torch

from .base import conditioning_shift
from .process_setting import ProcessSetting, Undo
from .reference import BLOCK, LANES


class Sizes(NamedTuple):
    """How much to do at once: what fits into caches, or what makes launches worth it."""

    tile: int  # side of a tile of S
    product_bytes: int  # float64 products of gathered rows
    block_bytes: int  # rows made ready for scores
    flags: int  # whose positions are looked for: eight bytes each, should all be set


def sizes(device: torch.device) -> Sizes:
    return Sizes(1024, 2**21, 2**24, 2**20) if device.type == "cpu" else Sizes(4096, 2**25, 2**26, 2**22)


class _Writable:
    """The memory of a read-only array under a writable name: torch warns about others. Nothing here writes."""

    def __init__(self, array: np.ndarray) -> None:
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface
        self._keep = array


def to_tensor(rows: Any) -> torch.Tensor:
    """An array as a tensor, sharing its memory where torch can address it.

    Parameters
    ----------
    rows : numpy.ndarray or torch.Tensor
        Of any dtype that torch has; bfloat16 is that of ml_dtypes. Read-only arrays are welcome.

    Returns
    -------
    torch.Tensor
        On the CPU for an array; a tensor as it is, detached.
    """
    if isinstance(rows, torch.Tensor):
        return rows.detach()
    array = rows
    if not array.flags.aligned or any(step < 0 or step % array.itemsize for step in array.strides):
        array = array.copy()
    bfloat16 = array.dtype == ml_dtypes.bfloat16
    if bfloat16:
        array = array.view(np.int16)
    if not array.flags.writeable:
        array = np.asarray(_Writable(array))
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if bfloat16 else tensor


def condition(rows: torch.Tensor) -> torch.Tensor:
    """Scale float64 rows of extreme size by powers of two (exact), so that their squares stay finite.

    Parameters
    ----------
    rows : torch.Tensor, [n, D]

    Returns
    -------
    torch.Tensor, [n, D]
        ``rows`` itself where there is nothing to do.
    """
    if rows.dtype != torch.float64 or rows.numel() == 0:
        return rows
    with plain(rows):
        largest = rows.abs().amax(dim=1).cpu().numpy()  # [n]
        shift = conditioning_shift(largest)
        if not shift.any():
            return rows
        # In two steps: 2**1074 is no float64. The short one first, so that no element is rounded twice.
        most = np.clip(shift, -1000, 1000)
        return (rows * _column(np.ldexp(1.0, shift - most), rows)).mul_(_column(np.ldexp(1.0, most), rows))


def _column(values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values).to(like.device)[:, None]


@contextmanager
def plain(rows: torch.Tensor) -> Iterator[None]:
    """Float32 products in float32, and neither autocast nor autograd, whatever mode the caller is in."""
    autocast = torch.autocast(rows.device.type, enabled=False)
    with _full_precision.held(), autocast, torch.inference_mode(False), torch.no_grad():
        yield


def _set_full_precision(undo: Undo) -> None:
    """Turns TF32 and bfloat16 products off, in both of torch's interfaces (since 2.9 there are two).

    The older one refuses to be read while the newer one says what it cannot express, so that comes first.
    A place that inherits reads like its parent; it is made to inherit again.
    """
    places = [(torch.backends.cuda.matmul, torch.backends.cudnn)]
    if hasattr(torch.backends.mkldnn, "matmul"):
        places.append((torch.backends.mkldnn.matmul, torch.backends.mkldnn))
    for place, parent in places:
        if hasattr(place, "fp32_precision"):
            precision = "none" if place.fp32_precision == parent.fp32_precision else place.fp32_precision
            undo.append(functools.partial(setattr, place, "fp32_precision", precision))
            place.fp32_precision = "ieee"
    undo.append(functools.partial(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()))
    torch.set_float32_matmul_precision("highest")


_full_precision = ProcessSetting(_set_full_precision)


def _pinned_sum(product: torch.Tensor) -> torch.Tensor:
    """Sum of each row in the order of `reference.pinned_dot`.   [n, D] float64 -> [n]"""
    num, dim = product.shape
    whole = dim - dim % BLOCK
    blocks = [fold_lanes(product[:, :whole].view(num, -1, BLOCK))] if whole else []
    if whole < dim:
        blocks.append(fold_lanes(product[:, None, whole:]))
    total = product.new_zeros(num)
    for folded in blocks:
        for block in folded.unbind(1):
            total = total + block
    return total


def fold_lanes(block: torch.Tensor) -> torch.Tensor:
    """Pinned sums of blocks, all at once.   [n, blocks, <= 256] float64 -> [n, blocks]"""
    lanes = block.new_zeros((*block.shape[:2], LANES))
    for group in block.split(LANES, dim=2):
        lanes[..., : group.shape[2]] += group
    lanes = lanes[..., :4] + lanes[..., 4:]  # 0+4, 1+5, 2+6, 3+7
    lanes = lanes[..., :2] + lanes[..., 2:]
    return lanes[..., 0] + lanes[..., 1]


def pinned_dots(a: torch.Tensor, i: torch.Tensor, b: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    """Pinned sum of products of a[i] and b[j], a bounded number of pairs at a time.   [n] float64"""
    out = torch.empty(len(i), dtype=torch.float64, device=a.device)
    step = rows_within(sizes(a.device).product_bytes, 8 * a.shape[1])
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        # The product and the sums are operations of their own: nothing can contract them.
        product = a.index_select(0, i[part]).to(torch.float64) * b.index_select(0, j[part]).to(torch.float64)
        out[part] = _pinned_sum(product)
    return out


def square_root(x: torch.Tensor) -> torch.Tensor:
    """Correctly rounded float64 square roots. On the CPU torch leaves long vectors to MKL, which is an ulp off."""
    return torch.from_numpy(np.sqrt(x.numpy())) if x.device.type == "cpu" else x.sqrt()


def square_rows(rows: torch.Tensor) -> torch.Tensor:
    out = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    step = rows_within(sizes(rows.device).product_bytes, 8 * rows.shape[1])
    for start in range(0, len(rows), step):
        x = rows[start : start + step].to(torch.float64)
        out[start : start + step] = _pinned_sum(x * x)
    return out


def unit_rows(rows: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """float32 unit rows; NaN where the squares allow none.   [n, D]"""
    unit = torch.empty(tuple(rows.shape), dtype=torch.float32, device=rows.device)
    inverse = torch.where(torch.isfinite(squares) & (squares > 0), 1.0 / squares.sqrt(), torch.nan)[:, None]
    step = rows_within(sizes(rows.device).product_bytes, 8 * rows.shape[1])
    for start in range(0, len(rows), step):
        unit[start : start + step] = rows[start : start + step].to(torch.float64) * inverse[start : start + step]
    return unit


def rows_within(limit: int, bytes_a_row: int) -> int:
    return max(1, limit // bytes_a_row)
