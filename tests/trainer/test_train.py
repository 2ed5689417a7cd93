"""The loop: what it writes, what the two methods share, how it stops."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from proto_trainer import ConfigError, NoiseSpec, TrainingDiverged, accuracy, make_config, noise_matrix, train
from proto_trainer.checkpoint import load_checkpoint
from proto_trainer.epoch_log import COLUMNS
from proto_trainer.methods import CrossEntropy

FRAME_COLUMNS = ["index", "given_label", "suggested_label", "score", "margin", "changed"]


def test_smp_run_writes_everything_and_corrects_labels(digits_config):
    config = digits_config(noise=NoiseSpec("symmetric", 0.4), epochs=8, start_epoch=4)
    result = train(config)
    rows = pd.read_csv(config.out / "epochs.csv")
    assert list(rows.columns) == list(COLUMNS) and rows["epoch"].tolist() == list(range(8))
    given_accuracy = (result.train_set.given == result.train_set.truth).double().mean().item()
    assert rows["label_accuracy"][:4].tolist() == pytest.approx([given_accuracy] * 4)
    assert rows["label_accuracy"].iloc[-1] > given_accuracy + 0.15
    assert (rows["label_changed"][:4] == 0).all() and (rows["label_changed"][4:] > 0.2).all()
    assert rows[["extract_seconds", "select_seconds", "score_seconds"]].isna().sum().tolist() == [4, 4, 4]
    frame = pd.read_parquet(config.out / "corrected.parquet")
    assert list(frame.columns) == FRAME_COLUMNS and len(frame) == 1347
    assert frame["given_label"].tolist() == result.train_set.given.tolist()
    assert frame["changed"].mean() == pytest.approx(rows["label_changed"].iloc[-1])
    suggested = torch.tensor(frame["suggested_label"].to_list())
    right = (suggested == result.train_set.truth).double().mean().item()
    assert right == pytest.approx(rows["label_accuracy"].iloc[-1])


def test_run_writes_tensorboard_scalars(digits_config):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = digits_config(epochs=3, start_epoch=1, noise=NoiseSpec("pairflip", 0.3))
    result = train(config)
    events = EventAccumulator(str(config.out / "tensorboard")).Reload()
    for name in ("loss", "test_accuracy", "label_accuracy"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [0, 1, 2]
        assert [scalar.value for scalar in scalars] == pytest.approx([row[name] for row in result.rows])
    assert [scalar.step for scalar in events.Scalars("extract_seconds")] == [1, 2]


def test_ce_run_suggests_the_networks_predictions(digits_config):
    config = digits_config(method="ce", epochs=2)
    result = train(config)
    frame = pd.read_parquet(config.out / "corrected.parquet")
    assert list(frame.columns) == FRAME_COLUMNS
    agreeing = (frame["suggested_label"] == frame["given_label"]).mean()
    assert agreeing == pytest.approx(accuracy(result.model, result.train_set))
    assert frame["score"].between(0.1, 1).all() and frame["margin"].between(0, 1).all()
    assert [row["label_accuracy"] for row in result.rows] == [None, None]  # no noise was added: no truth is known


def test_methods_are_equal_until_the_first_correction(digits_config, tmp_path):
    settings = {"noise": NoiseSpec("symmetric", 0.4), "epochs": 4, "start_epoch": 2}
    ce = train(digits_config(method="ce", out=tmp_path / "ce", **settings))
    smp = train(digits_config(method="smp", out=tmp_path / "smp", **settings))
    assert torch.equal(ce.train_set.given, smp.train_set.given)
    assert [row["loss"] for row in ce.rows[:2]] == [row["loss"] for row in smp.rows[:2]]
    assert ce.rows[2]["loss"] != smp.rows[2]["loss"]


def test_seed_decides_the_outcome_and_leaves_the_callers_random_state(digits_config, tmp_path):
    before = torch.get_rng_state()
    losses = [
        train(digits_config(seed=seed, epochs=2, out=tmp_path / str(i))).rows[-1]["loss"]
        for i, seed in enumerate((1, 1, 2))
    ]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_best_checkpoint_is_the_first_with_the_highest_test_accuracy(digits_config):
    config = digits_config(epochs=4)
    accuracies = [row["test_accuracy"] for row in train(config).rows]
    best = load_checkpoint(config.out / "checkpoints", "best")
    assert best.facts["epoch"] == accuracies.index(max(accuracies))
    assert load_checkpoint(config.out / "checkpoints").facts["epoch"] == 3


def test_nan_loss_stops_and_keeps_the_last_good_checkpoint(digits_config, monkeypatch):
    calls = []

    def spoiled(self, model, images, given, index):
        calls.append(1)
        logits = model(images)
        bad = math.nan if len(calls) > 30 else 1.0  # in the second epoch of 22 batches
        return logits.square().mean() * bad, logits

    monkeypatch.setattr(CrossEntropy, "batch_loss", spoiled)
    config = digits_config(method="ce", epochs=3)
    with pytest.raises(TrainingDiverged, match="the loss is nan in epoch 1"):
        train(config)
    assert load_checkpoint(config.out / "checkpoints").facts["epoch"] == 0
    assert len(pd.read_csv(config.out / "epochs.csv")) == 1
    assert len(calls) == 31


def test_ruined_weights_are_noticed_before_they_are_saved(digits_config, monkeypatch):
    """The gradient of the very last step is infinite; no loss shows it."""
    calls = []

    def spoiled(self, model, images, given, index):
        calls.append(1)
        logits = model(images)
        loss = logits.square().mean()
        if len(calls) == 22:
            loss = loss + (logits.sum() * 0).sqrt()
        return loss, logits

    monkeypatch.setattr(CrossEntropy, "batch_loss", spoiled)
    config = digits_config(method="ce", epochs=2)
    with pytest.raises(TrainingDiverged, match="not finite after epoch 0"):
        train(config)
    assert load_checkpoint(config.out / "checkpoints") is None


def test_imagefolder_run_names_the_files(tmp_path):
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label, name in enumerate("ab"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(6):
                pixels = rng.integers(0, 120, size=(24, 24, 3), dtype=np.uint8) + label * 120
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / split / name / f"{i}.png")
    config = make_config(
        "imagefolder", tmp_path / "run", root=tmp_path / "data", model="small-cnn", image_size=16, epochs=2,
        start_epoch=1, workers=0, batch_size=4, noise=NoiseSpec("instance", 0.3), device="cpu",
    )  # fmt: skip
    train(config)
    frame = pd.read_parquet(config.out / "corrected.parquet")
    assert frame["path"].str.endswith("/a/0.png").tolist() == [True] + [False] * 11


def test_rows_can_be_read_back_as_json(digits_config):
    config = digits_config(epochs=2)
    rows = train(config).rows
    assert json.loads((config.out / "checkpoints" / "last.json").read_bytes())["rows"] == rows


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be 1 or more, got 0"),
        ({"epochs": 5, "start_epoch": 6}, r"start_epoch must be smaller than epochs \(5\).*got 6"),
        ({"start_epoch": -1}, "start_epoch must be 0 or more, got -1"),
        ({"seed": -3}, "seed must be 0 or more, got -3"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"samples_per_class": 0}, "samples_per_class must be 1 or more, or all, got 0"),
        ({"alpha": -0.1}, "alpha must lie in 0..1, got -0.1"),
        ({"lr": math.inf}, "lr must be a finite number, 0 or more, got inf"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number"),
        ({"weight_decay": "0"}, "weight_decay must be a finite number, 0 or more, got '0'"),
        ({"epochs": 2.0}, "epochs must be a whole number, got 2.0"),
        ({"images": 100.5}, "images must be a whole number, got 100.5"),
        ({"samples_per_class": "some"}, "samples_per_class must be 1 or more, or all, got 'some'"),
        ({"noise": "symmetric:0.4"}, "noise must be a NoiseSpec or None, got 'symmetric:0.4'"),
    ],
)
def test_config_refuses_bad_values(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_config("digits", "run", **settings)


def test_numbers_of_numpy_will_do(digits_config):
    """They go into the checkpoint, as JSON: the run failed after its first epoch."""
    config = digits_config(epochs=np.int64(1), start_epoch=0, images=100, seed=np.arange(4)[3], lr=np.float32(0.01))
    assert train(config).rows[0]["lr"] == pytest.approx(0.01)


def test_unknown_names_are_refused(digits_config):
    with pytest.raises(ConfigError, match=r"data must be one of digits, .* got 'cifar'"):
        make_config("cifar", "run")
    with pytest.raises(ConfigError, match=r"method must be one of ce, .*smp, got 'magic'"):
        train(digits_config(method="magic"))
    with pytest.raises(ConfigError, match="device must be auto or a device that torch can use, got 'abacus'"):
        train(digits_config(device="abacus"))


def test_config_takes_the_recipe_and_a_third_of_the_epochs():
    config = make_config("digits", "run", epochs=15, samples_per_class="all", lr=None)
    assert (config.start_epoch, config.samples_per_class, config.model) == (5, None, "small-cnn")
    assert [config.lr_at(epoch) / config.lr for epoch in (0, 4, 5, 10, 14)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])


def test_noise_matrix_rows_are_shares():
    import numpy as np

    matrix = noise_matrix(np.array([0, 0, 0, 0, 2]), np.array([0, 1, 1, 2, 2]), 3)
    np.testing.assert_allclose(matrix, [[0.25, 0.5, 0.25], [0, 0, 0], [0, 0, 1]])
