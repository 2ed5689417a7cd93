"""Images held in memory as one tensor."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .base import LabeledImages, Splits


class TensorImages(LabeledImages):
    """Images held in one uint8 tensor; a batch is cut out and normalized in one go, with no Python per image.

    Parameters
    ----------
    images : Tensor, uint8 [N, K, H, W]
    labels : Tensor, int64 [N]
        The given labels.
    class_names : sequence of str
    mean, std : float
        Of the pixels divided by 255, over the training images.
    augment : callable or None
        Maps images, float [..., K, H, W], and numbers that are random in [0, 1), float [..., 3], to changed
        images of the same shape.
    """

    takes_lists = True

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        class_names: Sequence[str],
        *,
        mean: float,
        std: float,
        augment: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.images = images
        self.given = labels.to(torch.int64)
        self.truth = None
        self.class_names = tuple(class_names)
        self.image_shape = (images.shape[1], images.shape[2], images.shape[3])
        self.mean = mean
        self.std = std
        self.augment = augment

    def __getitem__(self, i: int | list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The item at a position, or the batch of a list of positions."""
        index = torch.tensor(i, dtype=torch.int64)
        images = self.images[index].to(torch.float32).sub_(255 * self.mean).div_(255 * self.std)
        if self.augment is not None:
            images = self.augment(images, self.draws_of(index))
        return images, self.given[index], index

    def subset(self, rows: Tensor) -> TensorImages:
        """See `LabeledImages.subset`; `mean` and `std` stay those of all images."""
        other = super().subset(rows)
        other.images = self.images[rows]
        return other

    def plain(self) -> TensorImages:
        """See `LabeledImages.plain`."""
        other = copy.copy(self)
        other.augment = None
        return other

    def pixels(self) -> np.ndarray:
        """See `LabeledImages.pixels`."""
        return self.images.flatten(1).numpy()


def tensor_splits(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], class_names: Sequence[str]) -> Splits:
    """Both sets as `TensorImages`, normalized by the mean and deviation of the training pixels.

    Parameters
    ----------
    train, test : tuple (images, labels)
        uint8 [N, K, H, W] and int64 [N].
    class_names : sequence of str
    """
    mean, std = byte_statistics(train[0])
    return Splits(
        TensorImages(*train, class_names, mean=mean, std=std),
        TensorImages(*test, class_names, mean=mean, std=std),
    )


def byte_statistics(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of all bytes of a uint8 tensor, divided by 255.

    The 256 levels are counted: exact in any order, and no float copy of the images is made. Images that are
    all of one level get a deviation of one level, so that dividing by it is safe.
    """
    counts = torch.bincount(images.flatten(), minlength=256).to(torch.float64)  # [256]
    level = torch.arange(256, dtype=torch.float64) / 255
    mean = float((counts * level).sum() / counts.sum())
    variance = float((counts * (level - mean) ** 2).sum() / counts.sum())
    return mean, max(variance**0.5, 1 / 255)
