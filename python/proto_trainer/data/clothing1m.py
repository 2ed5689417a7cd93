"""Clothing1M (Xiao et al. 2015): a million images from shops with noisy labels, 14 classes, and clean splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..errors import ConfigError
from .base import Splits, Verified
from .files import FileImages
from .lists import compare_counts, labels_of, need_files, read_keys, read_labels, read_lines

_NOISY, _NOISY_LABELS, _CLEAN_LABELS = "noisy_train_key_list.txt", "noisy_label_kv.txt", "clean_label_kv.txt"
_CLEAN_KEYS = {split: f"clean_{split}_key_list.txt" for split in ("train", "val", "test")}
_NAMES = "category_names_eng.txt"
_FILES = (_NOISY, _NOISY_LABELS, _CLEAN_LABELS, *_CLEAN_KEYS.values(), _NAMES)

WHOLE = {
    "classes": 14, "noisy training images": 1_000_000, "noisy labels": 1_037_497,
    "clean training images": 47_570, "clean validation images": 14_313, "clean test images": 10_526,
    "clean training images with a noisy label": 24_637,
}  # fmt: skip


def load_clothing1m(root: Path | None, *, image_size: int) -> Splits:
    """Training on the noisy list, testing on the clean test split.

    Parameters
    ----------
    root : Path or None
        The folder with ``images/`` and the lists; the lists may lie in ``annotations/``.
    image_size : int

    Returns
    -------
    Splits
        `train`: the images of ``noisy_train_key_list.txt`` with their noisy labels. ``noisy_label_kv.txt`` has
        labels of more images, which belong to the clean splits and are not trained on. `clean` and
        `validation`: the other clean splits. `verified`: the images of `clean` that also have a noisy label,
        right when both labels agree. Splits other than `train` and `test` are None when none of their images
        is there.

    Raises
    ------
    ConfigError
        A list is missing or contradicts another, or no training or test image can be read.
    """
    if root is None:
        raise ConfigError("root must be given for clothing1m: the folder with images/ and the key lists in it")
    lists = root / "annotations" if (root / "annotations").is_dir() else root
    need_files(lists, _FILES, what="Clothing1M")
    names = read_lines(lists / _NAMES)
    noisy = read_labels(lists / _NOISY_LABELS, len(names))
    clean = read_labels(lists / _CLEAN_LABELS, len(names))
    train_keys = read_keys(lists / _NOISY)
    clean_keys = {split: read_keys(lists / file) for split, file in _CLEAN_KEYS.items()}
    _need_disjoint({_NOISY: train_keys, **{_CLEAN_KEYS[split]: keys for split, keys in clean_keys.items()}})
    with_both = [key for key in clean_keys["train"] if key in noisy]
    found = (len(names), len(train_keys), len(noisy), *(len(keys) for keys in clean_keys.values()), len(with_both))
    compare_counts("clothing1m", dict(zip(WHOLE, found, strict=True)), WHOLE)

    def images(keys: Sequence[str], labels: Mapping[str, int], source: str, augment: bool) -> FileImages:
        given = torch.tensor(labels_of(keys, labels, source=lists / source), dtype=torch.int64)
        paths = [f"{root}/{key}" for key in keys]
        return FileImages(paths, given, names, image_size=image_size, augment=augment)

    test = images(clean_keys["test"], clean, _CLEAN_LABELS, False).decodable(_CLEAN_KEYS["test"])
    train = images(train_keys, noisy, _NOISY_LABELS, True).decodable(_NOISY)
    extra = images(clean_keys["train"], clean, _CLEAN_LABELS, True).decodable_or_none(_CLEAN_KEYS["train"])
    validation = images(clean_keys["val"], clean, _CLEAN_LABELS, False).decodable_or_none(_CLEAN_KEYS["val"])
    noisy_of = {f"{root}/{key}": noisy[key] for key in with_both}
    return Splits(train, test, validation, extra, None if extra is None else _verified(extra, noisy_of))


def _verified(clean: FileImages, noisy_of: Mapping[str, int]) -> Verified:
    """The clean images that have a noisy label, which becomes the given one."""
    rows = [i for i, path in enumerate(clean.paths) if path in noisy_of]
    images = clean.subset(torch.tensor(rows, dtype=torch.int64))
    images.truth = images.given
    images.given = torch.tensor([noisy_of[path] for path in images.paths], dtype=torch.int64)
    return Verified(images, images.given == images.truth, torch.full((len(rows),), -1))


def _need_disjoint(lists: Mapping[str, Sequence[str]]) -> None:
    """No image may be in two splits, or the test would be on images that were trained on."""
    owner: dict[str, str] = {}
    for name, keys in lists.items():
        for key in keys:
            if key in owner:
                raise ConfigError(f"{key} is in both {owner[key]} and {name}")
            owner[key] = name
