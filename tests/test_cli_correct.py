"""The command `correct`: files in, what the functions give out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli_house import CORRECT, WORDS, run
from cli_house import digits as digits
from cli_house import folder as folder

import proto_engine as pe
from proto_engine.backends import _said


def test_cli_correct_writes_what_the_functions_give(
    folder: Path, digits: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    x, noisy = digits
    status, out, _ = run(capsys, *CORRECT, "x.npy", "y.npy", "-o", "out.parquet")
    assert status == 0
    with pytest.warns(UserWarning, match="eta_max"):
        prototypes = pe.select_prototypes(x, noisy)
    wanted = pe.correct_labels(x, noisy, prototypes)
    pd.testing.assert_frame_equal(pd.read_parquet("out.parquet"), wanted.to_frame())
    assert out.splitlines()[0].startswith(f"{wanted.changed.sum()} of 1,797 labels changed (")


def test_cli_correct_changes_what_there_is_evidence_for(
    folder: Path, digits: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    x, noisy = digits
    status, out, _ = run(capsys, "correct", "x.npy", "y.npy", "-o", "out.parquet", "--quiet")
    assert status == 0
    with pytest.warns(UserWarning, match="eta_max"):
        prototypes = pe.select_prototypes(x, noisy)
    wanted = pe.correct_labels(x, noisy, prototypes, policy="confident")
    pd.testing.assert_frame_equal(pd.read_parquet("out.parquet"), wanted.to_frame())
    lines = out.splitlines()
    assert lines[0].startswith(f"{wanted.changed.sum()} of 1,797 labels changed (")
    assert lines[1] == f"about {wanted.expected_right:,.0f} of the changes are expected to be right"
    assert wanted.changed.any()


def test_cli_correct_passes_every_option_on(
    folder: Path, digits: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    x, noisy = digits
    x = x.copy()
    x[3] = 0
    np.save("x.npy", x)
    options = "--num-classes 12 --prototypes-per-class 3 --samples-per-class all --cutoff-quantile 0.5"
    options += " --eta-max 0.9 --method density-peaks --seed 7"
    options += " --backend reference --on-bad-rows keep-label --min-margin 0.02"
    status, *_ = run(capsys, *CORRECT, "x.npy", "y.npy", "-o", "out.csv", "--quiet", *options.split())
    assert status == 0
    common: dict[str, Any] = {"backend": "reference", "on_bad_rows": "keep-label"}
    with pytest.warns(UserWarning, match="eta_max"):
        prototypes = pe.select_prototypes(
            x, noisy, num_classes=12, prototypes_per_class=3, samples_per_class=None, cutoff_quantile=0.5,
            eta_max=0.9, method="density-peaks", seed=7, **common,
        )  # fmt: skip
    wanted = pe.correct_labels(x, noisy, prototypes, min_margin=0.02, **common)
    pd.testing.assert_frame_equal(pd.read_csv("out.csv"), wanted.to_frame())


def test_cli_correct_reads_every_kind_of_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same bank and labels from other files give the same corrections; names have their own order."""
    by_number = [
        ["x.npy", "y.npy"],
        ["all.parquet", "y.npy"],
        ["x.safetensors", "all.parquet", "--feature-column", "a", "--label-column", "number"],
    ]
    by_name = [["x.npy", "y.csv", "--label-column", "word"], ["all.parquet", "all.parquet"]]
    for group in (by_number, by_name):
        contents = []
        for arguments in group:
            assert run(capsys, *CORRECT, *arguments, "-o", "out.csv", "--quiet")[0] == 0
            contents.append(Path("out.csv").read_bytes())
        assert len(set(contents)) == 1
    frame = pd.read_csv("out.csv")
    assert set(frame["suggested_label"]) <= set(WORDS)
    assert frame["given_label"].tolist() == WORDS[np.load("y.npy")].tolist()


def test_cli_small_and_empty_classes_follow_the_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).normal(size=(6, 4)))
    np.save("y.npy", np.array([0, 0, 0, 2, 2, 2]))
    options = [
        "--num-classes",
        "4",
        "--samples-per-class",
        "1000",
        "--eta-max",
        "2",
        "--backend",
        "reference",
    ]
    status, out, _ = run(capsys, "select", "x.npy", "y.npy", "-o", "p.safetensors", *options)
    assert (status, out.splitlines()[0]) == (0, "6 prototypes for 2 of 4 classes")
    assert run(capsys, *CORRECT, "x.npy", "y.npy", "-o", "o.csv", *options)[0] == 0
    assert set(pd.read_csv("o.csv")["suggested_label"]) <= {0, 2}


def test_quiet_after_a_call_that_was_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for name, more in (("a.csv", ()), ("b.csv", ("--quiet",)), ("c.csv", ())):
        _said.clear()  # what `auto` chose is noted once in a process
        said.append(run(capsys, *CORRECT, "x.npy", "y.npy", "-o", name, *more)[2])
    assert [text.count("proto-engine: backend 'auto' chose") for text in said] == [1, 0, 1]
