"""What the tests of the command line share: a folder of files, and runs that must work or must fail."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from sklearn.datasets import load_digits

from proto_engine.cli import main

WORDS = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
CORRECT = ("correct", "--policy", "all")  # as published
posix = pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX systems")


# A test file has these fixtures if it imports them as themselves: `from cli_house import folder as folder`, and
# `digits` with it, which `folder` needs.
@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, truth = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(len(truth)) < 0.4, rng.integers(0, 10, len(truth)), truth)
    return x.astype(np.float32), noisy


@pytest.fixture
def folder(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the same bank and labels in several kinds of file."""
    x, noisy = digits
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", x)
    np.save("y.npy", noisy)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])
    pq.write_table(pa.table({"feature": lists, "number": noisy, "label": WORDS[noisy]}), "all.parquet")
    pd.DataFrame({"file": [f"{k}.png" for k in range(len(x))], "word": WORDS[noisy]}).to_csv("y.csv", index=False)
    safetensors.numpy.save_file({"a": x, "b": x[:, ::2].copy()}, "x.safetensors")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def run_error(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """Run a command that must fail in the documented way and leave no new file; returns its message."""
    before = sorted(os.listdir())
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as leave:  # argparse
        assert isinstance(leave.code, int)
        status = leave.code
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if not line.startswith("proto-engine: warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("proto-engine: error: ")
    assert sorted(os.listdir()) == before
    return lines[0]
