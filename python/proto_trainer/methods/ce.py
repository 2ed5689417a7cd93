"""Cross-entropy on the given labels: the baseline."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import proto_engine as pe

from ..data import LabeledImages, make_loader
from ..features import evaluation_mode, model_device, without_augmentation
from .base import Method


class CrossEntropy(Method):
    """Trains on the labels as they are; what it suggests afterwards are the network's own predictions."""

    def __init__(self, *, batch_size: int, workers: int = 0) -> None:
        self.batch_size = batch_size
        self.workers = workers

    def batch_loss(self, model: nn.Module, images: Tensor, given: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """See `Method.batch_loss`."""
        logits = model(images)
        return F.cross_entropy(logits, given), logits

    def suggestions(self, model: nn.Module, dataset: LabeledImages) -> pe.Corrections:
        """Predictions on the training images; score is the probability, margin its lead over the second."""
        device = model_device(model)
        loader = make_loader(without_augmentation(dataset), self.batch_size, workers=self.workers, device=device)
        with evaluation_mode(model), torch.inference_mode():
            batches = [model(images.to(device)).softmax(dim=1).topk(2, dim=1) for images, *_ in loader]
        chances = torch.cat([batch.values for batch in batches]).cpu().numpy()  # [N, 2]
        predicted = torch.cat([batch.indices for batch in batches]).cpu().numpy()[:, 0]  # [N]
        given = dataset.given.numpy()
        return pe.Corrections(
            labels=predicted,
            given=given,
            score=chances[:, 0],
            margin=chances[:, 0] - chances[:, 1],
            changed=predicted != given,
        )
