"""Images in files, decoded as they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from .decoding import decode_rgb, decode_tensor, file_problems, reason_of, report_skipped
from .views import NOISE_SIDE, SquareImages

logger = logging.getLogger(__name__)


class FileImages(SquareImages):
    """Images decoded from files as they are asked for, in RGB.

    Parameters
    ----------
    paths : sequence of str
        N files.
    labels : Tensor, int64 [N]
        The given labels.
    class_names : sequence of str
    image_size, augment
        See `SquareImages`.
    """

    def __init__(
        self, paths: Sequence[str], labels: Tensor, class_names: Sequence[str], *, image_size: int, augment: bool
    ) -> None:
        super().__init__(image_size=image_size, augment=augment)
        self.paths = list(paths)
        self.given = labels.to(torch.int64)
        self.truth = None
        self.class_names = tuple(class_names)

    def decoded(self, i: int, least: int) -> Tensor:
        """See `SquareImages.decoded`.

        Raises
        ------
        OSError
            The file has been lost or damaged since it was looked at; it is named.
        """
        try:
            return decode_tensor(self.paths[i], least)
        except MemoryError:
            raise
        except Exception as error:  # as in `decode_problem`; most do not say which file it is
            raise OSError(f"image cannot be decoded any more: {self.paths[i]} ({reason_of(error)})") from None

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
