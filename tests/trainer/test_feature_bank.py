"""The feature bank of a correction phase: float16 rows of any scale, in memory or in a file, or no file at all."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import torch
from proto_trainer import LabelCorrector, extract_features
from proto_trainer.bank_writer import BankWriter
from proto_trainer.features import extract_bank, to_half
from torch import nn

import proto_engine as pe

SCALES = torch.tensor([[1.0], [3e4], [1e30], [1e38], [1e-8], [1e-30], [1e-35]])


def test_rows_of_any_scale_keep_their_direction():
    """float16 alone would turn most of these into zeros or infinities."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.rand(len(SCALES), 100, generator=generator) - 0.5  # [7, 100]
    half = to_half(direction * SCALES)
    assert half.dtype == torch.float16
    largest = half.abs().amax(dim=1)
    assert ((largest >= 0.5) & (largest <= 1)).all()
    cosine = nn.functional.cosine_similarity(half.double(), direction.double())
    assert (1 - cosine).max() < 2.0**-22  # half of the squared rounding error, 2**-11 a value at the most


def test_scaling_is_by_a_power_of_two():
    rows = torch.tensor([[3.0, -5.0, 0.0], [0.75, 0.5, -0.25]])
    assert to_half(rows).tolist() == [[0.375, -0.625, 0.0], [0.75, 0.5, -0.25]]


def test_rows_that_are_zero_or_not_finite_stay_so():
    half = to_half(torch.tensor([[0.0, 0.0], [float("inf"), 1.0], [float("nan"), 1.0], [-float("inf"), 2.0]]))
    assert torch.equal(half[0], torch.zeros(2, dtype=torch.float16))
    assert (~half[1:].isfinite()).any(dim=1).all()


def test_bank_has_the_rows_of_the_features(clusters):
    dataset, model = clusters
    bank, labels = extract_bank(model, dataset, batch_size=16)
    features, given = extract_features(model, dataset, batch_size=16)
    assert bank.dtype == np.float16 and bank.shape == (120, 64)
    np.testing.assert_array_equal(bank.array, to_half(torch.from_numpy(features)).numpy())
    np.testing.assert_array_equal(labels, given)


def test_euclidean_density_peaks_see_the_lengths_of_the_features(clusters, monkeypatch):
    dataset, model = clusters
    features, _ = extract_features(model, dataset)
    seen = {}
    select = pe.select_prototypes

    def recorded(bank, labels, **settings):
        seen[settings["method"]] = np.array(bank.array)
        return select(bank, labels, **settings)

    monkeypatch.setattr(pe, "select_prototypes", recorded)
    for selector in ("density-peaks-euclidean", "density-peaks"):
        LabelCorrector(num_classes=4, start_epoch=0, selector=selector).update(model, dataset, epoch=0)
    np.testing.assert_array_equal(seen["density-peaks-euclidean"], features)
    assert seen["density-peaks-euclidean"].dtype == np.float32 and seen["density-peaks"].dtype == np.float16


def test_large_bank_is_a_map_of_a_file_without_a_name(clusters, tmp_path):
    dataset, model = clusters
    inside, _ = extract_bank(model, dataset, batch_size=16, folder=tmp_path, memory_limit=120 * 64 * 2)
    outside, _ = extract_bank(model, dataset, batch_size=16, folder=tmp_path, memory_limit=120 * 64 * 2 - 1)
    assert not isinstance(inside.array, np.memmap)
    assert isinstance(outside.array, np.memmap) and outside.array.mode == "r"
    np.testing.assert_array_equal(outside.array, inside.array)
    assert list(tmp_path.iterdir()) == []


def test_correction_from_a_file_equals_the_one_in_memory(clusters, tmp_path):
    dataset, model = clusters
    labels = []
    for memory_limit in (2**30, 0):
        corrector = LabelCorrector(num_classes=4, start_epoch=0, memory_limit=memory_limit, folder=tmp_path)
        corrector.update(model, dataset, epoch=0)
        labels.append(corrector.targets(torch.arange(len(dataset))))
    assert torch.equal(*labels)


def test_full_disk_is_found_before_the_second_batch(clusters, tmp_path, monkeypatch):
    dataset, model = clusters
    seen = []

    def features(model, images):
        seen.append(len(images))
        return model.features(images)

    def no_room(descriptor, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    model.train()
    with pytest.raises(OSError, match=r"No space left.*the feature bank needs 0.0 GB in ") as caught:
        extract_bank(model, dataset, features=features, batch_size=16, folder=tmp_path, memory_limit=0)
    assert caught.value.errno == errno.ENOSPC and str(tmp_path) in str(caught.value)
    assert seen == [16]
    assert model.training and not torch.is_inference_mode_enabled()
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_is_named(clusters, tmp_path):
    dataset, model = clusters
    with pytest.raises(FileNotFoundError, match="nowhere"):
        extract_bank(model, dataset, folder=tmp_path / "nowhere", memory_limit=0)


def test_fewer_rows_than_promised_are_refused():
    with BankWriter(5, memory_limit=2**20, folder=None) as writer:
        writer.append(np.ones((4, 3), dtype=np.float16))
        with pytest.raises(ValueError, match="the 5 items of its length, got 4"):
            writer.bank()
