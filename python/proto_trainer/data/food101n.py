"""Food-101N (Lee et al. 2018): 310,009 images from the web, 101 classes, tested on Food-101's test set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import ConfigError
from .base import Splits, Verified
from .files import FileImages
from .lists import compare_counts, need_files, read_lines, read_table

logger = logging.getLogger(__name__)

WHOLE = {"classes": 101, "training images": 310_009, "test images": 25_250}
_FILES = ("meta/imagelist.tsv", "meta/classes.txt")
# Where to look, under ROOT, for Food-101N and for Food-101.
_HOMES = ("", "Food-101N_release", "food-101n")
_TEST_HOMES = ("", "food-101", "../food-101")


def load_food101n(root: Path | None, *, image_size: int) -> Splits:
    """Training on Food-101N, testing on the test set of Food-101.

    Parameters
    ----------
    root : Path or None
        The folder with ``meta/imagelist.tsv`` and ``images/``, or one that holds it as ``Food-101N_release/``.
        Food-101 (``meta/test.txt`` and ``images/``) is looked for in the same folder, in ``food-101/`` under
        it and in ``food-101/`` beside it.
    image_size : int

    Returns
    -------
    Splits
        `verified` and `verified_validation`: the rows of `train` that ``verified_train.tsv`` and
        ``verified_val.tsv`` name; None without the file.

    Raises
    ------
    ConfigError
        A file is missing or contradicts another, or no training or test image can be read.
    """
    if root is None:
        raise ConfigError("root must be given for food101n: the folder with meta/imagelist.tsv and images/ in it")
    home = next((root / name for name in _HOMES if (root / name / _FILES[0]).is_file()), root)
    need_files(home, _FILES, what="Food-101N")
    test_home = next((root / name for name in _TEST_HOMES if (root / name / "meta/test.txt").is_file()), None)
    if test_home is None:
        raise ConfigError(
            f"root must hold the test set of Food-101, too: meta/test.txt and images/ in {root}, "
            f"in {root / 'food-101'} or beside it"
        )
    names = read_table(home / "meta/classes.txt")
    keys = list(dict.fromkeys(read_table(home / "meta/imagelist.tsv")))
    test_keys = list(dict.fromkeys(read_lines(test_home / "meta/test.txt")))
    compare_counts("food101n", dict(zip(WHOLE, map(len, (names, keys, test_keys)), strict=True)), WHOLE)

    def images(folder: Path, listed: Sequence[str], list_name: str, ending: str, augment: bool) -> FileImages:
        labels = torch.tensor(_classes_of(listed, names, folder / list_name), dtype=torch.int64)
        paths = [f"{folder}/images/{key}{ending}" for key in listed]
        return FileImages(paths, labels, names, image_size=image_size, augment=augment)

    test = images(test_home, test_keys, "meta/test.txt", ".jpg", False).decodable("meta/test.txt")
    train = images(home, keys, "meta/imagelist.tsv", "", True).decodable("meta/imagelist.tsv")
    listed = set(keys)
    verified = _verified(home, "meta/verified_train.tsv", listed, train)
    return Splits(
        train, test, verified=verified, verified_validation=_verified(home, "meta/verified_val.tsv", listed, train)
    )


def _classes_of(keys: Sequence[str], names: Sequence[str], source: Path) -> list[int]:
    """The class of each ``class/image``."""
    number = {name: i for i, name in enumerate(names)}
    labels = [number.get(key.partition("/")[0], -1) for key in keys]
    if -1 in labels:
        raise ConfigError(f"{source} names a class that meta/classes.txt does not: {keys[labels.index(-1)]}")
    return labels


def _verified(home: Path, file: str, listed: set[str], train: FileImages) -> Verified | None:
    """The rows of `train` that a file of lines ``class/image.jpg <tab> 1 or 0`` names.

    Lines that name no listed image are left out with a warning: the published file has such a line. When they
    are more than a tenth, the file belongs to other images.
    """
    path = home / file
    if not path.is_file():
        logger.warning("food101n: no %s, so no verified labels", path)
        return None
    position = {name: i for i, name in enumerate(train.paths)}
    rows, right, unknown = [], [], []
    lines = read_table(path)
    for number, line in enumerate(lines, start=1):
        key, _, verdict = line.partition("\t")
        if verdict not in ("0", "1"):
            raise ConfigError(f"{path}, row {number}: wanted 'class/image.jpg', a tab, and 1 or 0: {line!r}")
        if key not in listed:
            unknown.append(key)
        elif (row := position.get(f"{home}/images/{key}")) is not None:  # None: it cannot be decoded
            rows.append(row)
            right.append(verdict == "1")
    if 10 * len(unknown) > len(lines):
        raise ConfigError(f"{path} names {len(unknown)} images that meta/imagelist.tsv does not: {unknown[0]}, ...")
    if unknown:
        logger.warning(
            "food101n: %d of %d rows of %s name no image of meta/imagelist.tsv and are left out: %s",
            len(unknown), len(lines), file, ", ".join(unknown[:5]),
        )  # fmt: skip
    index = torch.tensor(rows, dtype=torch.int64)
    return Verified(train.subset(index), torch.tensor(right, dtype=torch.bool), index)
