"""CSV files that say something about single training images, by index or by path."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from ..data import LabeledImages
from ..errors import ConfigError


@dataclass(frozen=True)
class ImageLine:
    """A line of a file: where it stands, which image it is about, and what its columns say."""

    where: str
    row: int
    columns: dict[str, str | None]


def read_image_lines(
    path: Path, dataset: LabeledImages, *, argument: str, column: str, other: str = ""
) -> list[ImageLine]:
    """Read a CSV file with a header and the columns ``index`` or ``path``, and `column` (or, instead, `other`).

    Parameters
    ----------
    path : Path
    dataset : LabeledImages
        The training set: ``index`` is a position in it, ``path`` one of its `paths`. Lines about an image
        that was left out of it because it cannot be decoded are left out, too.
    argument : str
        What messages call the file.
    column, other : str

    Raises
    ------
    ConfigError
        The file cannot be read, lacks a column, or names an unknown image or one image twice.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, lines = set(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{argument} must be a CSV file, got {str(path)!r}: {error}") from None
    by_path = "index" not in columns
    if not columns & {column, other} or (by_path and "path" not in columns):
        raise ConfigError(
            f"{argument} must have the columns index,{column} or path,{column}; {path} has {sorted(columns)}"
        )
    if by_path and dataset.paths is None:
        raise ConfigError(
            f"{argument} must have a column index: this data set has no paths; {path} has {sorted(columns)}"
        )
    names = (dataset.paths or ()) if by_path else range(len(dataset))
    position = {str(name): row for row, name in enumerate(names)}
    skipped = {name for name, _ in dataset.skipped} if by_path else set()
    seen: dict[int, ImageLine] = {}
    for number, line in enumerate(lines, start=2):
        name = line["path" if by_path else "index"]
        if name in skipped:
            continue
        if name not in position:
            raise ConfigError(f"{argument}: line {number} of {path} names an unknown image, {name!r}")
        row = position[name]
        if row in seen:
            raise ConfigError(f"{argument}: line {number} of {path} names image {name!r} again")
        seen[row] = ImageLine(f"line {number} of {path}", row, line)
    return list(seen.values())


def class_number(text: str | None, dataset: LabeledImages, *, argument: str, where: str) -> int:
    """The class that `text` means: its name, or its number where no class has that name.

    Raises
    ------
    ConfigError
        Neither.
    """
    name = (text or "").strip()
    if name in dataset.class_names:
        return dataset.class_names.index(name)
    if name.isdecimal() and int(name) < dataset.num_classes:
        return int(name)
    raise ConfigError(
        f"{argument}: label must be the name of a class or 0..{dataset.num_classes - 1}, got {text!r} in {where}"
    )
