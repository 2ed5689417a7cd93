"""From a data set to its feature bank: evaluation mode, no augmentation, data set order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset
from tqdm import tqdm

import proto_engine as pe

from .bank_writer import BankWriter
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
    """The features of a data set as the model gives them, and its given labels, row i belonging to item i.

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
    features : ndarray, float32 [N, D]
    labels : ndarray, int64 [N]

    Raises
    ------
    ValueError
        An item's index is not its position (a `Subset` of an indexed data set, say), or the features are
        not [B, D].
    TypeError
        A data set without positions, other items, given labels that are not whole numbers.
    """
    num_samples = _count(dataset)
    matrix = np.empty((0, 0), dtype=np.float32)
    labels = np.empty(num_samples, dtype=np.int64)
    with contextlib.closing(feature_batches(model, dataset, features, batch_size, workers)) as batches:
        for start, rows, given in batches:
            if start == 0:
                matrix = np.empty((num_samples, rows.shape[1]), dtype=np.float32)
            matrix[start : start + len(rows)] = rows.cpu().numpy()
            labels[start : start + len(rows)] = given
    return matrix, labels


def extract_bank(
    model: nn.Module,
    dataset: Dataset,
    *,
    features: FeatureFunction = model_features,
    batch_size: int = 256,
    workers: int = 0,
    with_lengths: bool = False,
    memory_limit: int = 4 * 2**30,
    folder: str | Path | None = None,
    title: str = "extracting features",
) -> tuple[pe.FeatureBank, np.ndarray]:
    """The feature bank of a data set and its given labels: what label correction works on.

    The bank is float16, each row scaled by a power of two, so that no value leaves the range of float16: cosines do
    not see it, and what is lost is the rounding to 11 bits alone. Half the memory and half the traffic of float32.

    Parameters
    ----------
    model, dataset, features, batch_size, workers
        See `extract_features`.
    with_lengths : bool
        Keep the rows as the model gives them, in float32: for distances that are not between unit rows.
    memory_limit : int
        Bytes. A larger bank is written to an unnamed file in `folder` and memory-mapped.
    folder : path or None
        None: the system's folder for temporary files.
    title : str
        What the progress bar says, which appears on a terminal when it takes more than a few seconds.

    Returns
    -------
    bank : FeatureBank, float16 (float32 with lengths) [N, D]
    labels : ndarray, int64 [N]

    Raises
    ------
    TypeError, ValueError
        See `extract_features`; an empty data set.
    OSError
        The file does not fit into `folder`; found out with the first batch, which says what D is.
    """
    num_samples = _count(dataset)
    if num_samples == 0:
        raise ValueError("dataset: wanted at least one image, got none")
    labels = np.empty(num_samples, dtype=np.int64)
    with (
        BankWriter(num_samples, memory_limit, folder) as writer,
        contextlib.closing(feature_batches(model, dataset, features, batch_size, workers)) as batches,
        tqdm(total=num_samples, desc=title, unit=" images", delay=3, leave=False, disable=None) as bar,
    ):
        for start, rows, given in batches:
            writer.append((rows if with_lengths else to_half(rows)).cpu().numpy())
            labels[start : start + len(rows)] = given
            bar.update(len(rows))
        return writer.bank(), labels


def to_half(rows: Tensor) -> Tensor:
    """Rows in float16, each divided by the power of two that brings its largest value into [0.5, 1).

    Parameters
    ----------
    rows : Tensor, float32 [B, D]
        A row that is not finite stays so.

    Returns
    -------
    Tensor, float16 [B, D]
    """
    largest = rows.abs().amax(dim=1, keepdim=True)  # [B, 1]
    exponent = torch.frexp(torch.where(largest.isfinite(), largest, 1.0)).exponent
    # within the bounds the factor is a normal number, and what lies beyond them still fits
    return torch.ldexp(rows, -exponent.clamp(-120, 126)).half()


def feature_batches(
    model: nn.Module, dataset: Dataset, features: FeatureFunction, batch_size: int, workers: int
) -> Generator[tuple[int, Tensor, np.ndarray], None, None]:
    """Position, features (float32 [B, D], on the device of the model) and given labels of each batch, in order.

    To be closed by whoever takes from it: until then the model is in eval mode, and torch in inference mode.
    """
    dataset = without_augmentation(dataset)
    device = model_device(model)
    start = 0
    with evaluation_mode(model), torch.inference_mode():
        for images, *others in make_loader(dataset, batch_size, workers=workers, device=device):
            given, index = _labels_and_index(others, len(images))
            rows = features(model, images.to(device))  # [B, D]
            stop = start + len(images)
            if rows.ndim != 2 or len(rows) != len(images):
                raise ValueError(f"features must give [{len(images)}, D] for a batch, got {list(rows.shape)}")
            if index is not None and not torch.equal(index, torch.arange(start, stop)):
                raise ValueError(
                    "dataset must give each item its own position as index; "
                    f"items {start}..{stop - 1} came with other numbers"
                )
            yield start, rows.float(), given.numpy()
            start = stop


def _count(dataset: Dataset) -> int:
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(f"dataset: wanted len(dataset) and dataset[i], got {type(dataset).__name__}")
    return len(dataset)


def _labels_and_index(others: list[Any], count: int) -> tuple[Tensor, Tensor | None]:
    """What a batch of `count` images has beside them: given labels [B], and positions [B] if it has any."""
    given = others[0] if others else None
    if not isinstance(given, Tensor) or given.is_floating_point():
        found = given.dtype if isinstance(given, Tensor) else _kind_of(given)
        raise TypeError(f"dataset: wanted whole numbers as given labels, got {found}")
    if given.shape != (count,):
        raise ValueError(f"dataset: wanted one given label an image, got {list(given.shape)} for {count} images")
    if len(others) == 1:
        return given, None
    if not isinstance(others[1], Tensor):
        raise TypeError(f"dataset: wanted items (image, label, index), got {_kind_of(others[1])} as index")
    return given, others[1]


def _kind_of(collated: Any) -> str:
    """What the items had that torch's collation made a list of, or nothing of."""
    return type(collated[0] if isinstance(collated, (list, tuple)) and collated else collated).__name__
