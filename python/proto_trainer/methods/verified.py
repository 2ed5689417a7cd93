"""Verified labels: for some images somebody has looked whether the given label is right."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..config import VERIFIED_METHODS, TrainConfig
from ..data import LabeledImages, Splits
from ..errors import ConfigError


@dataclass(frozen=True)
class VerifiedLabels:
    """Images with a label that is known to be right or wrong: rows of the training set, or a set of their own.

    Attributes
    ----------
    right : Tensor, bool [V]
    rows : Tensor, int64 [V], or None
        Positions in the training set; the labels looked at are its given ones.
    images : LabeledImages or None
        V images with the labels looked at as given ones, when `rows` is None.
    """

    right: Tensor
    rows: Tensor | None = None
    images: LabeledImages | None = None


def find_verified(config: TrainConfig, splits: Splits, train_set: LabeledImages) -> VerifiedLabels | None:
    """The verified labels that the method of a run needs: from `config.verified`, else from the data set.

    Returns
    -------
    VerifiedLabels or None
        None for a method that does not use any.

    Raises
    ------
    ConfigError
        There are none, or not both right and wrong ones; from `read_verified`.
    """
    if config.method not in VERIFIED_METHODS:
        return None
    if config.verified is not None:
        labels = read_verified(config.verified, train_set)
    elif splits.verified is not None:
        labels = VerifiedLabels(splits.verified.right, images=splits.verified.images)
    else:
        raise ConfigError(
            f"verified must be given with method {config.method}: it learns from labels that somebody has looked at, "
            f"and {config.data} comes without"
        )
    right, total = int(labels.right.sum()), len(labels.right)
    if right in (0, total):
        raise ConfigError(f"verified must have right and wrong labels, got {right} right ones of {total}")
    return labels


def read_verified(path: Path, dataset: LabeledImages) -> VerifiedLabels:
    """Read a CSV file with a header and the columns ``index,correct`` or ``path,correct``; others are ignored.

    Parameters
    ----------
    path : Path
        ``correct`` is 1 where the given label is right and 0 where it is wrong.
    dataset : LabeledImages
        The training set: ``index`` is a position in it, ``path`` one of its `paths`.

    Raises
    ------
    ConfigError
        The file cannot be read, or names an unknown image, one image twice, or another verdict than 0 and 1.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns, lines = set(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"verified must be a CSV file, got {str(path)!r}: {error}") from None
    by_path = "index" not in columns
    if "correct" not in columns or (by_path and "path" not in columns):
        raise ConfigError(f"verified must have the columns index,correct or path,correct; {path} has {sorted(columns)}")
    if by_path and dataset.paths is None:
        raise ConfigError(
            f"verified must have a column index: this data set has no paths; {path} has {sorted(columns)}"
        )
    names = (dataset.paths or ()) if by_path else range(len(dataset))
    position = {str(name): row for row, name in enumerate(names)}
    verdicts: dict[int, bool] = {}
    for number, line in enumerate(lines, start=2):
        name, verdict = line["path" if by_path else "index"], line["correct"]
        if name not in position:
            raise ConfigError(f"verified: line {number} of {path} names an unknown image, {name!r}")
        if verdict not in ("0", "1"):
            raise ConfigError(f"verified: correct must be 0 or 1, got {verdict!r} in line {number} of {path}")
        if position[name] in verdicts:
            raise ConfigError(f"verified: line {number} of {path} names image {name!r} again")
        verdicts[position[name]] = verdict == "1"
    return VerifiedLabels(
        torch.tensor(list(verdicts.values()), dtype=torch.bool), torch.tensor(list(verdicts), dtype=torch.int64)
    )
