"""A feature bank that grows batch by batch: in memory, or in a file where the memory would not do."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

import proto_engine as pe


class BankWriter:
    """Takes N rows in their order and makes a `proto_engine.FeatureBank` of them.

    The file has no name: nobody else finds it half-written, and a killed run leaves nothing behind. Its room is
    taken before the first row, because a full disk met by a memory map ends the process without an error.

    Parameters
    ----------
    num_samples : int
        N.
    memory_limit : int
        Bytes; a larger bank goes into a file.
    folder : path or None
        Where; None takes the system's folder for temporary files.
    """

    def __init__(self, num_samples: int, memory_limit: int, folder: str | Path | None) -> None:
        self.num_samples = num_samples
        self.memory_limit = memory_limit
        self.folder = Path(tempfile.gettempdir() if folder is None else folder)
        self._written = 0
        self._array: np.ndarray | None = None  # [N, D]
        self._file: IO[bytes] | None = None
        self._shape = (0, 0)
        self._dtype = np.dtype(np.float16)

    def __enter__(self) -> BankWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()  # a map of it lives on

    def append(self, rows: np.ndarray) -> None:
        """The next rows, [B, D], of the dtype that the bank is to have.

        Raises
        ------
        OSError
            With the first rows, when the file does not fit into the folder.
        """
        if self._written == 0:
            self._allocate(rows)
        if self._file is not None:
            self._file.write(np.ascontiguousarray(rows).data)
        elif self._array is not None:
            self._array[self._written : self._written + len(rows)] = rows
        self._written += len(rows)

    def _allocate(self, rows: np.ndarray) -> None:
        self._shape, self._dtype = (self.num_samples, rows.shape[1]), rows.dtype
        needed = self.num_samples * rows.shape[1] * rows.itemsize
        if needed <= self.memory_limit:
            self._array = np.empty(self._shape, self._dtype)
            return
        try:
            self._file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 -- open until __exit__
            os.posix_fallocate(self._file.fileno(), 0, needed)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            room = f"the feature bank needs {needed / 1e9:.1f} GB in {self.folder}"
            raise OSError(error.errno, f"{os.strerror(error.errno)}: {room}") from None

    def bank(self) -> pe.FeatureBank:
        """The bank, once all rows are there; over a file it is a read-only map, whose pages need no memory."""
        if self._written != self.num_samples or self._written == 0:
            raise ValueError(f"dataset must have the {self.num_samples} items of its length, got {self._written}")
        if self._file is None:
            return pe.FeatureBank(self._array)
        self._file.flush()
        return pe.FeatureBank(np.memmap(self._file, dtype=self._dtype, mode="r", shape=self._shape))
