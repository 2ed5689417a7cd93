"""The feature bank: N rows of D features, in memory or on disk, read in chunks or by index."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from .array_kinds import ArrayKind, contiguous_rows, has_float_dtype, is_cupy, is_tensor, readable, take_rows, to_numpy
from .bank_formats import FileMap, check_float_dtype, open_npy, open_safetensors
from .files import plain_file

DEFAULT_CHUNK_BYTES = 64 * 2**20


class RowSource(Protocol):
    """Rows that are no array: they are decoded or computed when they are asked for.

    Attributes
    ----------
    name : str
        For the bank's repr.
    shape : (int, int)
        N and D.
    dtype : numpy.dtype or torch.dtype
    kind : ArrayKind
        Of the rows given out.
    """

    name: str
    shape: tuple[int, int]
    dtype: Any
    kind: ArrayKind

    def rows(self, wanted: np.ndarray) -> Any:
        """Rows ``wanted`` (int64, [k], in range) in that order, [k, D]."""
        ...

    def chunks(self, step: int) -> Iterator[tuple[int, Any]]:
        """(start, [b, D]) over all rows, b <= ``step``."""
        ...


class FeatureBank:
    """Rows of a [N, D] matrix of floating-point features, wherever they are kept.

    A bank over a file reads what it is asked for and holds no more than that: a file larger than the
    memory can be streamed. Files are opened with `FeatureBank.open`.

    Parameters
    ----------
    array : numpy.ndarray, torch.Tensor or cupy.ndarray, [N, D]
        float16, bfloat16, float32 or float64, at least one row and one column. A `numpy.memmap` is
        welcome. The array is not copied.

    Raises
    ------
    ValueError
        Not two-dimensional, without rows or columns, or with masked entries.
    TypeError
        A dtype other than the four above, or a tensor that is not strided or has no values.
    """

    def __init__(self, array: Any) -> None:
        array = readable(array, "array")
        _check_array(array)
        self._array = array
        self._source: RowSource | None = None
        self._file = FileMap.under(array)

    @classmethod
    def over(cls, source: RowSource) -> FeatureBank:
        """A bank over rows that are decoded or computed when they are asked for."""
        bank = cls.__new__(cls)
        bank._array, bank._file, bank._source = None, None, source
        return bank

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, column: str | None = None) -> FeatureBank:
        """Open a bank kept in a file; the rows stay on disk until they are asked for.

        Parameters
        ----------
        path : str or os.PathLike
            ``.npy`` (memory-mapped, C or Fortran order), ``.safetensors`` (memory-mapped) or
            ``.parquet`` (streamed; a column of lists of equal length).
        column : str, optional
            The Parquet column or the safetensors tensor. By default the only one that can be a bank,
            or the one called "features".

        Raises
        ------
        FileNotFoundError, IsADirectoryError
            ``path`` is no file.
        ValueError
            The ending is not one of the three; the file is truncated, foreign or empty; the column is
            missing, ambiguous, has null entries or rows of different lengths.
        TypeError
            The features are not float16, bfloat16, float32 or float64 in the machine's byte order.
        """
        file = plain_file(path, "features")
        ending = file.suffix.lower()
        if ending == ".npy":
            if column is not None:
                raise ValueError(f"column: {str(file)!r} is a .npy file, which has no columns, got {column!r}")
            return cls(open_npy(file))
        if ending == ".safetensors":
            return cls(open_safetensors(file, column))
        if ending == ".parquet":
            from .bank_parquet import ParquetRows  # pyarrow is needed for this kind of file only

            return cls.over(ParquetRows(file, column))
        raise ValueError(f"features: wanted a .npy, .safetensors or .parquet file, got {str(file)!r}")

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        num_samples, dim = (self._array if self._source is None else self._source).shape
        return int(num_samples), int(dim)

    @property
    def dtype(self) -> Any:
        """The stored dtype: a numpy dtype (bfloat16 is `ml_dtypes.bfloat16`; CuPy's too), or torch's for a tensor."""
        return (self._array if self._source is None else self._source).dtype

    @property
    def kind(self) -> ArrayKind:
        """The kind of array that `rows` and `chunks` give out, and where it is."""
        return ArrayKind.of(self._array) if self._source is None else self._source.kind

    @property
    def transform(self) -> Any:
        """The `BankTransform` that all rows go through on their way out, or None."""
        return getattr(self._source, "transform", None)

    @property
    def array(self) -> Any:
        """The array (in host or GPU memory), memory map or tensor behind the bank.

        None where `rows` and `chunks` are the only way in: rows that must be decoded or computed, or values
        that a file holds at unaligned addresses. ValueError where the file has become shorter.
        """
        self._check_file()
        aligned = not isinstance(self._array, np.ndarray) or self._array.flags.aligned
        return self._array if aligned else None

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        kind = self._source.name if self._source is not None else type(self._array).__name__
        return f"FeatureBank({kind}, shape={self.shape}, dtype={self.dtype})"

    def rows(self, indices: Any) -> Any:
        """Gather rows, in the order given.

        Parameters
        ----------
        indices : array of int, [k]
            Row numbers from 0 to N - 1, in any kind of array; repeats are fine.

        Returns
        -------
        array, [k, D]
            Contiguous, in the stored dtype; for a bank over a tensor or a CuPy array the same, on its device.

        Raises
        ------
        TypeError
            ``indices`` are not integers.
        ValueError
            ``indices`` is not one-dimensional, or the mapped file has become shorter.
        IndexError
            A row number is negative or beyond the last row.
        """
        wanted = self._check_indices(indices)
        if self._source is not None:
            return self._source.rows(wanted)
        if not isinstance(self._array, np.ndarray):
            return take_rows(self._array, wanted)
        self._check_file()
        rows = np.require(np.asarray(self._array)[wanted], requirements=["C", "A"])
        self._give_back(None)
        return rows

    def chunks(self, max_bytes: int | None = None) -> Iterator[tuple[int, Any]]:
        """Walk over all rows once, a chunk at a time.

        Parameters
        ----------
        max_bytes : int, optional
            Upper limit for one chunk; a chunk has at least one row. By default 64 MiB, or all rows at once where
            they lie on a GPU: nothing is gained there by parts.

        Yields
        ------
        start : int
            Row number of the chunk's first row.
        rows : array, [b, D]
            Contiguous, in the stored dtype; a view where the bank's memory allows it (then read-only if
            the bank is). Pages of a read-only memory map are given back to the system when the next
            chunk is asked for, so that a file larger than the memory streams through.
        """
        if max_bytes is None:
            there = self._source is None and not self.kind.on_cpu
            max_bytes = sys.maxsize if there else DEFAULT_CHUNK_BYTES
        if max_bytes <= 0:
            raise ValueError(f"max_bytes: wanted a positive number, got {max_bytes}")
        num_samples, dim = self.shape
        step = max(1, int(max_bytes) // (dim * self.dtype.itemsize))
        if self._source is not None:
            yield from self._source.chunks(step)
            return
        if not isinstance(self._array, np.ndarray):
            for start in range(0, num_samples, step):
                yield start, contiguous_rows(self._array, start, start + step)
            return
        array = np.asarray(self._array)  # plain views: np.memmap pays for its extras at every slice
        for start in range(0, num_samples, step):
            self._check_file()
            piece = array[start : start + step]  # [b, D]
            yield start, np.require(piece, requirements=["C", "A"])
            self._give_back(piece)

    def _check_indices(self, indices: Any) -> np.ndarray:
        wanted = to_numpy(indices, "indices")
        if wanted.ndim != 1:
            raise ValueError(f"indices: wanted one dimension, got shape {wanted.shape}")
        if wanted.size and wanted.dtype.kind not in "iu":
            raise TypeError(f"indices: wanted integers, got {wanted.dtype}")
        if wanted.size and (int(wanted.min()) < 0 or int(wanted.max()) >= len(self)):
            raise IndexError(
                f"indices: wanted rows 0 to {len(self) - 1}, got {int(wanted.min())} to {int(wanted.max())}"
            )
        return wanted.astype(np.int64)  # always a copy: torch warns about read-only arrays

    def _check_file(self) -> None:
        if self._file is not None:
            self._file.check()

    def _give_back(self, piece: np.ndarray | None) -> None:
        """Drop the pages of ``piece``, or all, from the resident set; a later touch maps them again.

        Only of read-only maps: a copy-on-write map would lose its changes with its pages.
        """
        if self._file is None or not self._file.read_only or not hasattr(mmap, "MADV_DONTNEED"):
            return
        if piece is None or not piece.flags.c_contiguous:  # its rows lie all over the map
            self._file.map.madvise(mmap.MADV_DONTNEED)
            return
        map_address = np.frombuffer(self._file.map, dtype=np.uint8).__array_interface__["data"][0]
        start = piece.__array_interface__["data"][0] - map_address
        stop = start + piece.nbytes
        start -= start % mmap.PAGESIZE
        self._file.map.madvise(mmap.MADV_DONTNEED, start, stop - start)


def _check_array(array: Any) -> None:
    if not (isinstance(array, np.ndarray) or is_tensor(array) or is_cupy(array)):
        raise TypeError(f"array: wanted a numpy array, torch tensor or CuPy array, got {type(array).__name__}")
    if len(array.shape) != 2 or 0 in tuple(array.shape):
        raise ValueError(f"array: wanted [N, D] with N, D >= 1, got shape {tuple(array.shape)}")
    if isinstance(array, np.ndarray):
        check_float_dtype(array.dtype, "array")
    elif not has_float_dtype(array):
        raise TypeError(f"array: wanted float16, bfloat16, float32 or float64, got {array.dtype}")
