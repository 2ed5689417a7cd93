"""The text files that data sets come with, and whether a copy is whole."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import ConfigError

logger = logging.getLogger(__name__)

HEADER = "class_name"  # the lists of Food-101N begin with a line that starts so


def need_files(folder: Path, names: Iterable[str], *, what: str) -> None:
    """Raise a `ConfigError` that lists every file that `folder` lacks."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ConfigError(f"root must hold the files of {what}; missing under {folder}: {', '.join(missing)}")


def read_lines(path: Path) -> list[str]:
    """The lines of a file that are not empty; the last one may lack its end."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text file: {error}") from None
    return [line.strip() for line in text.split("\n") if line.strip()]


def read_table(path: Path) -> list[str]:
    """`read_lines` without the header."""
    lines = read_lines(path)
    return lines[1:] if lines and lines[0].startswith(HEADER) else lines


def read_keys(path: Path) -> list[str]:
    """The keys of a list in their order; a key that is listed again counts once."""
    return list(dict.fromkeys(read_lines(path)))


def read_labels(path: Path, num_classes: int) -> dict[str, int]:
    """Lines ``key label``: what comes after the last space is the label, keys may hold anything else.

    Raises
    ------
    ConfigError
        A line without a label, a label outside 0..C-1, or a key with two different labels.
    """
    labels: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        key, _, text = line.rpartition(" ")
        if not key or not text.isdecimal() or int(text) >= num_classes:
            raise ConfigError(f"{path}, line {number}: wanted 'path label' with a label 0..{num_classes - 1}: {line!r}")
        label = int(text)
        if labels.setdefault(key, label) != label:
            raise ConfigError(f"{path}, line {number}: {key} has the label {label}, and {labels[key]} above")
    return labels


def labels_of(keys: Sequence[str], labels: Mapping[str, int], *, source: Path) -> list[int]:
    """The label of each key, which all must have one."""
    missing = [key for key in keys if key not in labels]
    if missing:
        raise ConfigError(f"{source} has no label for {len(missing)} of {len(keys)} listed images: {missing[0]}, ...")
    return [labels[key] for key in keys]


def compare_counts(name: str, found: Mapping[str, int], whole: Mapping[str, int]) -> bool:
    """Whether a copy has as many of everything as the whole data set; if not, a warning lists what differs.

    A part of a data set is a useful thing to have, so it is no error.
    """
    differing = [
        f"{what}: {found[what]:,} instead of {count:,}" for what, count in whole.items() if found[what] != count
    ]
    if differing:
        logger.warning("%s: this copy is not the whole data set (%s)", name, "; ".join(differing))
    return not differing
