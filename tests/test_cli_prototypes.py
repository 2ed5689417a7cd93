"""Prototypes that one command saves and another reads, with the names of their classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from cli_house import CORRECT, WORDS, run, run_error
from cli_house import digits as digits
from cli_house import folder as folder

import proto_engine as pe
from proto_engine.class_names import load_with_names, renumber


def test_cli_select_score_and_correct_work_hand_in_hand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "select", "x.npy", "all.parquet", "-o", "p.safetensors", "--seed", 5)[0] == 0
    assert run(capsys, *CORRECT, "x.npy", "all.parquet", "-o", "one.csv", "--seed", 5)[0] == 0
    assert run(capsys, *CORRECT, "x.npy", "all.parquet", "-o", "two.csv", "--prototypes", "p.safetensors")[0] == 0
    assert Path("one.csv").read_bytes() == Path("two.csv").read_bytes()
    status, out, _ = run(capsys, "score", "x.npy", "p.safetensors", "-o", "s.npy")
    assert (status, out) == (0, "1,797 x 10 scores written to s.npy\n")
    scores = np.load("s.npy")
    np.testing.assert_array_equal(scores, pe.score_samples(np.load("x.npy"), pe.Prototypes.load("p.safetensors")))
    assert run(capsys, "score", "x.npy", "p.safetensors", "-o", "s.parquet")[0] == 0
    frame = pd.read_parquet("s.parquet")
    assert list(frame.columns) == [f"score_{name}" for name in sorted(WORDS)]
    np.testing.assert_array_equal(frame.to_numpy(), scores)


def test_cli_saved_names_number_other_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file with some of the classes sorts to other numbers; the saved names set them right."""
    assert run(capsys, "select", "x.npy", "all.parquet", "-o", "p.safetensors")[0] == 0
    assert run(capsys, *CORRECT, "x.npy", "all.parquet", "-o", "full.csv", "--prototypes", "p.safetensors")[0] == 0
    full = pd.read_csv("full.csv")
    rows = np.flatnonzero(full["given_label"].isin(["two", "six", "nine"]))
    np.save("part.npy", np.load("x.npy")[rows])
    np.save("part_y.npy", full["given_label"].to_numpy(dtype=str)[rows])
    assert run(capsys, *CORRECT, "part.npy", "part_y.npy", "-o", "part.csv", "--prototypes", "p.safetensors")[0] == 0
    part = pd.read_csv("part.csv")
    pd.testing.assert_frame_equal(
        part.drop(columns="index"), full.drop(columns="index").iloc[rows].reset_index(drop=True)
    )


def test_cli_saved_names_must_fit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "select", "x.npy", "all.parquet", "-o", "named.safetensors")[0] == 0
    assert run(capsys, "select", "x.npy", "y.npy", "-o", "numbered.safetensors")[0] == 0
    np.save("other.npy", np.full(1797, "ten"))
    message = run_error(capsys, *CORRECT, "x.npy", "other.npy", "-o", "o.csv", "--prototypes", "named.safetensors")
    assert "labels: 1 names that the prototypes do not have, such as 'ten'" in message
    message = run_error(capsys, *CORRECT, "x.npy", "y.npy", "-o", "o.csv", "--prototypes", "named.safetensors")
    assert "the labels are numbers, the prototypes' classes have names" in message
    message = run_error(capsys, *CORRECT, "x.npy", "all.parquet", "-o", "o.csv", "--prototypes", "numbered.safetensors")
    assert "the labels are names, the prototypes' classes have numbers" in message
    with safetensors.safe_open("named.safetensors", framework="numpy") as file:
        arrays, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    assert json.loads(metadata["class_names"]) == sorted(WORDS)
    for bad in ("{", "3", '["a"]', json.dumps(["a"] * 10), json.dumps(list(range(10)))):
        safetensors.numpy.save_file(arrays, "bad.safetensors", {**metadata, "class_names": bad})
        with pytest.raises(ValueError, match="prototypes: wanted 10 different class names in the metadata"):
            load_with_names("bad.safetensors")
    numbers = np.array([1, 0])
    assert renumber(numbers, None, None) is numbers
