"""``proto-train``: runs to the end, and says in one line what is wrong."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from proto_trainer import TrainingDiverged, cli

QUICK = ["--data", "digits", "--epochs", "2", "--device", "cpu"]


@pytest.mark.parametrize("method", ["--method ce", "--method smp --samples-per-class all"])
def test_command_runs_to_the_end(tmp_path, capsys, method):
    out = tmp_path / "run"
    options = [*method.split(), "--noise", "pairflip:0.3", "--start-epoch", "1"]
    assert cli.main([*QUICK, *options, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "epoch   1" in printed and "label accuracy" in printed and f"results in {out}" in printed
    assert len(pd.read_csv(out / "epochs.csv")) == 2
    assert len(pd.read_parquet(out / "corrected.parquet")) == 1347
    names = {path.name for path in (out / "checkpoints").iterdir()}
    assert {"best.json", "last.json"} <= names and any(name.startswith("epoch-0001-") for name in names)


def test_every_option_reaches_the_config(tmp_path):
    options = (
        "--method smp --noise instance:0.2 --images 900 --start-epoch 0 --seed 7 --model resnet18 --batch-size 16 "
        "--lr 0.3 "
        "--weight-decay 0.01 --alpha 0.25 --prototypes-per-class 4 --samples-per-class 100 "
        "--min-margin 0.01 --correct-every 2 "
        "--selector kmeans++ --verified dataset --clean c.csv --clean-epochs 3 --image-size 64 --workers 3 "
        "--weights w.safetensors --amp --compile"
    )
    args = cli._parser().parse_args([*QUICK, *options.split(), "--root", str(tmp_path), "--out", str(tmp_path)])
    config = cli._config(args)
    identity = config.identity()
    assert (config.root, config.out, config.device) == (tmp_path, tmp_path, "cpu")
    assert (config.verified, config.clean, config.workers) == ("dataset", Path("c.csv"), 3)
    assert config.weights == Path("w.safetensors")
    assert identity == {
        "data": "digits", "model": "resnet18", "epochs": 2, "start_epoch": 0, "batch_size": 16, "lr": 0.3,
        "weight_decay": 0.01, "method": "smp", "noise": "instance:0.2", "images": 900,
        "seed": 7, "momentum": 0.9, "alpha": 0.25,
        "prototypes_per_class": 4, "samples_per_class": 100, "selector": "kmeans++",
        "min_margin": 0.01, "correct_every": 2,
        "prior_weight": 1.2, "entropy_weight": 0.8, "clean_epochs": 3, "image_size": 64,
        "amp": True, "compile": True,
    }  # fmt: skip
    options = "--method joint --epochs 3 --prior-weight 2.4 --entropy-weight 0.5"
    config = cli._config(cli._parser().parse_args([*QUICK, *options.split(), "--out", str(tmp_path)]))
    assert (config.method, config.prior_weight, config.entropy_weight) == ("joint", 2.4, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--noise", "uniform:0.4"], "noise kind must be none or one of symmetric, pairflip, instance, got 'uniform'"),
        (["--noise", "symmetric:1.4"], "noise rate must lie in 0..1, got 1.4"),
        (["--start-epoch", "3"], "start_epoch must be smaller than epochs (2)"),
        (["--data", "fashion-mnist", "--root", "/nowhere"], "root must be a folder, got '/nowhere'"),
        (["--data", "imagefolder"], "root must be given for imagefolder"),
        (["--batch-size", "-1"], "batch_size must be 1 or more, got -1"),
        (["--method", "ce", "--alpha", "0.5"], "alpha is for the method smp, got method ce"),
        (["--method", "mlnt", "--selector", "kmeans++"], "selector is for the method smp, got method mlnt"),
        (["--prior-weight", "1"], "prior_weight is for the method joint, got method smp"),
        (
            ["--method", "joint", "--samples-per-class", "all"],
            "samples_per_class is for the methods smp, cleannet-hard, cleannet-soft, got method joint",
        ),
        (["--clean-epochs", "1"], "clean_epochs goes with clean, got 1 with clean None"),
        (["--clean", "dataset"], "clean must be a file: digits comes without clean training images"),
        (["--verified", "dataset"], "verified must be given as a file: digits comes without"),
        (["--device", "abacus"], "device must be auto or a device that torch can use, got 'abacus'"),
    ],
)
def test_bad_arguments_are_named(tmp_path, capsys, options, message):
    out = tmp_path / "run"
    assert cli.main([*QUICK, "--out", str(out), *options]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "magic"], "argument --method: invalid choice: 'magic'"),
        (["--samples-per-class", "some"], "argument --samples-per-class: invalid number or all value: 'some'"),
        (["--epochs", "two"], "argument --epochs: invalid int value"),
    ],
)
def test_arguments_that_argparse_refuses(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        cli.main([*QUICK, "--out", str(tmp_path / "run"), *options])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_existing_run_asks_for_resume(tmp_path, capsys):
    command = [*QUICK, "--method", "ce", "--out", str(tmp_path / "run")]
    assert cli.main(command) == 0
    assert cli.main(command) == 2
    assert "already holds a run; give --resume to go on" in capsys.readouterr().err
    assert cli.main([*command, "--resume"]) == 0
    assert cli.main([*command, "--resume", "--lr", "0.5"]) == 2
    assert "the checkpoint belongs to another run" in capsys.readouterr().err


def test_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cli.main([*QUICK, "--out", str(tmp_path / "file" / "run")]) == 1
    assert "proto-train: stopped:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (TrainingDiverged("the loss is nan in epoch 1"), 1, "stopped: the loss is nan in epoch 1"),
        (KeyboardInterrupt(), 130, "interrupted; --resume"),
    ],
)
def test_stopping_early_is_told_in_one_line(tmp_path, capsys, monkeypatch, error, status, message):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(cli, "train", fail)
    assert cli.main([*QUICK, "--out", str(tmp_path / "run")]) == status
    captured = capsys.readouterr().err
    assert message in captured and len(captured.splitlines()) == 1
