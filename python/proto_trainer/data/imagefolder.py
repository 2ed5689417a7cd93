"""One's own images: ROOT/train/<class>/* and ROOT/test/<class>/* (or ROOT/val)."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader
from torchvision.transforms import v2

from ..errors import ConfigError
from .base import LabeledImages, Splits

# The channel statistics of ImageNet, the custom for natural images.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NOISE_SIDE = 32  # pixels a side of the shrunk images that instance-dependent noise is made from


class FolderImages(LabeledImages):
    """Images decoded from files as they are asked for.

    Training images are resized to a short edge of 8/7 of `image_size` (256 for 224), cropped at a random
    place and mirrored at random; plain images are cropped in the center.

    Parameters
    ----------
    folder : Path
        One subfolder a class.
    image_size : int
        Side of the square that the network sees.
    augment : bool
    """

    def __init__(self, folder: Path, *, image_size: int, augment: bool) -> None:
        try:
            files = ImageFolder(str(folder))
        except FileNotFoundError as error:
            raise ConfigError(f"root: {error}") from None
        self.paths = [path for path, _ in files.samples]
        self.given = torch.tensor(files.targets, dtype=torch.int64)
        self.truth = None
        self.class_names = tuple(files.classes)
        self.image_shape = (3, image_size, image_size)
        self.augment = augment
        to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        resize = v2.Resize(image_size * 8 // 7)
        self._random_view = v2.Compose([resize, v2.RandomCrop(image_size), v2.RandomHorizontalFlip(), *to_tensor])
        self._center_view = v2.Compose([resize, v2.CenterCrop(image_size), *to_tensor])

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, int]:
        image = default_loader(self.paths[i])  # RGB, also when the file is grey
        view = self._random_view if self.augment else self._center_view
        return view(image), self.given[i], i

    def plain(self) -> FolderImages:
        """See `LabeledImages.plain`."""
        other = copy.copy(self)
        other.augment = False
        return other

    def pixels(self) -> np.ndarray:
        """See `LabeledImages.pixels`."""
        rows = np.empty((len(self), NOISE_SIDE * NOISE_SIDE * 3), dtype=np.uint8)
        for i, path in enumerate(self.paths):
            rows[i] = np.asarray(default_loader(path).resize((NOISE_SIDE, NOISE_SIDE))).reshape(-1)
        return rows


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
    train = FolderImages(root / "train", image_size=image_size, augment=True)
    test = FolderImages(test_folder, image_size=image_size, augment=False)
    if test.class_names != train.class_names:
        differing = sorted(set(train.class_names) ^ set(test.class_names))
        raise ConfigError(f"{test_folder} must have the classes of {root / 'train'}; they differ in {differing}")
    return Splits(train, test)
