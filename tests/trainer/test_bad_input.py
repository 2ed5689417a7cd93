"""What goes wrong around a run: a full disk, a class that nobody has, a checkpoint of something else."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from proto_trainer import (
    CheckpointError,
    ConfigError,
    NoiseSpec,
    TrainingDiverged,
    cli,
    load_dataset,
    make_config,
    train,
)
from proto_trainer.checkpoint import check_same_run, load_checkpoint
from proto_trainer.methods import METHODS, VerifiedLabels, cleannet_net
from test_resume import TIMELESS, assert_same_outcome

import proto_engine as pe

VERIFIED = VerifiedLabels(torch.arange(60) % 3 != 0, rows=torch.arange(60), truth=torch.full((60,), -1))
QUICK = "--data digits --images 120 --noise symmetric:0.4 --seed 3 --batch-size 40 --device cpu --epochs 3"


@pytest.mark.parametrize("ending", [".safetensors", "last.json", "epochs.csv", "corrected.parquet"])
def test_full_disk_stops_the_run_and_loses_one_epoch_at_most(tmp_path, monkeypatch, capsys, ending):
    """The disk is full from epoch 1 on, which begins with a correction; with room again the run goes on."""
    command = [*QUICK.split(), "--start-epoch", "1", "--out"]
    assert cli.main([*command, str(tmp_path / "straight")]) == 0
    out = tmp_path / "run"
    real = pe.atomic_write

    @contextlib.contextmanager
    def full(path, mode="wb"):
        with real(path, mode) as file:
            if str(path).endswith(ending) and (out / "checkpoints" / "last.json").exists():
                file.write(b"a part of it")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield file

    with monkeypatch.context() as patch:
        patch.setattr(pe, "atomic_write", full)
        status = cli.main([*command, str(out)])
    told = capsys.readouterr().err
    assert status == 1 and "proto-train: stopped: [Errno 28] No space left on device" in told
    saved = load_checkpoint(out / "checkpoints").facts
    rows = pd.read_csv(out / "epochs.csv")
    assert 0 <= saved["epoch"] <= 2 and len(rows) - 1 in (saved["epoch"], saved["epoch"] + 1)
    pd.testing.assert_frame_equal(rows[TIMELESS], pd.read_csv(tmp_path / "straight/epochs.csv")[TIMELESS][: len(rows)])
    assert not list(out.rglob("*.tmp"))
    assert cli.main([*command, str(out), "--resume"]) == 0
    assert_same_outcome(tmp_path / "straight", out)


@pytest.fixture
def without_threes(monkeypatch):
    """Digits of which nobody has called any a three."""
    loop = importlib.import_module("proto_trainer.train")  # the package's `train` is the function

    def renamed(*args, **settings):
        splits = load_dataset(*args, **settings)
        splits.train.given[splits.train.given == 3] = 5
        return splits

    monkeypatch.setattr(loop, "load_dataset", renamed)
    monkeypatch.setattr(loop, "find_verified", lambda config, *_: VERIFIED if "cleannet" in config.method else None)
    monkeypatch.setattr(cleannet_net, "_STEPS", 20)


@pytest.mark.parametrize("method", METHODS)
def test_class_that_vanished_does_no_harm(digits_config, without_threes, method):
    """Every method gets to the end; a class without prototypes is suggested for nothing."""
    config = digits_config(method=method, images=300, epochs=4, start_epoch=1, batch_size=30, lr=0.05)
    result = train(config)
    assert all(np.isfinite(row["loss"]) for row in result.rows) and result.rows[-1]["test_accuracy"] > 0.2
    suggested = pd.read_parquet(config.out / "corrected.parquet")
    assert suggested["score"].notna().all() and (suggested["given_label"] != 3).all()
    if method == "smp":
        assert (suggested["suggested_label"] != 3).all() and suggested["changed"].any()


@pytest.mark.parametrize(
    ("options", "clean", "message"),
    [
        ("--images 81", 0, "got 40 for 81 training images"),
        ("--images 80", 41, "got 40 for 41 clean images"),
        ("--images 80 --batch-size 1", 0, "got 1 for 80 training images"),
    ],
)
def test_batch_that_cannot_be_normalized_is_found_before_training(tmp_path, capsys, options, clean, message):
    """A ResNet makes one pixel of a small image; the batch of one may come after all epochs of the method."""
    command = [*QUICK.split(), "--model", "resnet18", *options.split(), "--out", str(tmp_path / "run")]
    if clean:
        (tmp_path / "clean.csv").write_text("index,label\n" + "".join(f"{i},{i % 10}\n" for i in range(clean)))
        command += ["--clean", str(tmp_path / "clean.csv")]
    assert cli.main(command) == 2
    told = capsys.readouterr().err
    assert "batch_size must not leave a batch of one image with resnet18" in told and message in told
    assert not (tmp_path / "run").exists()


@pytest.fixture
def folder(tmp_path):
    """Twelve training images a class, whose names sort as they are numbered."""
    for split, count in (("train", 12), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                color = (20 * i, 255 * (name == "dog"), 7 * i)
                Image.new("RGB", (20, 20), color).save(tmp_path / "data" / split / name / f"{i:02d}.png")
    return tmp_path / "data"


FOLDER = "--data imagefolder --epochs 2 --start-epoch 0 --image-size 16 --model small-cnn --workers 0 --device cpu"


def test_run_goes_on_with_the_same_files_wherever_they_are(tmp_path, capsys, folder, monkeypatch):
    """Another order within a class has the same labels, but corrected ones would fall on other images."""
    command = [*FOLDER.split(), "--out", str(tmp_path / "run"), "--resume", "--root"]
    assert cli.main([*command, str(folder)]) == 0
    moved = folder.rename(tmp_path / "moved")
    assert cli.main([*command, str(moved)]) == 0
    for place, root in ((moved, "."), (tmp_path, "moved"), (moved / "train", "..")):
        monkeypatch.chdir(place)
        assert cli.main([*command, root]) == 0
    (moved / "train" / "cat" / "00.png").rename(moved / "train" / "cat" / "99.png")
    assert cli.main([*command, str(moved)]) == 2
    assert "the checkpoint belongs to another run: it has files_sha256" in capsys.readouterr().err


def test_file_whose_name_is_not_utf8_is_left_out(tmp_path, caplog, folder):
    cat = os.fsencode(folder / "train" / "cat")
    try:
        os.rename(cat + b"/03.png", cat + b"/caf\xe9.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert cli.main([*FOLDER.split(), "--root", str(folder), "--out", str(tmp_path / "run")]) == 0
    assert "1 of 24 images cannot be decoded and are left out" in caplog.text and "not UTF-8" in caplog.text
    assert len(pd.read_parquet(tmp_path / "run" / "corrected.parquet")) == 23


@pytest.mark.parametrize("workers", ["0", "1"])
def test_image_that_is_damaged_during_the_run_is_named(tmp_path, monkeypatch, capsys, folder, workers):
    victim = folder / "train" / "dog" / "05.png"
    monkeypatch.setattr(cli, "_print_row", lambda row: victim.write_bytes(victim.read_bytes()[:40]))
    command = [*FOLDER.split(), "--root", str(folder), "--out", str(tmp_path / "run"), "--workers", workers]
    assert cli.main(command) == 1
    assert f"image cannot be decoded any more: {victim} (" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "run" / "checkpoints").facts["epoch"] == 0


@pytest.mark.parametrize("empty", ["train", "test"])
def test_empty_data_set_is_refused_before_training(tmp_path, monkeypatch, capsys, empty):
    splits = load_dataset("digits")
    splits = replace(splits, **{empty: getattr(splits, empty).subset(torch.arange(0))})
    monkeypatch.setattr(importlib.import_module("proto_trainer.train"), "load_dataset", lambda *_, **__: splits)
    assert cli.main(["--data", "digits", "--device", "cpu", "--out", str(tmp_path / "run")]) == 2
    assert "data must have images to train and test on, got " in capsys.readouterr().err


def test_one_class_is_refused_before_training(tmp_path, capsys):
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / split / "cat" / "0.png")
    command = f"--data imagefolder --root {tmp_path} --method ce --epochs 1 --image-size 16 --workers 0 --device cpu"
    assert cli.main([*command.split(), "--out", str(tmp_path / "run")]) == 2
    assert "data must have at least 2 classes, got 1: cat" in capsys.readouterr().err


def test_nan_while_fine_tuning_keeps_the_last_good_checkpoint(digits_config, tmp_path):
    """A learning rate that ruins the network; what the method trained before stays."""
    clean = tmp_path / "clean.csv"
    clean.write_text("index,label\n" + "".join(f"{i},{i % 10}\n" for i in range(60)))
    settings = {"method": "ce", "images": 100, "epochs": 1, "start_epoch": 0, "batch_size": 20, "clean": clean}
    config = digits_config(**settings)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrainingDiverged, match="in epoch 1"):
        patch.setattr("proto_trainer.methods.clean.tenth_each_third", lambda *_: 1e30)
        train(config)
    checkpoint = load_checkpoint(config.out / "checkpoints")
    assert checkpoint.facts["epoch"] == 0
    assert all(torch.isfinite(t).all() for name, t in checkpoint.tensors.items() if name.startswith("model/"))
    assert len(train(config, resume=True).rows) == 2  # with the right rate it goes on


def test_checkpoint_of_another_data_set_or_supervision_is_refused(tmp_path):
    """By name, even if the counts of images and classes agree."""
    own, other = (
        make_config(data, tmp_path, noise=NoiseSpec("symmetric", 0.2)).identity() for data in ("digits", "cifar10n")
    )
    with pytest.raises(CheckpointError, match=r"data 'digits' \(this run: 'cifar10n'\)"):
        check_same_run(own, other)
    with pytest.raises(CheckpointError, match=r"verified_sha256 'ab' \(this run: None\)"):
        check_same_run({**own, "verified_sha256": "ab"}, own)


def test_numbers_of_numpy_in_a_config_become_pythons(tmp_path):
    config = replace(make_config("digits", tmp_path), seed=np.int64(3), lr=np.float32(0.5), alpha=np.float64(0.25))
    identity = json.loads(json.dumps(config.identity()))
    assert (identity["seed"], identity["lr"], identity["alpha"]) == (3, 0.5, 0.25)
    with pytest.raises(ConfigError, match="epochs must be a whole number, got True"):
        replace(config, epochs=True)
