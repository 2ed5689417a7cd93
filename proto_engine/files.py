"""Writing files so that a reader sees the old file or the whole new one, never a part of it."""

from __future__ import annotations

import csv
import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
StrPath = str | os.PathLike[str]


@contextmanager
def atomic_write(path: StrPath, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` that takes its place when the block ends without an error.

    The data reach the disk (fsync) before the name changes, so a crash, a full disk or Ctrl-C leaves
    ``path`` as it was. A symbolic link is followed: the file it points to is replaced, not the link.
    A new file gets the permissions of a plain ``open``; a replaced one keeps its own.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write.
    mode : {"wb", "w"}
        Bytes, or UTF-8 text with line ends written as given.

    Yields
    ------
    file object
        Open for writing. The block must not close it.

    Raises
    ------
    OSError
        What `check_writable` raises, and any failure to write. Nothing is left behind.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode: wanted 'wb' or 'w', got {mode!r}")
    target = check_writable(path, "path")
    temporary = target.with_name(f".{target.name[:40]}.{secrets.token_hex(8)}.tmp")
    text: dict[str, Any] = {} if mode == "wb" else {"encoding": "utf-8", "newline": ""}
    try:
        with open(temporary, mode.replace("w", "x"), **text) as file:
            if os.name == "posix" and target.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            error.filename = os.fspath(path)
        raise
    _sync_folder(target.parent)


def check_writable(path: StrPath, name: str) -> Path:
    """Raise now if ``path`` could not be written later; meant to run before long work.

    Parameters
    ----------
    path : str or os.PathLike
        A file that exists or not.
    name : str
        What the caller calls this argument, for the message.

    Returns
    -------
    pathlib.Path
        The file that will be written: ``path`` with symbolic links resolved.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError, OSError
        The folder is missing, is no folder or cannot be written to; the path is a folder, a device or a
        read-only file, or its name is not one that the file system takes.
    """
    target = Path(os.path.realpath(path))
    folder = target.parent
    if not folder.exists():
        raise FileNotFoundError(f"{name}: the folder {str(folder)!r} of {os.fspath(path)!r} does not exist")
    if not folder.is_dir():
        raise NotADirectoryError(f"{name}: {str(folder)!r} in {os.fspath(path)!r} is not a folder")
    try:
        kind = target.stat().st_mode
    except FileNotFoundError:
        kind = None
    except OSError as error:
        raise OSError(f"{name}: cannot write {os.fspath(path)!r}: {error.strerror}") from error
    if kind is not None and stat.S_ISDIR(kind):
        raise IsADirectoryError(f"{name}: wanted a file to write, {os.fspath(path)!r} is a folder")
    if kind is not None and not stat.S_ISREG(kind):
        raise OSError(f"{name}: wanted a plain file to write, {os.fspath(path)!r} is a device or a pipe")
    if kind is not None and not os.access(target, os.W_OK):
        raise PermissionError(f"{name}: no permission to replace {os.fspath(path)!r}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{name}: no permission to write in the folder {str(folder)!r}")
    return target


def plain_file(path: StrPath, name: str) -> Path:
    """The path of a file to read: FileNotFoundError, IsADirectoryError, or ValueError for a device or a pipe."""
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{name}: {str(file)!r} does not exist")
    if file.is_dir():
        raise IsADirectoryError(f"{name}: wanted a file, {str(file)!r} is a folder")
    if not file.is_file():
        raise ValueError(f"{name}: wanted a plain file, {str(file)!r} is a device or a pipe")
    return file


def csv_quoting(texts: Iterable[str]) -> int:
    """How a CSV table with these texts is quoted: where one has a carriage return, which Python's writer takes for
    ordinary and readers for the end of a line, all of them."""
    return csv.QUOTE_NONNUMERIC if any("\r" in text for text in texts) else csv.QUOTE_MINIMAL


def check_ending(path: StrPath, endings: Sequence[str], name: str) -> str:
    """The ending of ``path`` in lower case, if it is one of ``endings``; ValueError otherwise."""
    ending = os.path.splitext(os.fspath(path))[1].lower()
    if ending not in endings:
        raise ValueError(f"{name}: wanted a file ending in {' or '.join(endings)}, got {os.fspath(path)!r}")
    return ending


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable where the system can: the new file is in place already."""
    if os.name != "posix":
        return
    with suppress(OSError):  # some network file systems cannot sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
