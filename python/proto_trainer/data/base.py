"""What every data set of the trainer offers: (image, given label, index), with the truth kept to one side."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler

from ..seeding import derive_seed

Images = TypeVar("Images", bound="LabeledImages")


class LabeledImages(Dataset):
    """A data set that knows its given labels, and the true ones where there are any.

    Item ``i`` is ``(image, given[i], i)``. The index is the position in the data set; it is how a shuffled
    batch finds its corrected labels again. Training never reads `truth`: it is there to measure with.

    Attributes
    ----------
    given : Tensor, int64 [N]
        The labels that a network may see.
    truth : Tensor, int64 [N], or None
        The true labels, when they are known.
    class_names : tuple of str
        One a class.
    image_shape : tuple (channels, height, width)
    paths : sequence of str or None
        The image files, for data sets that have them.
    skipped : tuple of (str, str)
        Images that were left out because they cannot be decoded: the file (or row) and the reason.
    takes_lists : bool
        ``dataset[[3, 1, 2]]`` gives a batch at once.
    draws : Tensor, float [N, 3], or None
        The numbers in [0, 1) that decide how each image is augmented, see `seeded`.
    """

    given: Tensor
    truth: Tensor | None
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    paths: Sequence[str] | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    takes_lists = False
    draws: Tensor | None = None

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.given)

    def with_noise(self, noisy: Tensor) -> LabeledImages:
        """The same images with `noisy`, int64 [N], as given labels.

        Those given so far become the truth, unless the truth is known already.
        """
        if noisy.shape != self.given.shape:
            raise ValueError(f"noisy must have shape {tuple(self.given.shape)}, got {tuple(noisy.shape)}")
        other = copy.copy(self)
        other.truth = self.given if self.truth is None else self.truth
        other.given = noisy.to(torch.int64)
        return other

    def subset(self: Images, rows: Tensor) -> Images:
        """The images at `rows`, int64 [M], with their labels, in that order; `skipped` is left behind."""
        other = copy.copy(self)
        other.given = self.given[rows]
        other.truth = None if self.truth is None else self.truth[rows]
        other.paths = None if self.paths is None else [self.paths[i] for i in rows.tolist()]
        other.skipped = ()
        other.draws = None if self.draws is None else self.draws[rows]
        return other

    def seeded(self: Images, seed: int) -> Images:
        """The same images, each of them augmented, if at all, in a way that `seed` and its position decide.

        So neither the order in which images are asked for nor the process that does the work matters.
        """
        other = copy.copy(self)
        rng = np.random.default_rng(seed)
        other.draws = torch.from_numpy(rng.random((len(self), 3), dtype=np.float32))
        return other

    def draws_of(self, index: Tensor) -> Tensor:
        """Three numbers in [0, 1) an image, float [..., 3]; of torch's global generator if not `seeded`."""
        return torch.rand((*index.shape, 3)) if self.draws is None else self.draws[index]

    def unfinished(self, rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """``self[rows]`` before `finish`, for data sets that take lists: what worker processes compute."""
        return self[rows]

    def finish(self, images: Tensor) -> Tensor:
        """What the network sees of the images of an `unfinished` batch, on whatever device they are by now."""
        return images

    def plain(self) -> LabeledImages:
        """The same images without augmentation: what features are extracted from and tests run on."""
        raise NotImplementedError

    def pixels(self) -> np.ndarray:
        """All images as uint8 rows, [N, F], large ones shrunk: what instance-dependent noise is made from."""
        raise NotImplementedError


@dataclass(frozen=True)
class Verified:
    """Images whose given label somebody has looked at.

    Attributes
    ----------
    images : LabeledImages
        V images with the label that was looked at as `given`; `truth` where the right label is known, too.
    right : Tensor, bool [V]
        Whether the given label is right.
    rows : Tensor, int64 [V]
        Positions of the images in the training set, -1 for images that are not in it.
    """

    images: LabeledImages
    right: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Splits:
    """A training and a test set of the same classes, and the extra supervision that some data sets have.

    Attributes
    ----------
    train, test : LabeledImages
    validation : LabeledImages or None
        Images with clean labels to choose settings by.
    clean : LabeledImages or None
        Images with clean labels to train on. They are not in `train`.
    verified : Verified or None
        For training.
    verified_validation : Verified or None
        To choose settings by.
    """

    train: LabeledImages
    test: LabeledImages
    validation: LabeledImages | None = None
    clean: LabeledImages | None = None
    verified: Verified | None = None
    verified_validation: Verified | None = None


class _Unfinished(Dataset):
    """The batches of a data set as worker processes send them."""

    def __init__(self, dataset: LabeledImages) -> None:
        self.dataset = dataset

    def __getitem__(self, rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        return self.dataset.unfinished(rows)


class Batches:
    """The batches of a loader, finished where the network is."""

    def __init__(self, loader: DataLoader, finish: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self._loader = loader
        self._finish = finish
        self._device = device

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for batch in self._loader:
            if not isinstance(batch, list | tuple) or not isinstance(batch[0], Tensor):  # dicts fall apart into keys
                raise TypeError(
                    "dataset: wanted items (image, label) or (image, label, index) with a tensor as image, batches of "
                    f"{type(batch).__name__} came"
                )
            images, *others = batch
            yield self._finish(images.to(self._device, non_blocking=True)), *others


def make_loader(
    dataset: Dataset,
    batch_size: int,
    *,
    shuffle_seed: int | None = None,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> Batches:
    """Batches of `dataset` in data set order, or shuffled.

    Parameters
    ----------
    dataset : Dataset
    batch_size : int
    shuffle_seed : int or None
        Decides the order and, of `LabeledImages`, the augmentation; the number of workers does not.
    workers : int
        Processes that load images.
    device : torch.device
        Where the images go. Labels and indices stay on the host.

    The loader has a generator of its own: walking through the data leaves torch's global random state as it
    was.
    """
    device = torch.device(device)
    generator = torch.Generator().manual_seed(shuffle_seed or 0)
    shuffled = shuffle_seed is not None
    sampler: Sampler = RandomSampler(dataset, generator=generator) if shuffled else SequentialSampler(dataset)
    settings: dict[str, Any] = {
        "generator": generator,
        "num_workers": workers,
        "pin_memory": device.type == "cuda",  # elsewhere it is one more copy
    }
    finish = _as_it_is
    if isinstance(dataset, LabeledImages):
        finish = dataset.finish
        if shuffle_seed is not None:
            dataset = dataset.seeded(derive_seed(shuffle_seed, "augmentation"))
        if dataset.takes_lists:  # the sampler's items are whole batches, the loader adds nothing
            sampler, batch_size, dataset = BatchSampler(sampler, batch_size, False), None, _Unfinished(dataset)
    return Batches(DataLoader(dataset, sampler=sampler, batch_size=batch_size, **settings), finish, device)


def _as_it_is(images: Tensor) -> Tensor:
    return images
