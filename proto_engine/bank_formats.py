"""Memory-mapping the two array formats a bank can live in: ``.npy`` and ``.safetensors``.

Both are a header and then raw values, so the header is checked against the length of the file and the
values are mapped where they lie. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT_DTYPES = (np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64))
_NPY_MAGIC = b"\x93NUMPY"
_SAFETENSORS_DTYPES = {
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library


def check_float_dtype(dtype: np.dtype[Any], what: str) -> None:
    """Raise TypeError unless ``dtype`` is one of the four that a bank may have, in native byte order."""
    if dtype in FLOAT_DTYPES:
        return
    if dtype.kind == "f" and not dtype.isnative:
        native = dtype.newbyteorder("=").name
        raise TypeError(f"{what}: {dtype} is not in this machine's byte order; store it .astype({native!r})")
    hint = " (.npy cannot hold bfloat16: use .safetensors)" if dtype == np.dtype("V2") else ""
    raise TypeError(f"{what}: wanted float16, bfloat16, float32 or float64, got {dtype}{hint}")


def open_npy(path: Path) -> np.memmap[Any, Any]:
    """Map a two-dimensional ``.npy`` file of floats, read-only."""
    what = f"features: {str(path)!r}"
    return map_npy(path, what, floats=True)


def map_npy(path: Path, what: str, floats: bool = False) -> np.memmap[Any, Any]:
    """Map a ``.npy`` file, read-only, after checking its header and its length.

    With ``floats`` it must be a bank: two dimensions of one of the four float types.
    """
    with path.open("rb") as file:
        shape, fortran, dtype = _read_npy_header(file, what)
        offset = file.tell()
    if floats:
        _check_shape(shape, what)
        check_float_dtype(dtype, what)
    elif math.prod(shape) < 1:
        raise ValueError(f"{what} is empty: shape {shape}")
    _check_length(path, offset + math.prod(shape) * dtype.itemsize, what)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C")


@dataclass(frozen=True)
class FileMap:
    """The map of a file under an array.

    Attributes
    ----------
    map : mmap.mmap
    read_only : bool
        Neither for writing nor copy-on-write.
    needed : int
        Bytes that the file had at least when it was mapped.
    name : object
        Of the file; None where it was mapped by its descriptor.
    """

    map: mmap.mmap
    read_only: bool
    needed: int
    name: Any

    @classmethod
    def under(cls, array: Any) -> FileMap | None:
        """That of an array that is, or is a view of, a `numpy.memmap`; None for others."""
        while isinstance(array, np.ndarray):
            if isinstance(array, np.memmap) and array._mmap is not None:  # type: ignore[attr-defined]
                start = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
                found = array._mmap  # type: ignore[attr-defined]
                return cls(found, array.mode == "r", start + len(found), array.filename)
            array = array.base
        return None

    def check(self) -> None:
        """Raise ValueError where pages of the map have no file behind them: reading those ends the process."""
        size = self.map.size()  # of the file, now
        if size < self.needed:
            what = "the mapped file" if self.name is None else repr(str(self.name))
            raise ValueError(f"features: {what} has become shorter since it was opened: {size} bytes of {self.needed}")


def _read_npy_header(file: BinaryIO, what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    if file.read(len(_NPY_MAGIC)) != _NPY_MAGIC:
        raise ValueError(f"{what} is not a .npy file (its first bytes are not those of one)")
    file.seek(0)
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            header = np.lib.format.read_array_header_2_0(file)
        else:  # version 3 is for field names beyond latin-1, and a bank has no fields
            raise ValueError(f"format version {version[0]}.{version[1]} holds structured arrays only")
    except Exception as error:  # numpy hands the header to Python's tokenizer and parser, each with its errors
        raise ValueError(f"{what} has no readable .npy header: {error}") from None
    shape, fortran, dtype = header
    if not _are_sizes(shape):
        raise ValueError(f"{what} has no readable .npy header: wanted whole numbers of at least 0, got shape {shape}")
    if dtype.hasobject:
        raise TypeError(f"{what} holds Python objects, which are refused: they can run code when loaded")
    if dtype.names is not None:
        raise TypeError(f"{what}: wanted a plain [N, D] array of floats, got a structured array {dtype}")
    return shape, fortran, dtype


def open_safetensors(path: Path, name: str | None) -> np.memmap[Any, Any]:
    """Map one two-dimensional tensor of a ``.safetensors`` file, read-only and without a copy."""
    what = f"features: {str(path)!r}"
    header, data_start = _read_safetensors_header(path, what)
    tensors = [key for key in header if key != "__metadata__"]
    name = _choose_tensor(tensors, name, what)
    what = f"{what}, tensor {name!r}"
    try:
        kind, shape, (begin, end) = (
            header[name]["dtype"],
            tuple(header[name]["shape"]),
            header[name]["data_offsets"],
        )
        numbers = (*shape, begin, end)
        valid = isinstance(kind, str) and _are_sizes(numbers)
    except (KeyError, TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(f"{what}: its entry in the header is malformed")
    if kind not in _SAFETENSORS_DTYPES:
        raise TypeError(f"{what}: wanted F16, BF16, F32 or F64, got {kind}")
    _check_shape(shape, what)
    dtype = _SAFETENSORS_DTYPES[kind]
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{what}: {end - begin} bytes for shape {shape} of {kind}, the header contradicts itself")
    _check_length(path, data_start + end, what, exact=False)
    return np.memmap(path, dtype=dtype, mode="r", offset=data_start + begin, shape=shape)


def _read_safetensors_header(path: Path, what: str) -> tuple[dict[str, Any], int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            raise ValueError(
                f"{what} is truncated or not a .safetensors file (header length {length}, file {size} bytes)"
            )
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ValueError(f"{what} is not a .safetensors file (its header is not a JSON object)")
    return header, 8 + length


def _choose_tensor(tensors: list[str], name: str | None, what: str) -> str:
    if name is None:
        if len(tensors) == 1:
            return tensors[0]
        if "features" in tensors:
            return "features"
        raise ValueError(f"{what}: name the tensor to use with column=, it holds {listed(tensors)}")
    if name not in tensors:
        raise ValueError(f"{what} has no tensor {name!r}, it holds {listed(tensors)}")
    return name


def listed(names: list[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(repr(name) for name in names[:20]) + more if names else "nothing"


def _are_sizes(numbers: tuple[Any, ...]) -> bool:
    return all(type(number) is int and number >= 0 for number in numbers)  # True is no size


def _check_shape(shape: tuple[int, ...], what: str) -> None:
    if len(shape) != 2:
        raise ValueError(f"{what}: wanted two dimensions [N, D], got shape {shape}")
    if min(shape) < 1:
        raise ValueError(f"{what} is empty: shape {shape}")


def _check_length(path: Path, wanted: int, what: str, exact: bool = True) -> None:
    size = path.stat().st_size
    if size < wanted:
        raise ValueError(f"{what} is truncated: {size} bytes, its header asks for {wanted}")
    if exact and size > wanted:
        raise ValueError(f"{what} is {size} bytes long, its header asks for {wanted}: something follows the array")
