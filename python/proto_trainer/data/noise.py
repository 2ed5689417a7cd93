"""Label noise made on purpose, so that the truth is known. All kinds are seeded.

Each function takes true labels and gives noisy ones; the definitions are pinned in its docstring.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch
from scipy import stats

from ..errors import ConfigError
from .base import LabeledImages
from .tensor import byte_statistics

NOISE_KINDS = ("symmetric", "pairflip", "instance")
_CHUNK = 4096  # rows of pixels that become float64 at a time


@dataclass(frozen=True)
class NoiseSpec:
    """A kind of noise and its rate, as in ``symmetric:0.4``.

    Raises
    ------
    ConfigError
        Unknown kind, or a rate that is not a number in [0, 1].
    """

    kind: str
    rate: float

    def __post_init__(self) -> None:
        if self.kind not in NOISE_KINDS:
            raise ConfigError(f"noise kind must be none or one of {', '.join(NOISE_KINDS)}, got {self.kind!r}")
        if not isinstance(self.rate, Real) or not 0 <= self.rate <= 1:  # false for NaN, too
            raise ConfigError(f"noise rate must lie in 0..1, got {self.rate!r}")

    @classmethod
    def parse(cls, text: str) -> NoiseSpec | None:
        """Read ``KIND:RATE``; ``none`` gives None."""
        if text == "none":
            return None
        kind, _, rate_text = text.partition(":")
        try:
            rate = float(rate_text) if kind in NOISE_KINDS else 0.0  # an unknown kind is what to complain about
        except ValueError:
            raise ConfigError(f"noise must read KIND:RATE, as in {kind}:0.4, got {text!r}") from None
        return cls(kind, rate)

    def __str__(self) -> str:
        return f"{self.kind}:{self.rate}"


def add_noise(dataset: LabeledImages, noise: NoiseSpec | None, seed: int) -> LabeledImages:
    """`dataset` with noisy given labels; what it gave before becomes the truth.

    Parameters
    ----------
    dataset : LabeledImages
    noise : NoiseSpec or None
        None: the data set as it is.
    seed : int
    """
    if noise is None:
        return dataset
    rng = np.random.default_rng(seed)
    labels = dataset.given.numpy()
    if noise.kind == "symmetric":
        noisy = symmetric(labels, noise.rate, dataset.num_classes, rng)
    elif noise.kind == "pairflip":
        noisy = pairflip(labels, noise.rate, dataset.num_classes, rng)
    else:
        noisy = instance_dependent(labels, noise.rate, dataset.num_classes, rng, dataset.pixels())
    return dataset.with_noise(torch.from_numpy(noisy))


def symmetric(labels: np.ndarray, rate: float, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """With probability `rate`, replace a label by one of the *other* classes, each equally likely.

    So the share of wrong labels is `rate`, and the noise matrix has ``1 - rate`` on its diagonal and
    ``rate / (C - 1)`` beside it (van Rooyen et al. 2015, "Learning with Symmetric Label Noise"). Some
    papers draw from all C classes instead, which leaves ``rate / C`` of the labels right by luck.

    Parameters
    ----------
    labels : ndarray, int64 [N]
    rate : float
    num_classes : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, int64 [N]
    """
    _need_two_classes(num_classes)
    step = rng.integers(1, num_classes, size=len(labels))  # 1 .. C-1 classes further on: never the same class
    return np.where(rng.random(len(labels)) < rate, (labels + step) % num_classes, labels)


def pairflip(labels: np.ndarray, rate: float, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """With probability `rate`, replace label c by the next class, ``(c + 1) mod C``.

    The pair-flip noise of Han et al. 2018 ("Co-teaching"): annotators who mix up similar classes.
    Parameters and result as in `symmetric`.
    """
    _need_two_classes(num_classes)
    return np.where(rng.random(len(labels)) < rate, (labels + 1) % num_classes, labels)


def instance_dependent(
    labels: np.ndarray, rate: float, num_classes: int, rng: np.random.Generator, pixels: np.ndarray
) -> np.ndarray:
    """Noise whose chance and direction depend on the image (Xia et al. 2020, "Part-dependent Label Noise").

    Image i has a flip rate q_i drawn from a normal distribution with mean `rate` and deviation 0.1,
    truncated to [0, 1]. Class c has a random projection W_c, standard normal [F, C]. With x the
    standardized pixels of an image of class c, the noisy label is class j != c with probability ``q_i *
    softmax_{j != c}(x W_c)_j`` and stays c with probability ``1 - q_i``. The mean of the truncated
    distribution is `rate` to within 0.006 for rates between 0.2 and 0.8; rates of exactly 0 leave the
    labels alone.

    Parameters
    ----------
    labels : ndarray, int64 [N]
    rate : float
    num_classes : int
    rng : numpy.random.Generator
    pixels : ndarray, uint8 [N, F]

    Returns
    -------
    ndarray, int64 [N]
    """
    _need_two_classes(num_classes)
    if rate == 0:
        return labels.copy()
    deviation = 0.1
    bounds = (0 - rate) / deviation, (1 - rate) / deviation
    flip_rate = stats.truncnorm.rvs(*bounds, loc=rate, scale=deviation, size=len(labels), random_state=rng)  # [N]
    projections = rng.standard_normal((num_classes, pixels.shape[1], num_classes))  # W, [C, F, C]
    uniform = rng.random(len(labels))  # [N]
    mean, std = byte_statistics(torch.from_numpy(pixels))
    noisy = labels.copy()
    for true_class in range(num_classes):
        members = np.flatnonzero(labels == true_class)
        for start in range(0, len(members), _CHUNK):
            rows = members[start : start + _CHUNK]
            logits = (pixels[rows] / 255 - mean) / std @ projections[true_class]  # [b, C]
            logits[:, true_class] = -np.inf
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            chances = flip_rate[rows, None] * weights / weights.sum(axis=1, keepdims=True)
            chances[:, true_class] = 1 - flip_rate[rows]
            drawn = (chances.cumsum(axis=1) <= uniform[rows, None]).sum(axis=1)  # invert the cumulated chances
            noisy[rows] = np.minimum(drawn, num_classes - 1)  # cumulated chances may end a rounding below 1
    return noisy


def _need_two_classes(num_classes: int) -> None:
    if num_classes < 2:
        raise ConfigError(f"label noise needs at least 2 classes, got {num_classes}")
