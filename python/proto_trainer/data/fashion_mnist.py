"""Fashion-MNIST from the four IDX files, in torchvision's folder layout or lying together in one folder."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor

from ..errors import ConfigError
from .base import Splits
from .tensor import tensor_splits

DEFAULT_ROOT = Path("~/.cache/proto_trainer")
CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_TORCHVISION_FOLDER = Path("FashionMNIST") / "raw"
_TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def load_fashion_mnist(root: Path | None, *, download: bool = False) -> Splits:
    """60,000 training and 10,000 test images, uint8 [1, 28, 28], 10 classes.

    Parameters
    ----------
    root : Path or None
        A folder with ``FashionMNIST/raw/`` in it (torchvision's layout), or one that holds the four IDX files
        itself, gzipped or not. None: ``~/.cache/proto_trainer``, where `download` puts it.
    download : bool
        Let torchvision fetch the files into `root` when they are not there.

    Raises
    ------
    ConfigError
        The files are not there, or are damaged.
    """
    folder = (root if root is not None else DEFAULT_ROOT).expanduser()
    if download:
        torchvision.datasets.FashionMNIST(str(folder), train=True, download=True)
    for candidate in (folder, folder / _TORCHVISION_FOLDER):
        if all(_find(candidate, name) for name in (*_TRAIN, *_TEST)):
            return tensor_splits(_read_pair(candidate, _TRAIN), _read_pair(candidate, _TEST), CLASS_NAMES)
    raise ConfigError(
        f"root must hold the four Fashion-MNIST files ({_TRAIN[0]}[.gz] and so on), directly or under "
        f"{_TORCHVISION_FOLDER}; {folder} does not. Give another --root, or --download"
    )


def _find(folder: Path, name: str) -> Path | None:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def _read_pair(folder: Path, names: tuple[str, str]) -> tuple[Tensor, Tensor]:
    images, labels = (_read_idx(folder, name, ndim) for name, ndim in zip(names, (3, 1), strict=True))
    if len(images) != len(labels):
        raise ConfigError(f"{folder}: {len(images)} images in {names[0]} but {len(labels)} labels in {names[1]}")
    if len(labels) and int(labels.max()) >= len(CLASS_NAMES):
        raise ConfigError(f"{folder / names[1]}: labels must be 0..{len(CLASS_NAMES) - 1}, found {labels.max()}")
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))


def _read_idx(folder: Path, name: str, ndim: int) -> np.ndarray:
    """An IDX file of bytes: 0, 0, type 8, number of axes, each length as big-endian int32, the data."""
    path = _find(folder, name)
    assert path is not None  # the caller has looked
    raw = path.read_bytes()
    if path.suffix == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(f"{path} is not a whole gzip file: {error}") from None
    header = 4 + 4 * ndim
    if len(raw) < header or raw[:4] != bytes((0, 0, 8, ndim)):
        raise ConfigError(f"{path} is not an IDX file of unsigned bytes with {ndim} axes")
    shape = tuple(int(length) for length in np.frombuffer(raw, ">i4", count=ndim, offset=4))
    if len(raw) - header != int(np.prod(shape)):
        raise ConfigError(f"{path} promises {shape} bytes of data and holds {len(raw) - header}")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape).copy()
