"""An interrupted and resumed run ends with the same bits as an undisturbed one; killed ones: `test_killed_runs`."""

from __future__ import annotations

import copy
import importlib
import json
import os
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch
from proto_trainer import CheckpointError, ConfigError, NoiseSpec, train
from proto_trainer.checkpoint import load_checkpoint
from proto_trainer.data import TensorImages
from proto_trainer.epoch_log import COLUMNS
from proto_trainer.methods import build_method
from proto_trainer.run import Run, restore

TIMELESS = [name for name in COLUMNS if not name.endswith("_seconds")]


class Interrupted(Exception):
    """Raised by the test after an epoch."""


def stop_after(epoch):
    def on_epoch(row):
        if row["epoch"] == epoch:
            raise Interrupted

    return on_epoch


def last_tensors(out: Path) -> dict[str, torch.Tensor]:
    facts = json.loads((out / "checkpoints" / "last.json").read_bytes())
    return safetensors.torch.load_file(out / "checkpoints" / facts["tensors"]["file"])


def assert_same_outcome(out: Path, other: Path) -> None:
    tensors, others = last_tensors(out), last_tensors(other)
    assert tensors.keys() == others.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], others[name])] == []
    rows, other_rows = (pd.read_csv(path / "epochs.csv") for path in (out, other))
    pd.testing.assert_frame_equal(rows[TIMELESS], other_rows[TIMELESS], check_exact=True)
    suggested, other_suggested = (pd.read_parquet(path / "corrected.parquet") for path in (out, other))
    pd.testing.assert_frame_equal(suggested, other_suggested, check_exact=True)


@pytest.mark.parametrize(("method", "stops"), [("ce", [1]), ("smp", [0]), ("smp", [1, 2])])
def test_resumed_run_equals_the_undisturbed_one(digits_config, tmp_path, method, stops):
    """Stops before and after the first correction (epoch 1), once and twice."""
    settings = {"method": method, "noise": NoiseSpec("symmetric", 0.4)}
    train(digits_config(out=tmp_path / "straight", **settings))
    config = digits_config(out=tmp_path / "broken", **settings)
    for stop in stops:
        with pytest.raises(Interrupted):
            train(config, resume=stop != stops[0], on_epoch=stop_after(stop))
    train(config, resume=True)
    assert_same_outcome(tmp_path / "straight", tmp_path / "broken")


def test_resumed_run_continues_the_random_state(digits_config, tmp_path, monkeypatch):
    """What draws from torch's global generator (dropout, say) needs its state back."""

    def shaken(images, draws):
        return images + 0.1 * torch.randn_like(images)

    original = TensorImages.with_noise

    def with_augmentation(self, noisy):
        other = original(self, noisy)
        other.augment = shaken
        return other

    monkeypatch.setattr(TensorImages, "with_noise", with_augmentation)
    settings = {"noise": NoiseSpec("pairflip", 0.2), "epochs": 3}
    train(digits_config(out=tmp_path / "straight", **settings))
    config = digits_config(out=tmp_path / "broken", **settings)
    with pytest.raises(Interrupted):
        train(config, on_epoch=stop_after(1))
    train(config, resume=True)
    assert_same_outcome(tmp_path / "straight", tmp_path / "broken")


def test_resume_without_a_checkpoint_starts_at_the_beginning(digits_config, tmp_path):
    train(digits_config(out=tmp_path / "straight", epochs=2))
    train(digits_config(out=tmp_path / "resumed", epochs=2), resume=True)
    assert_same_outcome(tmp_path / "straight", tmp_path / "resumed")


def test_resume_of_a_finished_run_changes_nothing(digits_config, tmp_path):
    config = digits_config(method="ce", epochs=2)
    train(config)
    before = (config.out / "epochs.csv").read_bytes()
    (config.out / "corrected.parquet").unlink()
    result = train(config, resume=True)
    assert len(result.rows) == 2
    assert (config.out / "epochs.csv").read_bytes() == before
    assert len(pd.read_parquet(config.out / "corrected.parquet")) == 1347  # written again, had it been lost


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "ce"}, r"method 'smp' \(this run: 'ce'\)"),
        ({"noise": NoiseSpec("symmetric", 0.2)}, r"noise 'none' \(this run: 'symmetric:0.2'\)"),
        ({"lr": 0.5}, r"lr 0\.\d+ \(this run: 0.5\)"),
        ({"epochs": 9}, r"epochs 2 \(this run: 9\)"),
    ],
)
def test_resume_refuses_the_checkpoint_of_another_run(digits_config, changes, message):
    train(digits_config(epochs=2))
    with pytest.raises(CheckpointError, match=message):
        train(digits_config(**{"epochs": 2, **changes}), resume=True)


def test_resume_refuses_another_data_set(digits_config, monkeypatch):
    """The same name, but other labels or another number of classes: corrected labels would land on other images."""
    train(digits_config(epochs=2))

    def other_digits(*args, **kwargs):
        splits = load_dataset(*args, **kwargs)
        splits.train.given = (splits.train.given + 1) % 10
        splits.train.class_names = splits.train.class_names[:9] if fewer else splits.train.class_names
        return splits

    loop = importlib.import_module("proto_trainer.train")  # the package's `train` is the function
    load_dataset = loop.load_dataset
    monkeypatch.setattr(loop, "load_dataset", other_digits)
    fewer = False
    with pytest.raises(CheckpointError, match="given_labels_sha256"):
        train(digits_config(epochs=2), resume=True)
    fewer = True
    with pytest.raises(CheckpointError, match=r"num_classes 10 \(this run: 9\)"):
        train(digits_config(epochs=2), resume=True)


def test_existing_run_is_not_overwritten(digits_config):
    config = digits_config(epochs=2)
    train(config)
    before = (config.out / "epochs.csv").read_bytes()
    with pytest.raises(ConfigError, match="already holds a run; give --resume"):
        train(config)
    assert (config.out / "epochs.csv").read_bytes() == before


def test_second_run_into_the_same_folder_is_refused_until_the_first_has_ended(digits_config, tmp_path):
    """Whatever way the first ends: two runs would overwrite each other's checkpoints, file by file."""
    config = digits_config(epochs=3)
    refused = []

    def contend(row):
        with pytest.raises(ConfigError, match="another run is writing to"):  # in the same process
            train(digits_config(epochs=3), resume=True)
        child = os.fork()
        if child == 0:
            try:
                train(digits_config(epochs=3), resume=True)
            except ConfigError as error:
                os._exit(7 if "another run is writing to" in f"{error}" else 8)
            except BaseException:
                os._exit(10)
            os._exit(9)
        refused.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        if row["epoch"] == 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(config, on_epoch=contend)
    assert refused == [7, 7]
    train(config, resume=True)
    train(digits_config(epochs=3, out=tmp_path / "straight"))
    assert_same_outcome(tmp_path / "straight", config.out)


def test_checkpoint_gives_the_corrected_labels_back(digits_config):
    config = digits_config(epochs=2)
    result = train(config)
    suggested = pd.read_parquet(config.out / "corrected.parquet")["suggested_label"].to_numpy()
    model, method = copy.deepcopy(result.model), build_method(config, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = Run(config, result.train_set, result.train_set, model, method, optimizer, torch.device("cpu"))
    with torch.random.fork_rng(devices=[]):
        rows = restore(run, load_checkpoint(config.out / "checkpoints"))
    assert rows == result.rows
    assert (method.training_labels(result.train_set).numpy() == suggested).all()
    index = torch.tensor([3, 1000])
    assert (method.corrector.targets(index).numpy() == suggested[index]).all()
    assert (suggested != result.train_set.given.numpy()).any()
