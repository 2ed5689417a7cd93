"""From a data set to its feature bank: evaluation mode, no augmentation, data set order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from .data.base import make_loader

FeatureFunction = Callable[[nn.Module, Tensor], Tensor]


def model_features(model: nn.Module, images: Tensor) -> Tensor:
    """``model.features(images)``, the default of `LabelCorrector`; feature maps [B, D, h, w] are averaged."""
    if not callable(getattr(model, "features", None)):
        raise TypeError(
            f"model must have a method features(images) -> [B, D], which {type(model).__name__} has not; "
            "or give LabelCorrector a function features=(model, images) -> [B, D]"
        )
    features = model.features(images)
    return features.mean(dim=(2, 3)) if features.ndim == 4 else features


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode; on exit each module is back in the mode that it had.

    Module by module, because a plain ``model.train()`` would also wake parts that are meant to stay frozen.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def model_device(model: nn.Module) -> torch.device:
    """The device of the first weight; the CPU for a model without weights."""
    weight = next(model.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device


def without_augmentation(dataset: Dataset) -> Dataset:
    """``dataset.plain()`` where the data set has it, else the data set itself."""
    plain = getattr(dataset, "plain", None)
    return plain() if callable(plain) else dataset


def extract_features(
    model: nn.Module,
    dataset: Dataset,
    *,
    features: FeatureFunction = model_features,
    batch_size: int = 256,
    workers: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """The feature bank of a data set and its given labels, row i belonging to item i.

    Parameters
    ----------
    model : nn.Module
        Runs in eval mode and without gradients on the device of its weights; its mode is restored afterwards.
    dataset : Dataset
        Items ``(image, given label)`` or ``(image, given label, index)``, with ``plain()`` giving the same
        data set without augmentation; a data set without that method is taken to be free of augmentation.
    features : callable
        ``(model, images [B, ...]) -> Tensor [B, D]``.
    batch_size : int
    workers : int
        Processes that load images.

    Returns
    -------
    bank : ndarray, float32 [N, D]
    labels : ndarray, int64 [N]

    Raises
    ------
    ValueError
        An item's index is not its position (a `Subset` of an indexed data set, say), or the features are
        not [B, D].
    """
    dataset = without_augmentation(dataset)
    num_samples = len(dataset)  # type: ignore[arg-type]
    device = model_device(model)
    bank = np.empty((0, 0), dtype=np.float32)
    labels = np.empty(num_samples, dtype=np.int64)
    start = 0
    with evaluation_mode(model), torch.inference_mode():
        for images, given, *index in make_loader(dataset, batch_size, workers=workers):
            rows = features(model, images.to(device))  # [B, D]
            stop = start + len(images)
            if rows.ndim != 2 or len(rows) != len(images):
                raise ValueError(f"features must give [{len(images)}, D] for a batch, got {list(rows.shape)}")
            if index and not torch.equal(index[0], torch.arange(start, stop)):
                raise ValueError(
                    "dataset must give each item its own position as index; "
                    f"items {start}..{stop - 1} came with other numbers"
                )
            if start == 0:
                bank = np.empty((num_samples, rows.shape[1]), dtype=np.float32)
            bank[start:stop] = rows.float().cpu().numpy()
            labels[start:stop] = given.numpy()
            start = stop
    return bank, labels
