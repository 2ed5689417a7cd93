"""Where the images of a data set are: a folder with a subfolder for each class, or a Parquet column."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .bank_formats import listed
from .bank_parquet import open_parquet, refuse_repeated

# The files that torchvision's ImageFolder takes, so that rows are numbered alike.
_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_USUAL = ("image", "img", "images", "bytes", "path", "file")


def list_image_folder(root: str | os.PathLike[str], name: str) -> tuple[list[str], np.ndarray, list[str]]:
    """The images of ``ROOT/<class>/**``, numbered as torchvision's ``ImageFolder`` numbers them.

    Parameters
    ----------
    root : str or os.PathLike
    name : str
        What the caller calls this argument, for messages.

    Returns
    -------
    paths : list of str, [N]
        Below ``root``, with forward slashes.
    labels : numpy.ndarray of int64, [N]
    classes : list of str, [C]
        The names of the subfolders, sorted.

    Raises
    ------
    NotADirectoryError
        ``root`` is no folder.
    ValueError
        No subfolders, or no image in any of them.
    """
    top = Path(root)
    if not top.is_dir():
        raise NotADirectoryError(f"{name}: wanted a folder with a subfolder for each class, got {str(top)!r}")
    classes = sorted(entry.name for entry in os.scandir(top) if entry.is_dir())
    paths, labels = [], []
    for label, folder in enumerate(classes):
        for where, _, files in sorted(os.walk(top / folder, followlinks=True)):
            for file in sorted(files):
                if file.lower().endswith(_ENDINGS) and not _is_pipe_or_device(os.path.join(where, file)):
                    paths.append(Path(where, file).relative_to(top).as_posix())
                    labels.append(label)
    if not paths:
        raise ValueError(f"{name}: found no image in the subfolders of {str(top)!r}")
    return paths, np.array(labels, dtype=np.int64), classes


def _is_pipe_or_device(path: str) -> bool:
    """Reading one might never end. A link that leads nowhere is an image that cannot be read, like a damaged one."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def folder_files(root: str | os.PathLike[str], name: str) -> list[str]:
    """The paths of the images of `list_image_folder`, in its order."""
    return [os.path.join(root, path) for path in list_image_folder(root, name)[0]]


class ParquetImages:
    """Encoded images in a Parquet column, decoded one row group at a time.

    The column holds bytes, strings (paths, from the folder of the file), or structures of ``bytes`` and ``path``
    as Hugging Face data sets write them.

    Attributes
    ----------
    paths : list of str or None, [N]
        What the data set calls each image, where it says so.

    Raises
    ------
    ValueError
        Not a Parquet file, or a damaged one; the column is missing, ambiguous, there twice or of another type.
    """

    def __init__(self, path: str | os.PathLike[str], column: str | None = None) -> None:
        what = f"images: {os.fspath(path)!r}"
        self._folder = Path(path).parent
        self._file = open_parquet(path, what)
        schema = self._file.schema_arrow
        self._column = _choose(schema, column, what)
        self._what = f"{what}, column {self._column!r}"
        kind: Any = schema.field(self._column).type
        self._struct = pa.types.is_struct(kind)
        self.paths: list[str] | None = None
        if _is_text(kind):
            self.paths = self._texts(self._column)
        elif self._struct and _has_field(kind, "path"):
            self.paths = self._texts(f"{self._column}.path")
        sizes = [self._file.metadata.row_group(g).num_rows for g in range(self._file.metadata.num_row_groups)]
        self._ends = np.cumsum(sizes)
        self._at = -1
        self._values: Any = None

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def __getitem__(self, row: int) -> bytes | str | None:
        group = int(np.searchsorted(self._ends, row, side="right"))
        if group != self._at:
            self._at, self._values = group, self._read(self._column, [group])
        inside = row - (int(self._ends[group - 1]) if group else 0)
        value = self._values[inside].as_py()
        if self._struct:
            value = None if value is None else (value.get("bytes") or value.get("path"))
        return os.path.join(self._folder, value) if isinstance(value, str) and value else value

    @property
    def files(self) -> list[str]:
        """The files that rows may be read from besides this one: where the column has paths."""
        return [os.path.join(self._folder, path) for path in self.paths or [] if path]

    def _texts(self, column: str) -> list[str]:
        values = self._read(column, list(range(self._file.metadata.num_row_groups))).combine_chunks()
        values = values.field("path") if self._struct else values
        return [text or "" for text in values.to_pylist()]

    def _read(self, column: str, groups: list[int]) -> Any:
        try:
            return self._file.read_row_groups(groups, columns=[column]).column(0)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{self._what} is damaged: {error}") from None


def _choose(schema: Any, column: str | None, what: str) -> str:
    usable = [field.name for field in schema if _holds_images(field.type)]
    if column is not None:
        if column not in schema.names:
            raise ValueError(f"{what} has no column {column!r}, it has {listed(schema.names)}")
        refuse_repeated(column, schema.names, what)
        if column not in usable:
            raise ValueError(f"{what}, column {column!r}: wanted bytes or paths, got {schema.field(column).type}")
        return column
    found = [name for name in _USUAL if name in usable][:1] or usable
    if len(found) != 1:
        raise ValueError(f"{what}: name the column of the images, it has {listed(schema.names)}")
    refuse_repeated(found[0], schema.names, what)
    return str(found[0])


def _holds_images(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return _has_field(kind, "bytes") or _has_field(kind, "path")
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or _is_text(kind)


def _is_text(kind: Any) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _has_field(kind: Any, name: str) -> bool:
    return kind.get_field_index(name) >= 0
