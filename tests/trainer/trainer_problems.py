"""Data whose features and true labels are known by construction."""

from __future__ import annotations

import torch
from proto_trainer.data import TensorImages
from torch import nn

CLUSTER_SHAPE = (1, 8, 8)


class PixelModel(nn.Module):
    """Features are the pixels themselves, so that a test knows them."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.head = nn.Linear(64, num_classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))


def clustered_images(per_class: int = 30, wrong: float = 0.3) -> TensorImages:
    """Four classes, each bright in its own quarter of the pixels, in mixed order; truth known.

    The first `wrong` of each class carries the label of the next class.
    """
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(4).repeat_interleave(per_class)
    given = torch.where(torch.arange(len(truth)) % per_class < wrong * per_class, (truth + 1) % 4, truth)
    centers = torch.eye(4).repeat_interleave(16, dim=1) * 130 + 60  # [4, 64]
    noise = torch.randint(-60, 61, (len(truth), 64), generator=generator)
    images = (centers[truth] + noise).to(torch.uint8).reshape(-1, *CLUSTER_SHAPE)
    order = torch.randperm(len(truth), generator=generator)
    clean = TensorImages(images[order], truth[order], ["a", "b", "c", "d"], mean=0.0, std=1.0)
    return clean.with_noise(given[order])
