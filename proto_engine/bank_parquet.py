"""Feature rows in a Parquet column of lists: decoded a few rows at a time, in file order or by index."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .array_kinds import ArrayKind
from .bank_formats import listed

_CACHE_BYTES = 128 * 2**20  # decoded row groups kept for the next gather
_BATCH_BYTES = 16 * 2**20  # decoded at once from a row group too large to keep
_READ_BYTES = 2**20


class ParquetRows:
    """The rows of one list column, [N, D].

    Parquet is compressed, so rows cannot be mapped. A walk over the file decodes one batch at a time; a
    gather decodes the row groups that hold the wanted rows and keeps the last few of them, up to 128 MiB.
    """

    name = "parquet"
    kind = ArrayKind()

    def __init__(self, path: Path, column: str | None) -> None:
        self._what = f"features: {str(path)!r}"
        # Without pre-buffering a column is read page by page, not a row group at once.
        self._file = open_parquet(path, self._what, pre_buffer=False, buffer_size=_READ_BYTES)
        self._column = _choose_column(self._file.schema_arrow, column, self._what)
        self._what += f", column {self._column!r}"
        num_samples = self._file.metadata.num_rows
        if num_samples == 0:
            raise ValueError(f"{self._what} is empty: 0 rows")
        kind = self._file.schema_arrow.field(self._column).type
        self.dtype: np.dtype[Any] = _float_dtype(kind, self._what)
        self.shape = (num_samples, self._list_size(kind))
        if self.shape[1] == 0:
            raise ValueError(f"{self._what} is empty: lists of length 0")
        sizes = [self._file.metadata.row_group(g).num_rows for g in range(self._file.metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes)])  # [groups + 1]
        self._cache: dict[int, np.ndarray] = {}  # row group -> [b, D], the last used at the end

    def rows(self, wanted: np.ndarray) -> np.ndarray:
        """Rows ``wanted`` (int64, [k], in range) in that order, [k, D]."""
        out = np.empty((len(wanted), self.shape[1]), dtype=self.dtype)
        order = np.argsort(wanted, kind="stable")
        ascending = wanted[order]
        groups = np.unique(np.searchsorted(self._starts, ascending, side="right") - 1)
        for group in groups.tolist():
            for start, block in self._group_blocks(group):
                low, high = np.searchsorted(ascending, [start, start + len(block)])
                out[order[low:high]] = block[ascending[low:high] - start]
        return out

    def chunks(self, step: int) -> Iterator[tuple[int, np.ndarray]]:
        """(start, [b, D]) over all rows, b <= ``step``."""
        yield from self._decode(step, None, 0)

    def _group_blocks(self, group: int) -> Iterator[tuple[int, np.ndarray]]:
        start, stop = int(self._starts[group]), int(self._starts[group + 1])
        row_bytes = self.shape[1] * self.dtype.itemsize
        if (stop - start) * row_bytes > _CACHE_BYTES:
            yield from self._decode(max(1, _BATCH_BYTES // row_bytes), [group], start)
            return
        block = self._cache.pop(group, None)
        if block is None:
            block = np.concatenate([rows for _, rows in self._decode(stop - start, [group], start)])
        self._cache[group] = block
        while sum(kept.nbytes for kept in self._cache.values()) > _CACHE_BYTES:
            del self._cache[next(iter(self._cache))]  # the least recently used one
        yield start, block

    def _decode(self, step: int, groups: list[int] | None, start: int) -> Iterator[tuple[int, np.ndarray]]:
        batches = self._file.iter_batches(step, row_groups=groups, columns=[self._column])
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{self._what} is damaged near row {start}: {error}") from None
            if batch is None:
                return
            if batch.num_rows:
                yield start, self._matrix(batch.column(0), start)
                start += batch.num_rows

    def _matrix(self, lists: Any, start: int) -> np.ndarray:
        """A list array as [b, D] without a copy, after the checks a rectangular matrix needs."""
        dim = self.shape[1]
        _refuse_nulls(lists, f"{self._what}: row {{}} is null", start, 1)
        if not pa.types.is_fixed_size_list(lists.type):
            lengths = lists.value_lengths().to_numpy()  # [b]
            if np.any(lengths != dim):
                row = int(np.flatnonzero(lengths != dim)[0])
                raise ValueError(
                    f"{self._what}: wanted lists of equal length, row 0 has {dim} values, "
                    f"row {start + row} has {lengths[row]}"
                )
        values = lists.flatten()
        _refuse_nulls(values, f"{self._what}: row {{}} has a null value", start, dim)
        matrix: np.ndarray = values.to_numpy(zero_copy_only=False).reshape(len(lists), dim)
        return matrix

    def _list_size(self, kind: Any) -> int:
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        try:
            first = next(self._file.iter_batches(1, columns=[self._column])).column(0)
        except (pa.ArrowException, OSError, StopIteration) as error:
            raise ValueError(f"{self._what} is damaged near row 0: {error}") from None
        if first.null_count:
            raise ValueError(f"{self._what}: row 0 is null")
        return int(first.value_lengths()[0].as_py())


def open_parquet(path: str | os.PathLike[str], what: str, **options: Any) -> pq.ParquetFile:
    """A Parquet file, for reading; ValueError that begins with ``what`` if it is damaged or foreign."""
    try:
        file = pq.ParquetFile(path, **options)
        str(file.schema_arrow)  # its names are decoded when they are asked for
        return file
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:  # an OSError without a number for the footer
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{what} is truncated or not a Parquet file: {error}") from None


def _refuse_nulls(values: Any, message: str, start: int, per_row: int) -> None:
    if values.null_count:
        first = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise ValueError(message.format(start + first // per_row))


def _is_list(kind: Any) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def refuse_repeated(column: str, names: Sequence[str], what: str) -> None:
    """Raise ValueError if more than one column has the name of the chosen one: it would be chosen by chance."""
    count = list(names).count(column)
    if count > 1:
        raise ValueError(f"{what}: wanted one column {column!r}, it has {count} of that name")


def _choose_column(schema: Any, column: str | None, what: str) -> str:
    found = "it has " + listed([f"{field.name} ({field.type})" for field in schema])
    if column is not None:
        if column not in schema.names:
            raise ValueError(f"{what} has no column {column!r}; {found}")
        refuse_repeated(column, schema.names, what)
        if not _is_list(schema.field(column).type):
            raise TypeError(f"{what}, column {column!r}: wanted lists of floats; {found}")
        return column
    lists = [field.name for field in schema if _is_list(field.type)]
    if len(lists) == 1 or "features" in lists:
        name = str(lists[0] if len(lists) == 1 else "features")
        refuse_repeated(name, schema.names, what)
        return name
    if lists:
        raise ValueError(f"{what}: name the column to use with column=; {found}")
    raise ValueError(f"{what}: wanted a column of lists, each list one row of features; {found}")


def _float_dtype(kind: Any, what: str) -> np.dtype[Any]:
    value = kind.value_type
    if not pa.types.is_floating(value):
        raise TypeError(f"{what}: wanted lists of float16, float32 or float64, got {kind}")
    dtype: np.dtype[Any] = np.dtype(value.to_pandas_dtype())
    return dtype
