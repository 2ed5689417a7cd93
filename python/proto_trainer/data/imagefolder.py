"""One's own images: ROOT/train/<class>/* and ROOT/test/<class>/* (or ROOT/val)."""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.datasets import ImageFolder

from ..errors import ConfigError
from .base import Splits
from .files import FileImages


def load_imagefolder(root: Path | None, *, image_size: int) -> Splits:
    """Training and test images under `root`, RGB, `image_size` pixels a side.

    Raises
    ------
    ConfigError
        `root` or one of its subfolders is missing or empty, or the test set has other classes.
    """
    if root is None:
        raise ConfigError("root must be given for imagefolder: a folder with train/ and test/ (or val/) in it")
    test_folder = root / "test" if (root / "test").is_dir() else root / "val"
    for folder in (root / "train", test_folder):
        if not folder.is_dir():
            raise ConfigError(f"root must hold train/ and test/ (or val/); {folder} is not a folder")
    train = _images_of(root / "train", image_size=image_size, augment=True)
    test = _images_of(test_folder, image_size=image_size, augment=False)
    if test.class_names != train.class_names:
        differing = sorted(set(train.class_names) ^ set(test.class_names))
        raise ConfigError(f"{test_folder} must have the classes of {root / 'train'}; they differ in {differing}")
    return Splits(train.decodable(f"{root / 'train'}"), test.decodable(f"{test_folder}"))


def _images_of(folder: Path, *, image_size: int, augment: bool) -> FileImages:
    """All images of a folder with a subfolder for each class, whether they can be decoded or not."""
    try:
        files = ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise ConfigError(f"root: {error}") from None
    paths = [path for path, _ in files.samples]
    return FileImages(paths, torch.tensor(files.targets), files.classes, image_size=image_size, augment=augment)
