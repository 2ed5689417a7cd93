"""The examples run, and show what they promise."""

from __future__ import annotations

import importlib.util
import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from proto_trainer import cli, load_dataset
from proto_trainer.config import RECIPES
from torch.utils.data import DataLoader, TensorDataset

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def as_loud_as_before():
    """The demo keeps the trainer's remarks to itself, which the tests after it want to read."""
    logger = logging.getLogger("proto_trainer")
    level = logger.level
    yield
    logger.setLevel(level)


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_plain_loop_corrects_most_labels(capsys):
    assert load("plain_loop").main(epochs=9, start_epoch=5) > 0.85
    assert "label accuracy: given 0.593, corrected" in capsys.readouterr().out


def test_lightning_loop_corrects_most_labels(capsys):
    pytest.importorskip("lightning")
    assert load("lightning_loop").main(epochs=9, start_epoch=5) > 0.85
    assert "label accuracy: given 0.593, corrected" in capsys.readouterr().out


def test_huggingface_trainer_corrects_most_labels(capsys):
    pytest.importorskip("transformers")
    assert load("huggingface_trainer").main(epochs=4, start_epoch=3) > 0.85
    assert "label accuracy: given 0.593, corrected" in capsys.readouterr().out


def test_cleanlab_review_corrects_labels_and_writes_its_files(tmp_path, capsys):
    pytest.importorskip("cleanlab")
    before, after = load("cleanlab_review").main(tmp_path)
    assert before == pytest.approx(0.708, abs=1e-3) and after > 0.9
    assert f"label accuracy: given {before:.3f}, corrected {after:.3f}" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "verified.csv")) == 200
    assert pd.read_parquet(tmp_path / "corrected.parquet")["changed"].sum() > 300


def test_demo_prints_a_table_and_writes_its_files(tmp_path, capsys):
    demo = load("demo")
    options = ["--seeds", "2", "--epochs", "3", "--noise", "pairflip:0.3", "--out", str(tmp_path)]
    demo.main(options)
    printed = capsys.readouterr().out
    header = next(line for line in printed.splitlines() if line.split() == ["ce", "smp"])
    rows = printed[printed.index(header) :].splitlines()[1:5]
    assert [row.split("  ")[0] for row in rows] == [
        "test accuracy, last epoch", "test accuracy, best epoch", "label accuracy, as given",
        "label accuracy, as trained on",
    ]  # fmt: skip
    last = [pd.read_csv(tmp_path / "runs" / f"smp-seed{seed}" / "epochs.csv").iloc[-1] for seed in (0, 1)]
    mean = (last[0]["test_accuracy"] + last[1]["test_accuracy"]) / 2
    assert rows[0].split()[-3] == f"{mean:.3f}"
    with Image.open(tmp_path / "demo.png") as image:
        assert image.size[0] > 1200 and image.size[1] > 400
    assert len(pd.read_parquet(tmp_path / "corrected.parquet")) == 1347
    demo.main([*options, "--seeds", "1"])  # a second demo in the same place replaces the first
    assert not (tmp_path / "runs" / "ce-seed1").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "0"], "--seeds must be 1 or more, got 0"),
        (["--noise", "uniform:0.4"], "noise kind must be none or one of symmetric, pairflip, instance"),
        (["--noise", "none"], "without noise there is no truth"),
        (["--data", "fashion-mnist", "--root", "."], "root must hold the four Fashion-MNIST files"),
    ],
)
def test_demo_refuses_bad_arguments_in_one_line(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        load("demo").main([*options, "--out", str(tmp_path)])
    assert message in capsys.readouterr().err


GUIDE = (EXAMPLES.parent / "docs" / "training.md").read_text()


def test_guide_code_runs(tmp_path, monkeypatch, capsys):
    """Training from Python, then reading the weights of its checkpoint."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    names: dict = {}
    for block in blocks:
        if "make_config" in block or "load_file" in block:
            exec(block.replace("seed=1)", "seed=1, epochs=3)"), names)
    assert len(capsys.readouterr().out.splitlines()) == 3
    names["result"].model.load_state_dict(names["weights"])


def blocks_of(guide: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (EXAMPLES.parent / "docs" / guide).read_text(), flags=re.DOTALL)


def test_lightning_guide_code_runs(tmp_path, monkeypatch):
    pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)
    images, labels, _ = load_dataset("digits").train[list(range(300))]
    dataset = TensorDataset(images, labels, torch.arange(300))
    names = {"network": load("plain_loop").Net(), "loader": DataLoader(dataset, batch_size=50, shuffle=True)}
    exec(blocks_of("integrations.md")[0].replace("=15", "=2").replace("epoch=5", "epoch=1"), names)
    assert names["corrector"].corrections.given.tolist() == labels.tolist()


def test_huggingface_guide_code_runs(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    images, labels, _ = load_dataset("digits").train[list(range(300))]
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", num_labels=10
    )
    names = {
        "model": transformers.ResNetForImageClassification(config),
        "dataset": [{"pixel_values": image, "labels": label} for image, label in zip(images, labels, strict=True)],
    }
    exec(blocks_of("integrations.md")[1].replace("=15", "=2").replace("epoch=5", "epoch=1"), names)
    assert names["trainer"].corrector.targets(torch.arange(300)).shape == (300,)


def test_cleanlab_guide_code_runs(tmp_path, monkeypatch):
    pytest.importorskip("cleanlab")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    truth = np.arange(1000) % 5
    features = (rng.standard_normal((1000, 16)) + 3 * np.eye(5, 16)[truth]).astype(np.float32)
    labels = np.where(rng.random(1000) < 0.3, (truth + 1) % 5, truth)
    names = {"features": features, "labels": labels, "verdicts": np.arange(100) % 2 == 0}
    exec(blocks_of("integrations.md")[2], names)
    assert (names["corrections"].labels == truth).mean() > 0.95
    assert len(pd.read_csv(tmp_path / "verified.csv")) == 100


def test_guide_names_every_option_and_the_recipes():
    options = {option for action in cli._parser()._actions for option in action.option_strings}
    assert {option for option in options - {"-h", "--help"} if f"`{option}" not in GUIDE} == set()
    for data, recipe in RECIPES.items():
        decay = f"{recipe['weight_decay']:.0e}".replace("e-0", "e-")
        cells = (f"`{data.partition(':')[0]}`", f"`{recipe['model']}`", recipe["epochs"], recipe["batch_size"])
        assert f"| {' | '.join(map(str, cells))} | {recipe['lr']} | {decay} |" in GUIDE
