"""Prototypes on disk: whole or not at all, foreign files refused."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import safetensors.numpy
import torch
from problems import clustered, select

import proto_engine as pe


@pytest.fixture
def prototypes():
    x, y = clustered(100, 6, 3)
    return select(x, y, num_classes=4)


def test_save_and_load_give_the_same_bits(prototypes, tmp_path):
    prototypes.save(tmp_path / "p.safetensors")
    back = pe.Prototypes.load(tmp_path / "p.safetensors")
    assert back.transform is None
    for field in fields(pe.Prototypes)[:-1]:
        got, want = getattr(back, field.name), getattr(prototypes, field.name)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    assert (back.num_classes, back.dim) == (4, 6)


def test_save_of_tensors(tmp_path):
    x, y = clustered(60, 5, 2)
    select(torch.from_numpy(x), y).save(tmp_path / "p.safetensors")
    np.testing.assert_array_equal(pe.Prototypes.load(tmp_path / "p.safetensors").indices, select(x, y).indices)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_load_refuses_a_truncated_file(prototypes, tmp_path, keep):
    path = tmp_path / "p.safetensors"
    prototypes.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"p\.safetensors' is not a complete safetensors file"):
        pe.Prototypes.load(path)


def test_load_refuses_foreign_files(prototypes, tmp_path):
    path = tmp_path / "p.safetensors"
    safetensors.numpy.save_file({"weight": np.ones(3)}, path)
    with pytest.raises(ValueError, match=r"wanted a file of format 'proto_engine.prototypes.1'"):
        pe.Prototypes.load(path)
    with pytest.raises(FileNotFoundError):
        pe.Prototypes.load(tmp_path / "missing.safetensors")
    for change, match in (
        ({"rho": prototypes.rho[:2]}, r"wanted rho of shape \[4, 8\], got \[2, 8\]"),
        ({"indices": prototypes.indices[:2]}, r"wanted indices of shape \[4, p\]"),
        ({"folded": prototypes.folded * np.nan}, "wanted finite folded vectors"),
        ({"folded": prototypes.folded * 2}, "wanted folded vectors of norm 1 at most, got 1."),
        ({"folded": prototypes.folded[0]}, r"wanted folded of shape \[C, D\]"),
    ):
        replace(prototypes, **change).save(path)
        with pytest.raises(ValueError, match=match):
            pe.Prototypes.load(path)


def test_failed_save_leaves_the_old_file(prototypes, tmp_path, monkeypatch):
    path = tmp_path / "p.safetensors"
    path.write_bytes(b"old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        prototypes.save(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["p.safetensors"]
