"""Verified labels: for some images somebody has looked whether the given label is right."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..config import VERIFIED_METHODS, TrainConfig
from ..data import LabeledImages, Splits, Verified
from ..errors import ConfigError
from .label_files import ImageLine, class_number, read_image_lines


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
    truth : Tensor, int64 [V], or None
        The right labels, -1 where it is only known that the given one is wrong. CleanNet does without.
    """

    right: Tensor
    rows: Tensor | None = None
    images: LabeledImages | None = None
    truth: Tensor | None = None

    def given_in(self, dataset: LabeledImages) -> Tensor:
        """The labels that were looked at, int64 [V]; `dataset` is the training set."""
        return dataset.given[self.rows] if self.images is None else self.images.given

    def known(self) -> Tensor:
        """The right labels as far as they are known, else -1, int64 [V]."""
        if self.truth is None:
            raise ValueError("verified must have the truth for a method that draws images by their right label")
        return self.truth

    def sha256(self, dataset: LabeledImages) -> str:
        """Of the content, wherever it came from; `dataset` is the training set."""
        rows = torch.full((len(self.right),), -1) if self.rows is None else self.rows
        facts = torch.stack([rows, self.right.long(), self.given_in(dataset), self.known()])
        return hashlib.sha256(facts.numpy().tobytes()).hexdigest()


def find_verified(config: TrainConfig, splits: Splits, train_set: LabeledImages) -> VerifiedLabels | None:
    """The verified labels of a run: from the file `config.verified`, or from the data set.

    Returns
    -------
    VerifiedLabels or None
        None for a run without: methods that do not need any use them where they are asked for.

    Raises
    ------
    ConfigError
        There are none, or for `VERIFIED_METHODS` not both right and wrong ones; from `read_verified`.
    """
    needed = config.method in VERIFIED_METHODS
    if config.verified is None and not needed:
        return None
    if isinstance(config.verified, Path):
        labels = read_verified(config.verified, train_set)
    elif splits.verified is None:
        why = f"with method {config.method}: it learns from labels that somebody has looked at, and"
        raise ConfigError(f"verified must be given {why if needed else 'as a file:'} {config.data} comes without")
    elif config.noise is not None:
        raise ConfigError(
            f"verified must be a file when noise is added: the verified labels of {config.data} are about its own "
            f"labels, got noise {config.noise}"
        )
    else:
        labels = from_data_set(splits.verified)
    right, total = int(labels.right.sum()), len(labels.right)
    if needed and right in (0, total):
        raise ConfigError(f"verified must have right and wrong labels, got {right} right ones of {total}")
    if total == 0:
        raise ConfigError(f"verified must name at least one image, {config.verified} names none")
    return labels


def from_data_set(verified: Verified) -> VerifiedLabels:
    """The verified labels that a data set comes with; as rows of its training set where all are in it."""
    given, truth = verified.images.given, verified.images.truth
    if truth is None:
        truth = torch.where(verified.right, given, -1)
    if len(verified.rows) and bool((verified.rows >= 0).all()):
        return VerifiedLabels(verified.right, rows=verified.rows, truth=truth)
    return VerifiedLabels(verified.right, images=verified.images, truth=truth)


def known_labels(verified: VerifiedLabels | None, clean: VerifiedLabels | None) -> list[VerifiedLabels]:
    """What verified and clean images tell about given labels, each image once; clean ones are believed first."""
    if verified is None or clean is None:
        return [labels for labels in (verified, clean) if labels is not None]
    if verified.images is not None and verified.images is clean.images:  # both are what the data set comes with
        return [clean]
    if verified.rows is None or clean.rows is None:
        return [verified, clean]
    new = ~torch.isin(verified.rows, clean.rows)
    rest = VerifiedLabels(verified.right[new], rows=verified.rows[new], truth=verified.known()[new])
    return [rest, clean]


def read_verified(path: Path, dataset: LabeledImages) -> VerifiedLabels:
    """Read a CSV file with the columns ``index,correct`` or ``path,correct``, and perhaps ``label``.

    Parameters
    ----------
    path : Path
        ``correct`` is 1 where the given label is right and 0 where it is wrong. ``label`` is the right label,
        by name or by number, or empty; with it ``correct`` may be empty or missing.
    dataset : LabeledImages
        The training set: ``index`` is a position in it, ``path`` one of its `paths`.

    Raises
    ------
    ConfigError
        From `read_image_lines`; another verdict than 0 and 1, a label outside the classes, or a label that
        contradicts the verdict.
    """
    lines = read_image_lines(path, dataset, argument="verified", column="correct", other="label")
    rows = torch.tensor([line.row for line in lines], dtype=torch.int64)
    truth = torch.tensor([_right_label(line, dataset) for line in lines], dtype=torch.int64)
    return VerifiedLabels(truth == dataset.given[rows], rows=rows, truth=truth)


def _right_label(line: ImageLine, dataset: LabeledImages) -> int:
    """What a line says about the right label; -1 where it only says that the given one is wrong."""
    given = int(dataset.given[line.row])
    known = None
    if line.columns.get("label"):
        known = class_number(line.columns["label"], dataset, argument="verified", where=line.where)
        if not line.columns.get("correct"):
            return known
    verdict = line.columns.get("correct")
    if verdict not in ("0", "1"):
        raise ConfigError(f"verified: correct must be 0 or 1, got {verdict!r} in {line.where}")
    if known is not None and (known == given) != (verdict == "1"):
        raise ConfigError(
            f"verified: {line.where} contradicts itself: correct is {verdict}, the given label is {given} and the "
            f"right one {known}"
        )
    return known if known is not None else given if verdict == "1" else -1
