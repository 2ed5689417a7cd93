"""The network inside CleanNet: it says how well a feature fits a class."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional as F

from ..losses import cleannet_loss

_CENTERS = 32
_STEPS = 200
_BATCH = 128
_RATE = 1e-3
_CHUNK = 8192


class FitNetwork(nn.Module):
    """A class as the attention-weighted sum of its centers, a feature as the middle of an auto-encoder.

    Parameters
    ----------
    dim : int
        D, of the features.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.center = nn.Sequential(nn.Linear(dim, 512), nn.Tanh(), nn.Linear(512, 256), nn.Tanh())
        self.attention = nn.Sequential(nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 1, bias=False))
        self.embed_class = nn.Sequential(nn.Linear(256, 128), nn.Tanh())
        self.encode = nn.Sequential(nn.Linear(dim, 256), nn.Tanh(), nn.Linear(256, 128), nn.Tanh())
        self.decode = nn.Sequential(nn.Linear(128, 256), nn.Tanh(), nn.Linear(256, dim))

    def classes(self, centers: Tensor, present: Tensor) -> Tensor:
        """Centers, float [C, K, D], of which bool [C, K] are there, to class embeddings, float [C, 128]."""
        hidden = self.center(centers)  # [C, K, 256]
        scores = self.attention(hidden).squeeze(2).masked_fill(~present, float("-inf"))
        return self.embed_class((scores.softmax(dim=1).unsqueeze(2) * hidden).sum(dim=1))


def class_centers(
    unit: np.ndarray, given: np.ndarray, num_classes: int, per_class: int | None, seed: int
) -> tuple[Tensor, Tensor]:
    """Up to 32 k-means centers for each class, among the images that carry its label.

    Parameters
    ----------
    unit : ndarray, float32 [N, D]
        Unit features.
    given : ndarray, int64 [N]
    num_classes : int
    per_class : int or None
        Images drawn of each class; None takes all.
    seed : int

    Returns
    -------
    centers : Tensor, float32 [C, 32, D]
        Zeros where there are fewer.
    present : Tensor, bool [C, 32]
        The first is always set: a class without images is a single zero.
    """
    rng = np.random.default_rng(seed)
    centers = torch.zeros(num_classes, _CENTERS, unit.shape[1])
    present = torch.zeros(num_classes, _CENTERS, dtype=torch.bool)
    present[:, 0] = True
    for label in range(num_classes):
        pool = np.flatnonzero(given == label)
        if per_class is not None and len(pool) > per_class:
            pool = np.sort(rng.choice(pool, per_class, replace=False))
        distinct = len(np.unique(unit[pool], axis=0))
        if distinct:
            count = min(_CENTERS, distinct)
            with threadpool_limits(1):  # threads would add up each center in an order of their own
                found = KMeans(count, n_init=1, random_state=seed).fit(unit[pool]).cluster_centers_
            centers[label, :count] = torch.from_numpy(found)
            present[label, :count] = True
    return centers, present


def train_fit_network(unit: Tensor, labels: Tensor, right: Tensor, centers: Tensor, present: Tensor) -> FitNetwork:
    """A network with fresh weights, trained on the verified images; all random numbers are torch's global ones.

    Parameters
    ----------
    unit : Tensor, float [V, D]
        Unit features of the verified images.
    labels : Tensor, int64 [V]
    right : Tensor, bool [V]
    centers, present
        From `class_centers`, all on one device.
    """
    network = FitNetwork(unit.shape[1]).to(unit.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)
    for _ in range(_STEPS):
        batch = torch.randint(len(unit), (min(_BATCH, len(unit)),)).to(unit.device)
        code = network.encode(unit[batch])
        own = F.one_hot(labels[batch], len(centers)).to(code.dtype) @ network.classes(centers, present)  # [B, 128]
        cosine = F.cosine_similarity(code, own)
        loss = cleannet_loss(cosine, right[batch], unit[batch], network.decode(code))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


@torch.no_grad()
def fit_of_labels(network: FitNetwork, unit: Tensor, labels: Tensor, centers: Tensor, present: Tensor) -> Tensor:
    """The cosine of each feature with the class of its label, float [N], on the device of the network.

    Arguments as in `train_fit_network`, but `unit` and `labels` may lie elsewhere: they come in chunks.
    """
    classes = network.classes(centers, present)
    parts = []
    for rows, own in zip(unit.split(_CHUNK), labels.split(_CHUNK), strict=True):
        code = network.encode(rows.to(classes.device))
        parts.append(F.cosine_similarity(code, classes[own.to(classes.device)]))
    return torch.cat(parts)
