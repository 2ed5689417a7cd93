"""CIFAR-10N and CIFAR-100N (Wei et al. 2022): CIFAR with labels by human annotators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ConfigError
from .base import Splits
from .cifar_images import CifarFiles, CifarPart, read_batches, read_parquet
from .cifar_names import CIFAR10_NAMES, CIFAR100_NAMES
from .human_labels import find_label_set
from .lists import compare_counts
from .tensor import TensorImages, tensor_splits

WHOLE = {"training images": 50_000, "test images": 10_000}
_PADDING = 4  # pixels that training images are shifted at most, the custom for CIFAR


@dataclass(frozen=True)
class _Family:
    files: CifarFiles
    class_names: tuple[str, ...]
    label_files: str
    label_sets: dict[str, str]  # short name: column; the first is the default


_FAMILIES = {
    "cifar10n": _Family(
        CifarFiles(
            "cifar-10-batches-py", tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",), "labels"
        ),
        CIFAR10_NAMES,
        "CIFAR-10_human",
        {
            "aggre": "aggre_label", "random1": "random_label1", "random2": "random_label2",
            "random3": "random_label3", "worse": "worse_label", "clean": "clean_label",
        },
    ),
    "cifar100n": _Family(
        CifarFiles("cifar-100-python", ("train",), ("test",), "fine_labels"),
        CIFAR100_NAMES,
        "CIFAR-100_human",
        {"noisy": "noisy_label", "clean": "clean_label"},
    ),
}  # fmt: skip

# "cifar10n" (its first label set), "cifar10n:aggre", ...
CIFAR_DATASETS = tuple(
    name for family, facts in _FAMILIES.items() for name in (family, *(f"{family}:{s}" for s in facts.label_sets))
)


def load_cifar_n(name: str, root: Path | None) -> Splits:
    """50,000 training images with human labels as given and the true ones as truth; 10,000 test images.

    Parameters
    ----------
    name : str
        ``cifar10n`` or ``cifar100n``, and the label set after a colon: ``cifar10n:worse``. Besides the short
        names of the published sets, the name of any integer column is taken.
    root : Path or None
        A folder with CIFAR in torchvision's layout and a file of labels (see `find_label_set`), or one with
        ``*train*.parquet`` and ``*test*.parquet``, whose columns are ``image`` (encoded images),
        ``clean_label`` and, for training, the label sets.

    Raises
    ------
    ConfigError
        A file is missing or damaged; labels are missing, outside the classes, or belong to images in another
        order.
    """
    family_name, _, label_set = name.partition(":")
    family = _FAMILIES[family_name]
    if root is None:
        raise ConfigError(
            f"root must be given for {family_name}: a folder with {family.files.folder}/ or Parquet files"
        )
    column = family.label_sets.get(label_set or next(iter(family.label_sets)), label_set)
    train, test = _read_images(root, family, family_name)
    truth = _clean(train, "training", family)
    given = train.columns.get(column)
    if given is None:
        given = _beside(root, family, column, train)
    _need_classes(given, column, family)
    counts = dict(zip(WHOLE, (len(part.images) + len(part.skipped) for part in (train, test)), strict=True))
    compare_counts(family_name, counts, WHOLE)
    splits = tensor_splits(
        (train.images, torch.from_numpy(given)),
        (test.images, torch.from_numpy(_clean(test, "test", family))),
        family.class_names,
    )
    assert isinstance(splits.train, TensorImages)
    splits.train.truth = torch.from_numpy(truth)
    splits.train.augment = shift_and_mirror
    for dataset, part in ((splits.train, train), (splits.test, test)):
        dataset.paths, dataset.skipped = part.paths, part.skipped
    return splits


def _read_images(root: Path, family: _Family, name: str) -> tuple[CifarPart, CifarPart]:
    folder = root if root.name == family.files.folder else root / family.files.folder
    if folder.is_dir():
        files = family.files
        return (
            read_batches(folder, files.train, files.labels_key),
            read_batches(folder, files.test, files.labels_key),
        )
    found = [sorted(root.glob(f"*{part}*.parquet")) for part in ("train", "test")]
    if not all(len(paths) == 1 for paths in found):
        names = [path.name for paths in found for path in paths]
        raise ConfigError(
            f"root must hold CIFAR for {name}: {family.files.folder}/, or one *train*.parquet and one "
            f"*test*.parquet; {root} has {', '.join(names) or 'neither'}"
        )
    return read_parquet(found[0][0]), read_parquet(found[1][0])


def _clean(part: CifarPart, which: str, family: _Family) -> np.ndarray:
    """The true labels, int64 [N]."""
    if "clean_label" not in part.columns:
        raise ConfigError(f"the {which} images must have a column clean_label, they have {', '.join(part.columns)}")
    return _need_classes(part.columns["clean_label"], "clean_label", family)


def _beside(root: Path, family: _Family, column: str, train: CifarPart) -> np.ndarray:
    """A label set from a file of its own; its true labels, where it has them, tell whether its order is ours."""
    if train.paths is not None:
        raise ConfigError(f"the training images have no labels {column}, only {', '.join(train.columns)}")
    columns = find_label_set(root, family.label_files, column)
    truth = train.columns["clean_label"]
    if len(columns[column]) != len(truth):
        raise ConfigError(f"{len(columns[column])} labels {column} for {len(truth)} training images")
    differing = int((columns.get("clean_label", truth) != truth).sum())
    if differing:
        raise ConfigError(
            f"labels {column} are not in the order of the images: beside them, clean_label differs from CIFAR's "
            f"own labels for {differing} of {len(truth)} images"
        )
    return columns[column]


def _need_classes(labels: np.ndarray, column: str, family: _Family) -> np.ndarray:
    num_classes = len(family.class_names)
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise ConfigError(f"labels {column} must be 0..{num_classes - 1}, found {outside[0]}")
    return labels


def shift_and_mirror(images: Tensor, draws: Tensor) -> Tensor:
    """Each image moved by up to four pixels, what comes in being zero, and mirrored or not.

    Parameters
    ----------
    images : Tensor, float [B, K, H, W] or [K, H, W]
    draws : Tensor, float [B, 3] or [3]
        Numbers in [0, 1): how far down and how far right it is cut out of its padding, mirrored if below one half.
    """
    if images.ndim == 3:
        return shift_and_mirror(images.unsqueeze(0), draws.unsqueeze(0)).squeeze(0)
    count, _, height, width = images.shape
    padded = functional.pad(images, (_PADDING,) * 4).permute(0, 2, 3, 1)  # [B, H + 8, W + 8, K]
    top, left = (draws[:, :2].double() * (2 * _PADDING + 1)).long().T.unsqueeze(2)  # each [B, 1]
    rows = top + torch.arange(height)  # [B, H]
    columns = left + torch.arange(width)  # [B, W]
    columns = torch.where(draws[:, 2:] < 0.5, columns.flip(1), columns)
    moved = padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]  # [B, H, W, K]
    return moved.permute(0, 3, 1, 2).contiguous()
