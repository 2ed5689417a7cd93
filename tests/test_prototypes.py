"""Prototypes on disk: whole or not at all, foreign files refused."""

from __future__ import annotations

import sys
from dataclasses import fields, replace

import fake_cupy
import numpy as np
import pytest
import safetensors.numpy
import torch
from problems import clustered, select

import proto_engine as pe
from proto_engine.class_names import load_with_names


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"counts": p.counts + 91}, "wanted counts from 0 to 8, got 91 to 99"),
        (lambda p: {"counts": p.counts - 1}, "wanted counts from 0 to 8, got -1 to "),
        (lambda p: {"counts": p.counts.astype(float)}, "wanted counts of whole numbers, got float64"),
        (lambda p: {"indices": p.indices.astype(float)}, "wanted indices of whole numbers, got float64"),
        (lambda p: {"indices": p.indices - 5}, "wanted indices of rows, or -1 for none, got -6"),
        (lambda p: {"rho": p.rho > 0}, "wanted rho of whole numbers, got bool"),
        (lambda p: {"vectors": p.vectors * np.float32(np.nan)}, "wanted unit vectors, got entries from nan to nan"),
        (lambda p: {"vectors": p.vectors * 3}, "wanted unit vectors, got entries from -2"),
        (lambda p: {"folded": np.zeros(p.folded.shape, np.int64)}, "wanted folded of floats, got int64"),
        (lambda p: {"eta": p.eta.astype(complex)}, "wanted eta of floats, got complex128"),
    ],
)
@pytest.mark.parametrize("tensors", [False, True])
def test_check_refuses_values_that_no_selection_gives(prototypes, change, message, tensors):
    changed = change(prototypes)
    if tensors:
        changed = {key: torch.from_numpy(array) for key, array in changed.items()}
        message = message.replace("got ", "got (torch.)?")
    with pytest.raises(ValueError, match=f"prototypes: {message}"):
        replace(prototypes, **changed).check()


def test_check_takes_prototypes_of_any_precision(prototypes):
    tensors = {field.name: torch.from_numpy(getattr(prototypes, field.name)) for field in fields(pe.Prototypes)[:-1]}
    replace(prototypes, **tensors).check()
    shorter = {"indices": torch.int32, "vectors": torch.bfloat16, "folded": torch.bfloat16, "eta": torch.float32}
    replace(prototypes, **{key: tensors[key].to(dtype) for key, dtype in shorter.items()}).check()


def test_check_leaves_arrays_on_a_gpu_there(prototypes, monkeypatch):
    cupy = fake_cupy.make()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    arrays = {
        key: cupy.ndarray(getattr(prototypes, key), device=1) for key in ("indices", "vectors", "folded", "counts")
    }
    brought = []
    get = cupy.ndarray.get
    monkeypatch.setattr(cupy.ndarray, "get", lambda array: brought.append(array.shape) or get(array))
    replace(prototypes, **arrays).check()
    assert brought == [(4,), (4, 6)]


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["a"], ValueError, "class_names: wanted 4 names, one a class, got 1"),
        ([1, 2, 3, 4], TypeError, "class_names: wanted strings, got int"),
        (["a", "b", "c", None], TypeError, "class_names: wanted strings, got NoneType"),
        (["a", "b", "a", "c"], ValueError, "class_names: wanted different names, got 'a' twice"),
    ],
)
def test_save_refuses_names_that_could_not_be_read_again(prototypes, tmp_path, names, error, message):
    with pytest.raises(error, match=message):
        prototypes.save(tmp_path / "p.safetensors", class_names=names)
    assert not list(tmp_path.iterdir())
    prototypes.save(tmp_path / "p.safetensors", class_names=np.array(["a", "b", "c", "d"]))
    assert load_with_names(tmp_path / "p.safetensors")[1] == ["a", "b", "c", "d"]


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


def test_load_refuses_tensors_of_types_that_numpy_has_not(tmp_path):
    path = tmp_path / "p.safetensors"
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file({"weight": torch.ones(3).to(torch.float8_e4m3fn)}, path)
    with pytest.raises(ValueError, match=r"prototypes: .*p\.safetensors'"):
        pe.Prototypes.load(path)
