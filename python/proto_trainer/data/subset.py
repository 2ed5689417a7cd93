"""Training on a part of a data set: fewer images, the same share of every class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from .base import Splits, Verified

_SEED = 0  # one part of each size: runs with different seeds train on the same images


def train_on_part(splits: Splits, images: int | None) -> Splits:
    """The splits with `images` of the training images, drawn from every class alike; all else whole.

    Verified labels of training images that are left out go with them; those of other images stay.

    Parameters
    ----------
    splits : Splits
    images : int or None
        None: all of them.

    Raises
    ------
    ConfigError
        There are not as many, or a class would lose all of its images.
    """
    if images is None:
        return splits
    rows = stratified_rows(splits.train.given.numpy(), images)
    index = torch.from_numpy(rows)
    positions = torch.full((len(splits.train),), -1)
    positions[index] = torch.arange(len(rows))
    return replace(
        splits,
        train=splits.train.subset(index),
        verified=_verified_of_part(splits.verified, positions),
        verified_validation=_verified_of_part(splits.verified_validation, positions),
    )


def stratified_rows(labels: np.ndarray, count: int) -> np.ndarray:
    """`count` positions in ascending order, a fixed draw; each class has its share, to within one image.

    Parameters
    ----------
    labels : ndarray, int64 [N]
    count : int

    Returns
    -------
    ndarray, int64 [count]

    Raises
    ------
    ConfigError
        See `train_on_part`.
    """
    if not 1 <= count <= len(labels):
        raise ConfigError(f"images must lie in 1..{len(labels)}, the number of training images, got {count}")
    sizes = np.bincount(labels)  # [C]
    share, rest = np.divmod(sizes * count, len(labels))
    share[np.argsort(-rest, kind="stable")[: count - share.sum()]] += 1  # the largest remainders round up
    if lost := np.flatnonzero((sizes > 0) & (share == 0)).tolist():
        raise ConfigError(f"images must leave every class an image, got {count}: too few for the classes {lost}")
    rng = np.random.default_rng(_SEED)
    order = rng.permutation(len(labels))
    kept = [order[labels[order] == c][:size] for c, size in enumerate(share)]
    return np.sort(np.concatenate(kept))


def _verified_of_part(verified: Verified | None, positions: Tensor) -> Verified | None:
    """With rows as they count in the part; `positions`, int64 [N], has -1 for the images that it lacks."""
    if verified is None:
        return None
    elsewhere = verified.rows < 0  # images that never were in the training set
    rows = torch.where(elsewhere, -1, positions[verified.rows])
    kept = (elsewhere | (rows >= 0)).nonzero().flatten()
    return Verified(verified.images.subset(kept), verified.right[kept], rows[kept]) if len(kept) else None
