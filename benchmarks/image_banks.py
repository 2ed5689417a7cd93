"""Feature banks of small images that need no pretrained network, for measuring: fixed filters, or a short training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from proto_trainer import build_model
from proto_trainer.data.noise import byte_statistics
from torch import Tensor
from torch.nn import functional

from proto_engine import atomic_write

FILTERS, DIM, POOLED, WINDOW = 256, 256, 3, 7
_PATCHES, _IMAGES, _ROUNDS, _BATCH = 200_000, 4_000, 8, 20  # a batch's answers stay in the cache
_LEARNING_RATE, _MOMENTUM, _DECAY, _TRAIN_BATCH = 0.05, 0.9, 5e-4, 128
_EVALUATED = 500


def cached(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in an ``.npy`` file, made first where there is none."""
    if not path.exists():
        bank = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.save(file, bank, allow_pickle=False)
    return np.load(path, allow_pickle=False)


def filter_bank(pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Features of images that no label has touched (Coates, Ng and Lee 2011).

    Filters are k-means centers of whitened patches; a filter answers with how much nearer a patch is to it than to the
    average filter ("triangle" activation). Answers are averaged over a grid of 3 x 3 fields and projected on their
    `DIM` leading principal components.

    Parameters
    ----------
    pixels : ndarray, uint8 [N, channels, size, size]
    seed : int

    Returns
    -------
    ndarray, float16 [N, D]
        D is `DIM`, or N where there are fewer images.
    """
    images = torch.from_numpy(pixels.astype(np.float32) / 255)
    window = min(WINDOW, max(2, pixels.shape[-1] // 3))
    rng = np.random.default_rng(seed)
    some = _patches(images[rng.permutation(len(images))[:_IMAGES]], window).flatten(0, 1)
    some = some[torch.from_numpy(rng.permutation(len(some))[:_PATCHES])]
    mean = some.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(some.T))
    whitening = vectors @ torch.diag((values + 0.1) ** -0.5) @ vectors.T
    centers = _kmeans((some - mean) @ whitening)
    answers = np.empty((len(images), len(centers) * POOLED**2), np.float16)
    for start in range(0, len(images), _BATCH):
        white = (_patches(images[start : start + _BATCH], window) - mean) @ whitening  # [b, places, patch]
        distance = torch.cdist(white, centers)
        nearer = torch.relu(distance.mean(2, keepdim=True) - distance).transpose(1, 2)  # [b, filters, places]
        side = round(nearer.shape[2] ** 0.5)
        field = functional.adaptive_avg_pool2d(nearer.reshape(-1, len(centers), side, side), POOLED)
        answers[start : start + _BATCH] = field.flatten(1).numpy()
    return _principal(answers, min(DIM, len(images)))


def _patches(images: Tensor, window: int) -> Tensor:
    """All patches of a batch, each with its mean removed and its contrast evened.   [b, places, channels * window^2]"""
    found = functional.unfold(images, window).transpose(1, 2)
    return (found - found.mean(2, keepdim=True)) / torch.sqrt(found.var(2, keepdim=True) + 0.01)


def _kmeans(rows: Tensor) -> Tensor:
    """Lloyd's rounds from the first rows, which are in random order."""
    centers = rows[:FILTERS].clone()
    for _ in range(_ROUNDS):
        nearest = torch.cat([torch.cdist(part, centers).argmin(1) for part in rows.split(20_000)])
        sums = torch.zeros_like(centers).index_add_(0, nearest, rows)
        centers = sums / torch.bincount(nearest, minlength=len(centers)).clamp(min=1)[:, None]
    return centers


def _principal(answers: np.ndarray, dim: int) -> np.ndarray:
    """Mean removed, projected on the leading principal components.   float16 [N, dim]"""
    mean = answers.mean(0, dtype=np.float64).astype(np.float32)
    parts = [slice(start, start + 5_000) for start in range(0, len(answers), 5_000)]
    scatter = np.zeros((answers.shape[1],) * 2)
    for part in parts:
        centered = answers[part].astype(np.float32) - mean
        scatter += centered.T @ centered
    axes = np.linalg.eigh(scatter)[1][:, ::-1][:, :dim].astype(np.float32)
    return np.concatenate([(answers[part].astype(np.float32) - mean) @ axes for part in parts]).astype(np.float16)


def train_network(
    pixels: np.ndarray, labels: np.ndarray, num_classes: int, seed: int, epochs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Train the trainer's `small-cnn` with cross-entropy on the given labels.

    Parameters
    ----------
    pixels : ndarray, uint8 [N, channels, height, width]
    labels : ndarray, int64 [N]
    num_classes, seed, epochs : int

    Returns
    -------
    logits : ndarray, float32 [N, C]
        Of the images that it was trained on, in eval mode.
    features : ndarray, float16 [N, D]
        What the last layer sees.
    """
    mean, std = byte_statistics(torch.from_numpy(pixels))
    images = (torch.from_numpy(pixels.astype(np.float32) / 255) - mean) / std
    targets, order = torch.from_numpy(labels), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model("small-cnn", num_classes=num_classes, image_shape=pixels.shape[1:])
    optimizer = torch.optim.SGD(model.parameters(), lr=_LEARNING_RATE, momentum=_MOMENTUM, weight_decay=_DECAY)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=order).split(_TRAIN_BATCH):
            loss = functional.cross_entropy(model(images[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        features = torch.cat([model.features(batch) for batch in images.split(_EVALUATED)])
        logits = torch.cat([model(batch) for batch in images.split(_EVALUATED)])
    return logits.numpy(), features.numpy().astype(np.float16)
