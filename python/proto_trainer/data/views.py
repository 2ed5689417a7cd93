"""Images that are decoded as they are asked for: the square that the network sees of each, and where it is cut out."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from .base import LabeledImages

# The channel statistics of ImageNet, the custom for natural images and what pretrained weights expect.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NOISE_SIDE = 32  # pixels a side of the shrunk images that instance-dependent noise is made from

Squares = TypeVar("Squares", bound="SquareImages")


def cut_square(image: Tensor, size: int, draws: Tensor | None) -> Tensor:
    """A square of `size` pixels of an image that is first resized to a short edge of 8/7 of it (256 for 224).

    Parameters
    ----------
    image : Tensor, uint8 [3, H, W]
    size : int
    draws : Tensor, float [3], or None
        Numbers in [0, 1): how far down and how far right the square lies, and mirrored if below one half.
        None: the center, not mirrored.

    Returns
    -------
    Tensor, uint8 [3, size, size]
    """
    image = v2.resize(image, [short_edge(size)])
    if draws is None:
        return v2.center_crop(image, [size, size])
    down, right, mirror = draws.tolist()
    top, left = (int(draw * (side - size + 1)) for draw, side in zip((down, right), image.shape[1:], strict=True))
    square = v2.crop(image, top, left, size, size)
    return v2.horizontal_flip(square) if mirror < 0.5 else square


def short_edge(size: int) -> int:
    """The shorter side of the image that a square of `size` pixels is cut out of."""
    return size * 8 // 7


class SquareImages(LabeledImages):
    """What data sets of encoded images share; a subclass says how image i is decoded.

    Parameters
    ----------
    image_size : int
        Side of the square that the network sees, see `cut_square`.
    augment : bool
        At a random place instead of the center, and mirrored at random.
    """

    takes_lists = True

    def __init__(self, *, image_size: int, augment: bool) -> None:
        self.image_shape = (3, image_size, image_size)
        self.augment = augment

    def decoded(self, i: int, least: int) -> Tensor:
        """Image i in RGB, uint8 [3, H, W]; it may be smaller than the original if both sides have `least` pixels."""
        raise NotImplementedError

    def __getitem__(self, i: int | list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The item at a position, or the batch of a list of positions."""
        images, given, index = self.unfinished(i if isinstance(i, list) else [i])
        images = self.finish(images)
        return (images, given, index) if isinstance(i, list) else (images[0], given[0], index[0])

    def unfinished(self, rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """See `LabeledImages.unfinished`: images as bytes, a quarter of what floats would take."""
        index = torch.tensor(rows, dtype=torch.int64)
        draws = self.draws_of(index) if self.augment else [None] * len(rows)
        size = self.image_shape[1]
        images = torch.empty((len(rows), *self.image_shape), dtype=torch.uint8)
        for image, i, draw in zip(images, rows, draws, strict=True):
            image.copy_(cut_square(self.decoded(i, short_edge(size)), size, draw))
        return images, self.given[index], index

    def finish(self, images: Tensor) -> Tensor:
        """See `LabeledImages.finish`: float32, by the channel statistics of ImageNet."""
        mean, std = (255 * torch.tensor(values, device=images.device).reshape(3, 1, 1) for values in (MEAN, STD))
        return images.to(torch.float32).sub_(mean).div_(std)  # in place: half the time of v2.normalize

    def plain(self: Squares) -> Squares:
        """See `LabeledImages.plain`."""
        other = copy.copy(self)
        other.augment = False
        return other
