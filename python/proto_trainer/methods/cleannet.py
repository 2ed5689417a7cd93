"""CleanNet: from verified labels learn which other labels to believe, and weigh the loss by it."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor, nn

from ..correction import CorrectionPhase
from ..data import LabeledImages
from ..features import extract_features, model_device
from ..losses import weighted_cross_entropy
from ..seeding import derive_seed, temporary_seed
from .ce import CrossEntropy
from .cleannet_net import class_centers, fit_of_labels, train_fit_network
from .verified import VerifiedLabels

logger = logging.getLogger(__name__)

_THRESHOLD = 0.1


class CleanNet(CrossEntropy):
    """Lee et al., "CleanNet: Transfer Learning for Scalable Image Classifier Training With Label Noise", CVPR 2018.

    From `start_epoch` on each epoch begins as a correction phase does: features of all images, centers of
    each class. A small network with fresh weights then learns, from the verified images, how well a feature
    fits a class; the fit of each image with its given label is its weight in the loss of the epoch. The
    original trains the small network and the classifier in turns, too, but goes on with the weights it has,
    and adds a term for images that nobody has verified.

    Parameters
    ----------
    num_classes : int
    start_epoch : int
        The first epoch, counted from 0, with weights.
    verified : VerifiedLabels
    hard : bool
        Weights are 1 for a fit of at least 0.1 and 0 below; else they are the fit itself, 0 if negative.
    samples_per_class : int or None
        Images drawn per class to find its centers; None takes the whole class.
    seed : int
    batch_size, workers : int
        For the passes over the training images.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        start_epoch: int,
        verified: VerifiedLabels,
        hard: bool,
        samples_per_class: int | None = 1280,
        seed: int = 0,
        batch_size: int,
        workers: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        self.num_classes = num_classes
        self.start_epoch = start_epoch
        self.verified = verified
        self.hard = hard
        self.samples_per_class = samples_per_class
        self.seed = seed
        self._weights: Tensor | None = None  # float [N], on the device of the model

    def before_epoch(self, model: nn.Module, dataset: LabeledImages, epoch: int) -> CorrectionPhase | None:
        """Weigh all images anew, from the start epoch on."""
        if epoch < self.start_epoch:
            return None
        device = model_device(model)
        unit, given = self._unit_features(model, dataset)
        if self.verified.images is not None:
            checked, labels = self._unit_features(model, self.verified.images)
        else:
            checked, labels = unit[self.verified.rows], given[self.verified.rows]
        seed = derive_seed(self.seed, epoch)
        parts = class_centers(unit.numpy(), given.numpy(), self.num_classes, self.samples_per_class, seed)
        centers, present = (part.to(device) for part in parts)
        with temporary_seed(seed, device):
            right = self.verified.right.to(device)
            network = train_fit_network(checked.to(device), labels.to(device), right, centers, present)
        fit = fit_of_labels(network, unit, given, centers, present)
        self._weights = (fit >= _THRESHOLD).float() if self.hard else fit.clamp_min(0)
        logger.info("epoch %d: mean weight %.3f", epoch, self._weights.mean())
        return None

    def _unit_features(self, model: nn.Module, dataset: LabeledImages) -> tuple[Tensor, Tensor]:
        """Unit features, float [N, D], and labels, int64 [N]; what is not finite counts as 0."""
        bank, labels = extract_features(model, dataset, batch_size=self.batch_size, workers=self.workers)
        np.nan_to_num(bank, copy=False, posinf=0.0, neginf=0.0)  # in place: the bank of a million images is large
        rows = torch.from_numpy(bank)
        return rows.div_(rows.norm(dim=1, keepdim=True).clamp_min(1e-12)), torch.from_numpy(labels)

    def batch_loss(self, model: nn.Module, images: Tensor, given: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """See `Method.batch_loss`."""
        if self._weights is None:
            return super().batch_loss(model, images, given, index)
        logits = model(images)
        return weighted_cross_entropy(logits, given, self._weights[index.to(self._weights.device)]), logits

    def state_dict(self) -> dict[str, Tensor]:
        """The weights, once there are any."""
        return {} if self._weights is None else {"weights": self._weights}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See `Method.load_state_dict`."""
        self._weights = state.get("weights")
