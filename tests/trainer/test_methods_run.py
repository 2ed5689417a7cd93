"""``proto-train --method M`` runs to the end on digits for every method, with what is known about single labels."""

from __future__ import annotations

import pandas as pd
import pytest
from proto_trainer import NoiseSpec, add_noise, cli, load_dataset
from proto_trainer.checkpoint import load_checkpoint
from proto_trainer.config import OPTION_METHODS, SELECTORS, VERIFIED_METHODS
from proto_trainer.methods import METHODS, cleannet_net
from proto_trainer.seeding import derive_seed

IMAGES, EPOCHS = 400, 4
RUNS = [
    *(method for method in METHODS if method not in VERIFIED_METHODS),
    *(f"smp --selector {selector}" for selector in SELECTORS[1:]),
    "ce --clean C", "joint --clean C", "mlnt --clean C", "smp --verified V",
    *(f"{method} --verified V --clean C" for method in OPTION_METHODS["verified"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Verdicts on half of the images, and the right labels of a quarter, from somebody who knows."""
    folder = tmp_path_factory.mktemp("labels")
    seed = derive_seed(0, "noise")
    train_set = add_noise(load_dataset("digits", images=IMAGES).train, NoiseSpec("symmetric", 0.4), seed)
    right = (train_set.given == train_set.truth).long().tolist()
    verdicts = [f"{i},{right[i]}" for i in range(0, IMAGES, 2)]
    labels = [f"{i},{train_set.truth[i]}" for i in range(0, IMAGES, 4)]
    (folder / "V").write_text("\n".join(["index,correct", *verdicts]) + "\n")
    (folder / "C").write_text("\n".join(["index,label", *labels]) + "\n")
    return folder


@pytest.mark.parametrize("run", RUNS)
def test_method_runs_to_the_end(tmp_path, files, monkeypatch, run):
    monkeypatch.setattr(cleannet_net, "_STEPS", 20)
    options = [str(files / word) if word in ("V", "C") else word for word in run.split()]
    command = f"--data digits --images {IMAGES} --noise symmetric:0.4 --batch-size 32 --lr 0.05 --device cpu"
    command += f" --epochs {EPOCHS} --start-epoch 1 --out {tmp_path / 'run'} --method"
    assert cli.main([*command.split(), *options]) == 0
    rows = pd.read_csv(tmp_path / "run/epochs.csv")
    assert rows["epoch"].tolist() == list(range(EPOCHS + ("--clean" in run)))
    assert rows["test_accuracy"].iloc[-1] > 0.3 and rows["loss"].notna().all()  # by guessing: 0.1
    assert rows["extract_seconds"].notna().sum() == (EPOCHS - 1 if run.startswith("smp") else 0)
    suggested = pd.read_parquet(tmp_path / "run/corrected.parquet")
    assert suggested["index"].tolist() == list(range(IMAGES)) and suggested["suggested_label"].between(0, 9).all()
    assert load_checkpoint(tmp_path / "run/checkpoints").facts["epoch"] == len(rows) - 1


def test_every_method_is_run():
    """A method or selector that is added must be run here."""
    assert {run.split()[0] for run in RUNS} == set(METHODS)
    assert {run.split()[2] for run in RUNS if "--selector" in run} == set(SELECTORS[1:])
