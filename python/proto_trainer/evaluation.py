"""How good a network is, and how good labels are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .data import LabeledImages, make_loader
from .features import evaluation_mode, model_device, without_augmentation


def accuracy(model: nn.Module, dataset: LabeledImages, *, batch_size: int = 512, workers: int = 0) -> float:
    """Share of images whose most likely class is the given label: eval mode, no augmentation."""
    device = model_device(model)
    correct = 0
    with evaluation_mode(model), torch.inference_mode():
        for images, given, _ in make_loader(without_augmentation(dataset), batch_size, workers=workers, device=device):
            correct += int((model(images.to(device)).argmax(dim=1) == given.to(device)).sum())
    return correct / len(dataset)


def label_accuracy(labels: Tensor, truth: Tensor | None) -> float | None:
    """Share of labels that are true; None when the truth is not known. Both int64 [N]."""
    return None if truth is None else float((labels == truth).double().mean())


def noise_matrix(truth: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Row i, column j: the share of images of true class i that carry label j.

    Parameters
    ----------
    truth, labels : ndarray, int64 [N]
    num_classes : int

    Returns
    -------
    ndarray, float64 [C, C]
        Rows sum to 1; the row of a class without images is 0.
    """
    counts = np.bincount(truth * num_classes + labels, minlength=num_classes**2).reshape(num_classes, num_classes)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
