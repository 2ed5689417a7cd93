"""What every implementation of the method must fulfill: checks that the tests run, and that must notice planted faults.

Three faults are common in re-implementations: corrected labels in the order of the loader, eta that starts from a
row's similarity with itself or looks the wrong way, and features from training mode or from augmented images.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from proto_trainer import LabelCorrector, extract_features, make_loader
from proto_trainer.data import TensorImages
from torch import nn
from torch.utils.data import TensorDataset
from trainer_problems import PixelModel

import proto_engine as pe


def corrector_for(dataset, **settings) -> LabelCorrector:
    return LabelCorrector(**{"num_classes": dataset.num_classes, "start_epoch": 0, "batch_size": 16, **settings})


def check_targets_follow_the_index(dataset: TensorImages, model: PixelModel) -> None:
    """`dataset` is one whose labels the corrector sets right, all of them."""
    corrector = corrector_for(dataset)
    corrector.update(model, dataset, epoch=0)
    assert (dataset.given != dataset.truth).float().mean() == pytest.approx(0.3)
    seen = 0
    for _, _, index in make_loader(dataset, 8, shuffle_seed=1):
        assert not torch.equal(index, index.sort().values)
        assert torch.equal(corrector.targets(index), dataset.truth[index])
        seen += len(index)
    assert seen == len(dataset)


def check_targets_without_index(dataset: TensorImages, model: PixelModel) -> None:
    """The order of a data set that does not number its items is its order all the same."""
    images, given, index = dataset[list(range(len(dataset)))]
    corrector = corrector_for(dataset)
    corrector.update(model, TensorDataset(images, given), epoch=0)
    assert torch.equal(corrector.targets(index), dataset.truth)


def check_eta_looks_at_denser_rows(backend: str) -> None:
    """Four directions in the plane, 0, 10, 20 and 80 degrees, worked out by hand.

    S has, in ascending order, cos 80, cos 70, cos 60 and cos 20 twice each, cos 10 and 1 four times; with q = 1/2 the
    cutoff is entry 7, cos 20. The densities are then 1, 2, 1 and -2. Row 1 is the densest: its eta is the least of its
    row, cos 70. Rows 0 and 2 look at row 1 alone: cos 10, more than eta_max. Row 3 looks at all others: cos 60.
    """
    angles = np.radians([0, 10, 20, 80])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    peaks = pe.density_peaks(x, cutoff_quantile=0.5, backend=backend)
    assert peaks.rho.tolist() == [1, 2, 1, -2]
    np.testing.assert_allclose(peaks.eta, np.cos(np.radians([10, 70, 10, 60])), atol=1e-12)
    settings = {"prototypes_per_class": 2, "cutoff_quantile": 0.5, "eta_max": 0.95, "backend": backend}
    assert pe.select_prototypes(x, np.zeros(4, dtype=int), **settings).indices.tolist() == [[1, 3]]


class NormalizedModel(PixelModel):
    """Dropout and batch normalization: features differ between train and eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.BatchNorm1d(64)
        self.norm = nn.BatchNorm1d(64)
        self.dropout = nn.Dropout(0.5)
        self.frozen.eval()  # as in fine-tuning

    def features(self, images):
        return self.dropout(self.norm(self.frozen(images.flatten(1))))


def check_features_come_from_eval_mode(dataset: TensorImages) -> None:
    """And the modes of all modules come back, as well as their statistics."""
    model = NormalizedModel()
    before = copy.deepcopy(model.state_dict())
    bank, given = extract_features(model, dataset, batch_size=16)
    images, _, _ = dataset[list(range(len(dataset)))]
    expected = images.flatten(1) / (1 + 1e-5)  # two normalizations with running mean 0 and variance 1
    np.testing.assert_allclose(bank, expected.numpy(), rtol=1e-5)
    assert bank.dtype == np.float32 and bank.shape == (120, 64)
    assert given.dtype == np.int64 and (given == dataset.given.numpy()).all()
    assert model.training and model.norm.training and model.dropout.training and not model.frozen.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def check_features_come_without_augmentation(dataset: TensorImages, model: PixelModel) -> None:
    """And training still sees the augmentation."""
    augmented = copy.copy(dataset)
    augmented.augment = lambda images, *draws: torch.full_like(images, 7.0)
    plain, _ = extract_features(model, dataset)
    bank, _ = extract_features(model, augmented)
    np.testing.assert_array_equal(bank, plain)
    images, _, _ = next(iter(make_loader(augmented, 4)))
    assert (images == 7).all()
