"""Data sets of the library `datasets` by Hugging Face, without depending on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from ..errors import ConfigError
from .decoding import decode_rgb, decode_tensor, reason_of, report_skipped, to_rgb
from .views import NOISE_SIDE, SquareImages


class HuggingFaceImages(SquareImages):
    """Images and labels of a Hugging Face data set, decoded as they are asked for, in RGB.

    Anything will do that has ``features`` (a mapping with the two columns, whose label feature may have
    ``names``), ``len(dataset)``, ``dataset[i]`` (a mapping) and ``dataset[column]`` (all labels).

    Parameters
    ----------
    dataset : object
        A split: ``load_dataset("beans", split="train")``.
    image_column, label_column : str
        The image is one of Pillow's, an array [H, W] or [H, W, 3] of bytes, 16 bits (up to 65,535) or bool, or
        ``{"bytes": ...}``.
    image_size, augment
        See `SquareImages`; the latter is for training.

    Raises
    ------
    ConfigError
        `dataset` has no such columns, a label is not a class, or no image can be decoded. All images are
        decoded once: those that cannot be are left out, with a warning, and listed in `skipped`.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        image_column: str = "image",
        label_column: str = "label",
        image_size: int = 224,
        augment: bool = False,
    ) -> None:
        super().__init__(image_size=image_size, augment=augment)
        for column in (image_column, label_column):
            if column not in dataset.features:
                raise ConfigError(f"dataset must have a column {column!r}, it has {', '.join(dataset.features)}")
        self._dataset = dataset
        self._image_column = image_column
        labels = np.asarray(list(dataset[label_column]))
        self.class_names = _class_names(dataset.features[label_column], labels, label_column)
        problems = self._problems(len(dataset))
        self._rows = torch.tensor([i for i in range(len(dataset)) if i not in problems], dtype=torch.int64)
        if len(self._rows) == 0:
            raise ConfigError(
                f"dataset has no image that can be decoded among its {len(dataset)} rows; row 0: {problems[0]}"
            )
        self.skipped = tuple((f"row {i}", reason) for i, reason in problems.items())
        report_skipped(type(dataset).__name__, self.skipped, len(dataset))
        self.given = torch.from_numpy(labels.astype(np.int64))[self._rows]
        self.truth = None
        self.paths = [f"row {i}" for i in self._rows.tolist()]

    def decoded(self, i: int, least: int) -> Tensor:
        """See `SquareImages.decoded`."""
        image = self._dataset[int(self._rows[i])][self._image_column]
        if isinstance(image, dict):
            return decode_tensor(image["bytes"], least)
        return pil_to_tensor(_rgb(image))

    def subset(self, rows: Tensor) -> HuggingFaceImages:
        """See `LabeledImages.subset`."""
        other = super().subset(rows)
        other._rows = self._rows[rows]
        return other

    def pixels(self) -> np.ndarray:
        """See `LabeledImages.pixels`."""
        rows = (self._image(row).resize((NOISE_SIDE, NOISE_SIDE)) for row in self._rows.tolist())
        return np.stack([np.asarray(image).reshape(-1) for image in rows])

    def _image(self, row: int) -> Image.Image:
        image = self._dataset[row][self._image_column]
        return decode_rgb(image["bytes"]) if isinstance(image, dict) else _rgb(image)

    def _problems(self, count: int) -> dict[int, str]:
        problems: dict[int, str] = {}
        for row in range(count):
            try:
                self._image(row)
            except MemoryError:
                raise
            except Exception as error:  # as in `decode_problem`
                problems[row] = reason_of(error)
        return problems


def _rgb(image: Any) -> Image.Image:
    """One of Pillow's images, or an array, in RGB."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    array = np.asarray(image)
    if array.dtype == np.uint16:
        array = array >> 8
    elif array.dtype == bool:
        array = array * 255
    elif array.dtype.kind not in "iu" or array.min(initial=0) < 0 or array.max(initial=0) > 255:
        raise ValueError(f"wanted an array of bytes, 16 bits or bool, got {array.dtype}")
    return Image.fromarray(array.astype(np.uint8)).convert("RGB")


def _class_names(feature: Any, labels: np.ndarray, column: str) -> tuple[str, ...]:
    """The names of the label feature, or numbers where it has none."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise ConfigError(f"column {column!r} must hold whole numbers, got {labels.dtype} {list(labels.shape)}")
    names = getattr(feature, "names", None) or [str(i) for i in range(int(labels.max()) + 1)]
    if labels.min() < 0 or labels.max() >= len(names):
        raise ConfigError(
            f"column {column!r} must hold labels 0..{len(names) - 1}, found {labels.min()}..{labels.max()}"
        )
    return tuple(names)
