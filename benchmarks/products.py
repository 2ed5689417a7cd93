"""The rooflines of one class: the bare product X X^T, and a copy of the bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from inputs import itemsize
from machine import num_processors
from parts import Case, Variant

from proto_engine.backends import error_bound

if TYPE_CHECKING:
    from places import Place

PRODUCT, COPY = "S = X X^T", "copy"
_CHUNK_BYTES = 2**31  # of a product that does not fit as a whole
_FITTING_SHARE = 0.4  # of the free memory
_CHECKED_ROWS = 64


@dataclass(frozen=True)
class Piece:
    """Rows of a product, from ``start`` on: [b, m]."""

    start: int
    s: Any


def multiply_torch(inputs: Any) -> Piece:
    """torch.mm into memory that is there already."""
    import torch

    x = inputs.x if isinstance(inputs.x, torch.Tensor) else torch.from_numpy(inputs.x)
    out = inputs.s if isinstance(inputs.s, torch.Tensor) else torch.from_numpy(inputs.s)
    torch.mm(x, x.T, out=out)
    return Piece(0, inputs.s)


def multiply_tf32(inputs: Any) -> Piece:
    """The same with the products of float32 rounded to 10 bits: what tensor cores do to it."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        return multiply_torch(inputs)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def multiply_chunks(inputs: Any) -> Piece:
    """Rows of the product, a chunk at a time into the same memory: for one that is too large as a whole."""
    import torch

    x, out = inputs.x, inputs.chunk
    for start in range(0, len(x), len(out)):
        rows = x[start : start + len(out)]
        torch.mm(rows, x.T, out=out[: len(rows)])
    return Piece(start, out[: len(rows)])


def multiply_numpy(inputs: Any) -> Piece:
    """NumPy sees the two factors are one and calls the BLAS's symmetric product: half the work."""
    return Piece(0, np.matmul(inputs.x, inputs.x.T, out=inputs.s))


def copy_bank(inputs: Any) -> Any:
    return inputs.copy.copy_(inputs.x)


def chunk_rows(m: int, size: int) -> int:
    """Rows of a chunk of the product."""
    return min(m, max(1, _CHUNK_BYTES // (size * m)))


def host_rooflines(case: Case, *, threads: tuple[int, ...], with_numpy: bool) -> list[Variant]:
    """torch.mm for each number of threads, and NumPy's product."""
    square = 4 * case["m"] ** 2
    found = [Variant("torch.mm", PRODUCT, "roofline", n, multiply_torch, square) for n in threads]
    if with_numpy:
        found.append(Variant("numpy.matmul", PRODUCT, "roofline", num_processors(), multiply_numpy, square))
    return found


def gpu_rooflines(case: Case, place: Place) -> list[Variant]:
    """The product, whole where it fits, and the copy; for float32 also the product that rounds."""
    m, dim, size = case["m"], case["dim"], itemsize(case)
    room = place.available_bytes()
    whole = room is None or size * m * m <= _FITTING_SHARE * room
    multiply = multiply_torch if whole else multiply_chunks
    needs = size * m * (m if whole else chunk_rows(m, size))
    found = [Variant("torch.mm", PRODUCT, "roofline", 1, multiply, needs)]
    if size == 4 and whole:
        found.append(Variant("torch.mm TF32", PRODUCT, "roofline", 1, multiply_tf32, needs))
    moved = 2.0 * size * m * dim  # read and written
    copied = {"flops": None, "bytes": moved}
    return [*found, Variant("torch copy", COPY, "roofline", 1, copy_bank, size * m * dim, work=copied)]


def check_roofline(x: Any, variant: Variant, result: Any) -> None:
    """Raise `CheckFailed` unless a roofline of `host_rooflines` or `gpu_rooflines` did what it is there for."""
    if variant.task == COPY:
        check_copy(x, result)
    else:
        check_product(x, result, rounds="TF32" in variant.name)


def check_product(x: Any, piece: Piece, *, rounds: bool) -> None:
    """Raise `CheckFailed` unless some rows of the product are within rounding of their float64 values.

    ``rounds``: its factors were rounded to TF32.
    """
    import torch
    from checks import require

    x = x if isinstance(x, torch.Tensor) else torch.from_numpy(x)
    s = piece.s if isinstance(piece.s, torch.Tensor) else torch.from_numpy(piece.s)
    rows = torch.linspace(0, len(s) - 1, min(len(s), _CHECKED_ROWS), device=x.device).long()
    norms = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)  # [m]
    double = x[rows + piece.start].double()
    off = 0.0
    for start in range(0, len(x), 2**16):
        part = slice(start, start + 2**16)
        apart = (s[rows, part].double() - double @ x[part].double().T).abs_()
        off = max(off, float((apart / (norms[rows + piece.start, None] * norms[part])).max()))
    room = error_bound(x.shape[1]) + (2.0**-9 if rounds else 0.0)
    if s.dtype != torch.float32:
        room += 4 * torch.finfo(s.dtype).eps  # the product is rounded when it is stored, at times twice
    require(off <= room, f"a product is off by {off:.3g}, tolerance {room:.3g}")


def check_copy(x: Any, result: Any) -> None:
    """Raise `CheckFailed` unless the copy is one."""
    from checks import require

    require(bool((result == x).all()), "the copy is not the bank")
