"""Checkpoints: whole at every moment, refused when they do not fit, without pickle."""

from __future__ import annotations

import contextlib
import json

import pytest
import torch
from proto_trainer import CheckpointError
from proto_trainer.checkpoint import (
    Checkpoint,
    check_same_run,
    load_checkpoint,
    pack_optimizer,
    save_checkpoint,
    unpack_optimizer,
)

import proto_engine as pe


def checkpoint_of(epoch: int) -> Checkpoint:
    tensors = {"weights": torch.full((3, 2), float(epoch)), "labels": torch.arange(4) + epoch}
    return Checkpoint(tensors, {"rows": [{"epoch": epoch, "loss": 0.1}]})


def save(folder, epoch, *, is_best=False):
    save_checkpoint(folder, checkpoint_of(epoch), epoch=epoch, is_best=is_best)


def epoch_of(folder, which="last") -> int:
    checkpoint = load_checkpoint(folder, which)
    epoch = checkpoint.facts["epoch"]
    expected = checkpoint_of(epoch)
    assert checkpoint.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in expected.tensors.items())
    assert checkpoint.facts["rows"] == expected.facts["rows"]
    return epoch


def tensor_file(folder, which="last"):
    return folder / json.loads((folder / f"{which}.json").read_bytes())["tensors"]["file"]


def test_checkpoint_best_and_last_come_back(tmp_path):
    assert load_checkpoint(tmp_path) is None
    for epoch in range(4):
        save(tmp_path, epoch, is_best=epoch == 1)
    assert (epoch_of(tmp_path, "best"), epoch_of(tmp_path, "last")) == (1, 3)
    best, last = tensor_file(tmp_path, "best"), tensor_file(tmp_path)
    assert best.name.startswith("epoch-0001-") and last.name.startswith("epoch-0003-")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.json", best.name, last.name, "last.json"]


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("writes_before", [0, 1, 2])
@pytest.mark.parametrize("late", [False, True], ids=["before-the-rename", "after-the-rename"])
def test_checkpoint_survives_a_kill_between_any_two_writes(tmp_path, monkeypatch, writes_before, late):
    """Saving writes three files (tensors, best, last); whichever is the last one written, both pointers load."""
    save(tmp_path, 0, is_best=True)
    save(tmp_path, 1)
    real, done = pe.atomic_write, []

    @contextlib.contextmanager
    def dying(path, mode="wb"):
        if len(done) == writes_before and not late:
            raise Killed
        with real(path, mode) as file:
            yield file
        done.append(path)
        if len(done) == writes_before + 1 and late:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(pe, "atomic_write", dying)
        save(tmp_path, 2, is_best=True)
    assert epoch_of(tmp_path, "last") in (1, 2)
    assert epoch_of(tmp_path, "best") in (0, 2)
    save(tmp_path, 2, is_best=True)  # and the run that takes over can save
    assert (epoch_of(tmp_path, "last"), epoch_of(tmp_path, "best")) == (2, 2)
    assert len(list(tmp_path.iterdir())) == 3


def test_epoch_repeated_with_other_bits_leaves_the_best_one_whole(tmp_path, monkeypatch):
    """A kill between best and last; what takes over is at no moment without a best one, though it never beats it."""
    save(tmp_path, 0, is_best=True)
    real = pe.atomic_write

    @contextlib.contextmanager
    def dying(path, mode="wb"):
        if path.name == "last.json":
            raise Killed
        with real(path, mode) as file:
            yield file

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(pe, "atomic_write", dying)
        save(tmp_path, 1, is_best=True)
    other = Checkpoint({"weights": torch.zeros(1)}, {})
    save_checkpoint(tmp_path, other, epoch=1, is_best=False)
    assert epoch_of(tmp_path, "best") == 1
    assert torch.equal(load_checkpoint(tmp_path).tensors["weights"], torch.zeros(1))
    assert len(list(tmp_path.iterdir())) == 4


def test_checkpoint_without_a_digest_in_its_name_loads_and_is_replaced(tmp_path):
    """As earlier versions wrote them."""
    save(tmp_path, 3, is_best=True)
    old = tensor_file(tmp_path).rename(tmp_path / "epoch-0003.safetensors")
    for which in ("best", "last"):
        facts = json.loads((tmp_path / f"{which}.json").read_bytes())
        facts["tensors"]["file"] = old.name
        (tmp_path / f"{which}.json").write_text(json.dumps(facts))
    assert (epoch_of(tmp_path, "best"), epoch_of(tmp_path)) == (3, 3)
    save(tmp_path, 4)
    assert (epoch_of(tmp_path, "best"), epoch_of(tmp_path)) == (3, 4)
    save(tmp_path, 5, is_best=True)
    assert not old.exists() and len(list(tmp_path.iterdir())) == 3


def test_checkpoint_on_a_full_disk_leaves_the_old_one(tmp_path, monkeypatch):
    save(tmp_path, 0, is_best=True)

    @contextlib.contextmanager
    def full(path, mode="wb"):
        raise OSError(28, "No space left on device")
        yield

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(pe, "atomic_write", full)
        save(tmp_path, 1)
    assert epoch_of(tmp_path) == 0


def edit(folder, **changes):
    path = folder / "last.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: edit(folder, format=2), "must have format 1, got 2"),
        (lambda folder: (folder / "last.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "last.json").write_text("[]"), "must hold a JSON object, got list"),
        (lambda folder: tensor_file(folder).unlink(), "points to epoch-0005-.*.safetensors, which is missing"),
        (lambda folder: tensor_file(folder).write_bytes(b"x" * 50), "is damaged"),
        (lambda folder: edit(folder, tensors={"file": "../x", "sha256": ""}), "must name a file beside it"),
        (lambda folder: edit(folder, tensors=None), "must name a file beside it"),
    ],
)
def test_checkpoint_refuses_damaged_files(tmp_path, spoil, message):
    save(tmp_path, 5)
    spoil(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path)


def test_check_same_run_names_every_difference():
    check_same_run({"method": "smp", "num_classes": 10}, {"method": "smp", "num_classes": 10})
    with pytest.raises(CheckpointError, match=r"method 'smp' \(this run: 'ce'\), num_classes 10 \(this run: 7\)"):
        check_same_run({"method": "smp", "num_classes": 10}, {"method": "ce", "num_classes": 7})


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_optimizer_state_survives_packing(kind):
    """One step before, one after: the same weights as two steps in a row."""

    def weights():
        torch.manual_seed(0)
        return [torch.randn(3, 2).requires_grad_(), torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)]

    def step(parameters, optimizer):
        for parameter in parameters:
            parameter.grad = parameter.detach() ** 2
        optimizer.step()

    settings = {"lr": 0.1, **({"momentum": 0.9} if kind is torch.optim.SGD else {})}
    straight = weights()
    optimizer = kind(straight, **settings)
    step(straight, optimizer)
    tensors, groups = pack_optimizer(optimizer)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    groups = json.loads(json.dumps(groups))
    resumed = [parameter.detach().clone().requires_grad_() for parameter in straight]
    other = kind(resumed, **settings)
    unpack_optimizer(other, tensors, groups)
    step(straight, optimizer)
    step(resumed, other)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))
