"""Images in files, decoded as they are asked for."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from ..errors import ConfigError
from .base import LabeledImages
from .decoding import decode_rgb, file_problems, report_skipped

logger = logging.getLogger(__name__)

# The channel statistics of ImageNet, the custom for natural images.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NOISE_SIDE = 32  # pixels a side of the shrunk images that instance-dependent noise is made from


class Views:
    """From a decoded image to what the network sees, float [3, S, S] with S = `image_size`.

    Both views resize the image to a short edge of 8/7 of `image_size` (256 for 224). The random one crops it
    at a random place and mirrors it at random; the plain one crops the center.
    """

    def __init__(self, image_size: int) -> None:
        to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        resize = v2.Resize(image_size * 8 // 7)
        self.random = v2.Compose([resize, v2.RandomCrop(image_size), v2.RandomHorizontalFlip(), *to_tensor])
        self.plain = v2.Compose([resize, v2.CenterCrop(image_size), *to_tensor])


class FileImages(LabeledImages):
    """Images decoded from files as they are asked for, in RGB.

    Parameters
    ----------
    paths : sequence of str
        N files.
    labels : Tensor, int64 [N]
        The given labels.
    class_names : sequence of str
    image_size : int
        Side of the square that the network sees; how it is cut out, see `Views`.
    augment : bool
        At a random place instead of the center.
    """

    def __init__(
        self, paths: Sequence[str], labels: Tensor, class_names: Sequence[str], *, image_size: int, augment: bool
    ) -> None:
        self.paths = list(paths)
        self.given = labels.to(torch.int64)
        self.truth = None
        self.class_names = tuple(class_names)
        self.image_shape = (3, image_size, image_size)
        self.augment = augment
        self._views = Views(image_size)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, int]:
        view = self._views.random if self.augment else self._views.plain
        return view(decode_rgb(self.paths[i])), self.given[i], i

    def plain(self) -> FileImages:
        """See `LabeledImages.plain`."""
        other = copy.copy(self)
        other.augment = False
        return other

    def decodable(self, name: str) -> FileImages:
        """The images that can be decoded; the others are counted in a warning and listed in `skipped`.

        Raises
        ------
        ConfigError
            None of them can.
        """
        problems = file_problems(self.paths, name=name)
        if len(problems) == len(self):
            first = f": {self.paths[0]} ({problems[0]})" if problems else ""
            raise ConfigError(f"{name}: none of the {len(self)} images that are listed can be read{first}")
        if not problems:
            return self
        other = self.subset(torch.tensor([i for i in range(len(self)) if i not in problems]))
        other.skipped = tuple((self.paths[i], reason) for i, reason in problems.items())
        report_skipped(name, other.skipped, len(self))
        before, left = (torch.bincount(part.given, minlength=self.num_classes) for part in (self, other))
        if vanished := [self.class_names[c] for c in ((before > 0) & (left == 0)).nonzero().flatten().tolist()]:
            logger.warning("%s: no image is left of the classes %s", name, ", ".join(vanished))
        return other

    def decodable_or_none(self, name: str) -> FileImages | None:
        """`decodable` for images that a run can do without: None, with a warning, when none can be decoded."""
        try:
            return self.decodable(name)
        except ConfigError as error:
            logger.warning("%s; going on without them", error)
            return None

    def pixels(self) -> np.ndarray:
        """See `LabeledImages.pixels`."""
        rows = np.empty((len(self), NOISE_SIDE * NOISE_SIDE * 3), dtype=np.uint8)
        for i, path in enumerate(self.paths):
            rows[i] = np.asarray(decode_rgb(path).resize((NOISE_SIDE, NOISE_SIDE))).reshape(-1)
        return rows
