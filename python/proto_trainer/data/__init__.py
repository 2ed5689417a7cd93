"""Data sets by name."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError
from .base import LabeledImages, Splits, Verified, make_loader
from .cifar_n import CIFAR_DATASETS, load_cifar_n
from .clothing1m import load_clothing1m
from .digits import load_digits
from .fashion_mnist import load_fashion_mnist
from .food101n import load_food101n
from .huggingface import HuggingFaceImages
from .imagefolder import load_imagefolder
from .noise import NOISE_KINDS, NoiseSpec, add_noise
from .subset import train_on_part
from .tensor import TensorImages

DATASETS = ("digits", "fashion-mnist", "imagefolder", "clothing1m", "food101n", *CIFAR_DATASETS)

__all__ = [
    "DATASETS", "NOISE_KINDS", "HuggingFaceImages", "LabeledImages", "NoiseSpec", "Splits", "TensorImages", "Verified",
    "add_noise", "load_dataset", "make_loader",
]  # fmt: skip


def load_dataset(
    name: str,
    root: str | Path | None = None,
    *,
    download: bool = False,
    image_size: int = 224,
    images: int | None = None,
) -> Splits:
    """Load the training and the test set of a data set.

    Parameters
    ----------
    name : str
        One of `DATASETS`; of CIFAR-10N and CIFAR-100N also ``cifar10n:COLUMN``, see `load_cifar_n`.
    root : path or None
        Where the files are; ``digits`` needs none.
    download : bool
        Fetch the files when they are missing (``fashion-mnist`` only).
    image_size : int
        Side of the images of ``imagefolder``, ``clothing1m`` and ``food101n``, in pixels.
    images : int or None
        Keep only so many training images, the same share of every class, see `train_on_part`.

    Returns
    -------
    Splits

    Raises
    ------
    ConfigError
        Unknown name; missing, foreign or damaged files; `images` from `train_on_part`.
    """
    return train_on_part(_load(name, root, download=download, image_size=image_size), images)


def _load(name: str, root: str | Path | None, *, download: bool, image_size: int) -> Splits:
    folder = None if root is None else Path(root)
    if folder is not None and not download and not folder.expanduser().is_dir():
        raise ConfigError(f"root must be a folder, got {str(root)!r}")
    if name == "digits":
        return load_digits()
    if name == "fashion-mnist":
        return load_fashion_mnist(folder, download=download)
    if name == "imagefolder":
        return load_imagefolder(folder, image_size=image_size)
    if name == "clothing1m":
        return load_clothing1m(folder, image_size=image_size)
    if name == "food101n":
        return load_food101n(folder, image_size=image_size)
    if name.partition(":")[0] in CIFAR_DATASETS:
        return load_cifar_n(name, folder)
    raise ConfigError(f"data must be one of {', '.join(DATASETS)}, got {name!r}")
