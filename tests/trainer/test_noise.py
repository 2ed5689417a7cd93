"""Label noise: stated rates, stated directions, seeded."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from proto_trainer import ConfigError, NoiseSpec, add_noise, noise_matrix
from proto_trainer.data import TensorImages
from proto_trainer.data.noise import instance_dependent, pairflip, symmetric
from scipy import stats

N, C = 20_000, 10


@pytest.fixture
def labels():
    return np.random.default_rng(5).integers(0, C, size=N)


def four_sigma(rate: float, count: int) -> float:
    return 4 * math.sqrt(rate * (1 - rate) / count)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.4, 1.0])
def test_symmetric_rate_is_the_share_of_wrong_labels(labels, rate):
    noisy = symmetric(labels, rate, C, np.random.default_rng(0))
    assert abs((noisy != labels).mean() - rate) <= four_sigma(rate, N)


def test_symmetric_spreads_evenly_over_the_other_classes(labels):
    matrix = noise_matrix(labels, symmetric(labels, 0.45, C, np.random.default_rng(0)), C)
    beside = matrix[~np.eye(C, dtype=bool)]
    assert np.abs(beside - 0.05).max() < 4.5 * math.sqrt(0.05 * 0.95 / (N / C))


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_pairflip_only_goes_to_the_next_class(labels, rate):
    noisy = pairflip(labels, rate, C, np.random.default_rng(0))
    wrong = noisy != labels
    assert (noisy[wrong] == (labels[wrong] + 1) % C).all()
    assert abs(wrong.mean() - rate) <= four_sigma(rate, N)


@pytest.mark.parametrize("rate", [0.2, 0.4])
def test_instance_rate_is_the_share_of_wrong_labels(labels, rate):
    pixels = np.random.default_rng(1).integers(0, 256, size=(N, 12), dtype=np.uint8)
    noisy = instance_dependent(labels, rate, C, np.random.default_rng(0), pixels)
    assert abs((noisy != labels).mean() - rate) < 0.006 + four_sigma(rate, N)
    assert noisy.min() >= 0 and noisy.max() < C


def test_instance_equals_the_definition_image_by_image():
    rng = np.random.default_rng(7)
    pixels = rng.integers(0, 256, size=(60, 5), dtype=np.uint8)
    labels = rng.integers(0, 4, size=60)
    noisy = instance_dependent(labels, 0.4, 4, np.random.default_rng(11), pixels)

    draws = np.random.default_rng(11)  # the same draws, then the definition in loops
    flip_rate = stats.truncnorm.rvs(-4.0, 6.0, loc=0.4, scale=0.1, size=60, random_state=draws)
    projections = draws.standard_normal((4, 5, 4))
    uniform = draws.random(60)
    standardized = (pixels - pixels.mean()) / pixels.std()
    for i in range(60):
        scores = standardized[i] @ projections[labels[i]]
        chances = np.zeros(4)
        others = [j for j in range(4) if j != labels[i]]
        chances[others] = flip_rate[i] * np.exp(scores[others]) / np.exp(scores[others]).sum()
        chances[labels[i]] = 1 - flip_rate[i]
        assert chances.sum() == pytest.approx(1)
        assert noisy[i] == np.searchsorted(np.cumsum(chances), uniform[i], side="right")


def test_instance_depends_on_the_image():
    """Copies of one image flip to the same few classes; copies of another image of that class to others."""
    images = np.random.default_rng(2).integers(0, 256, size=(2, 300), dtype=np.uint8)
    noisy = instance_dependent(
        np.zeros(1000, dtype=np.int64), 0.5, C, np.random.default_rng(0), images.repeat(500, axis=0)
    )
    favorites = [np.bincount(part[part != 0], minlength=C).argmax() for part in (noisy[:500], noisy[500:])]
    assert favorites[0] != favorites[1]


def test_instance_rate_zero_changes_nothing(labels):
    pixels = np.zeros((N, 3), dtype=np.uint8)
    assert (instance_dependent(labels, 0.0, C, np.random.default_rng(0), pixels) == labels).all()


@pytest.mark.parametrize("kind", ["symmetric", "pairflip", "instance"])
def test_add_noise_is_seeded_and_keeps_the_truth(kind):
    images = torch.randint(0, 256, (500, 1, 3, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    truth = torch.arange(500) % C
    dataset = TensorImages(images, truth, [str(c) for c in range(C)], mean=0.5, std=0.2)
    noise = NoiseSpec(kind, 0.4)
    first, again, other = (add_noise(dataset, noise, seed) for seed in (1, 1, 2))
    assert torch.equal(first.given, again.given)
    assert not torch.equal(first.given, other.given)
    assert torch.equal(first.truth, truth)
    assert dataset.truth is None and torch.equal(dataset.given, truth)  # the original is untouched


def test_add_noise_none_gives_the_data_set_itself(clusters):
    assert add_noise(clusters[0], None, seed=0) is clusters[0]


def test_add_noise_needs_two_classes():
    dataset = TensorImages(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3), ["only"], mean=0.0, std=1.0)
    with pytest.raises(ConfigError, match="at least 2 classes, got 1"):
        add_noise(dataset, NoiseSpec("symmetric", 0.4), seed=0)


def test_parse_reads_kind_and_rate():
    assert NoiseSpec.parse("pairflip:0.45") == NoiseSpec("pairflip", 0.45)
    assert str(NoiseSpec.parse("symmetric:0.4")) == "symmetric:0.4"
    assert NoiseSpec.parse("none") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uniform:0.4", "noise kind must be .* got 'uniform'"),
        ("symmetric:1.5", "noise rate must lie in 0..1, got 1.5"),
        ("symmetric:-0.1", "noise rate must lie in 0..1"),
        ("symmetric:nan", "noise rate must lie in 0..1"),
        ("symmetric", "KIND:RATE"),
        ("symmetric:lots", "KIND:RATE"),
    ],
)
def test_parse_refuses_bad_noise(text, message):
    with pytest.raises(ConfigError, match=message):
        NoiseSpec.parse(text)


@pytest.mark.parametrize(
    ("kind", "rate", "message"),
    [
        ("symetric", 0.4, "noise kind must be none or one of symmetric, pairflip, instance, got 'symetric'"),
        ("symmetric", 40, r"noise rate must lie in 0\.\.1, got 40"),
        ("pairflip", math.nan, r"noise rate must lie in 0\.\.1, got nan"),
        ("instance", "0.4", r"noise rate must lie in 0\.\.1, got '0.4'"),
    ],
)
def test_noise_of_another_kind_or_rate_is_refused(kind, rate, message):
    with pytest.raises(ConfigError, match=message):
        NoiseSpec(kind, rate)
