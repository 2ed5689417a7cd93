"""Errors and warnings of the command line: one line for each, and no new file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_house import CORRECT, run, run_error
from cli_house import digits as digits
from cli_house import folder as folder

import proto_engine as pe
from proto_engine import cli


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("correct x.npy y.npy", "the following arguments are required: -o/--output"),
        ("correct x.npy y.npy -o o.txt", "--output: wanted a file ending in .parquet or .csv, got 'o.txt'"),
        ("select x.npy y.npy -o o.csv", "--output: wanted a file ending in .safetensors, got 'o.csv'"),
        ("score x.npy p -o o.csv", "--output: wanted a file ending in .npy or .parquet, got 'o.csv'"),
        ("correct x.npy y.npy -o none/o.csv", "--output: the folder"),
        ("correct x.npy y.csv -o y.csv", "--output: 'y.csv' is an input too and would be lost"),
        ("correct x.npy y.csv -o ./y.csv", "--output: './y.csv' is an input too and would be lost"),
        ("correct none.npy y.npy -o o.csv", "features: 'none.npy' does not exist"),
        ("correct x.npy none.npy -o o.csv", "labels: 'none.npy' does not exist"),
        (
            "correct y.csv y.npy -o o.csv",
            "features: wanted a .npy, .safetensors or .parquet file, got 'y.csv'",
        ),
        (
            "correct y.npy y.npy -o o.csv",
            "features: 'y.npy': wanted two dimensions [N, D], got shape (1797,)",
        ),
        ("correct x.safetensors y.npy -o o.csv", "name the tensor to use with column=, it holds 'a', 'b'"),
        ("correct x.npy y.csv -o o.csv", "name the column of the labels, it has 'file', 'word'"),
        ("correct x.npy y.csv -o o.csv --label-column no", "has no column 'no', it has 'file', 'word'"),
        ("correct all.parquet y.npy -o o.csv --feature-column no", "has no column 'no'; it has 'feature"),
        ("correct x.npy x.npy -o o.csv", "labels: 'x.npy': wanted one dimension [N], got shape (1797, 64)"),
        ("correct x.npy y.npy -o o.csv --num-classes 5", "labels: wanted less than num_classes = 5"),
        ("correct x.npy y.npy -o o.csv --num-classes 10000000000000000000", "got 10000000000000000000"),
        ("correct x.npy y.npy -o o.csv --contrast-quantile 0.8", "--contrast-quantile: wanted --method"),
        (
            "correct x.npy all.parquet -o o.csv --num-classes 11",
            "--num-classes: the labels are 10 names, got 11",
        ),
        ("correct x.npy y.npy -o o.csv --eta-max much", "argument --eta-max: invalid float value: 'much'"),
        (
            "correct x.npy y.npy -o o.csv --samples-per-class most",
            "wanted a whole number or 'all', got 'most'",
        ),
        ("correct x.npy y.npy -o o.csv --samples-per-class 0", "samples_per_class: wanted"),
        ("correct x.npy y.npy -o o.csv --prototypes-per-class -1", "prototypes_per_class: wanted"),
        (
            "correct x.npy y.npy -o o.csv --cutoff-quantile 2",
            "cutoff_quantile: wanted a number from 0 to 1, got 2",
        ),
        ("correct x.npy y.npy -o o.csv --min-margin -1", "min_margin: wanted 0 or more, got -1"),
        ("correct x.npy y.npy -o o.csv --min-margin nan", "min_margin: wanted"),
        ("correct x.npy y.npy -o o.csv --method best", "method: wanted"),
        ("correct x.npy y.npy -o o.csv --backend abacus", "abacus"),
        ("correct x.npy y.npy -o o.csv --on-bad-rows drop", "argument --on-bad-rows: invalid choice"),
        ("correct x.npy y.npy -o o.csv --prototypes none.st", "none.st"),
        (
            "correct x.npy y.npy -o o.csv --prototypes x.npy --seed 1",
            "saved prototypes leave no room for --seed",
        ),
        ("correct x.npy y.npy -o o.csv --prototypes x.safetensors", "prototypes: wanted a file of format"),
        ("score x.npy x.npy -o o.npy", "prototypes: 'x.npy' is not a complete safetensors file"),
        ("frobnicate", "invalid choice: 'frobnicate'"),
        ("", "the following arguments are required: COMMAND"),
    ],
)
def test_cli_error_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str) -> None:
    assert message in run_error(capsys, *arguments.split())


def bad_features() -> dict[str, tuple[np.ndarray, str]]:
    x = np.random.default_rng(0).normal(size=(20, 4))
    nan, inf, zero = x.copy(), x.copy(), x.copy()
    nan[7, 1], inf[3, 0], zero[[5, 9]] = np.nan, -np.inf, 0
    with np.errstate(over="ignore"):
        overflow = (x * 1e6).astype(np.float16)
    return {
        "nan": (nan, "1 of 20 rows with NaN, infinity or zero norm (rows 7)"),
        "inf": (inf, "1 of 20 rows with NaN, infinity or zero norm (rows 3)"),
        "zero": (zero, "2 of 20 rows with NaN, infinity or zero norm (rows 5, 9)"),
        "float16 overflow": (overflow, "20 of 20 rows with NaN, infinity or zero norm (rows 0, 1,"),
        "empty": (x[:0], "is empty: shape (0, 4)"),
        "no columns": (x[:, :0], "is empty: shape (20, 0)"),
        "short": (x[:19], "labels: wanted 19 entries, one a row of features, got 20"),
        "integers": (x.astype(int), "wanted float16, bfloat16, float32 or float64, got int64"),
        "objects": (x.astype(object), "holds Python objects, which are refused"),
    }


@pytest.mark.parametrize("case", list(bad_features()))
def test_cli_bad_features_are_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    x, message = bad_features()[case]
    np.save("x.npy", x, allow_pickle=True)
    np.save("y.npy", np.arange(20) % 2)
    for command, output in (("correct", "o.parquet"), ("select", "o.safetensors")):
        assert message in run_error(capsys, command, "x.npy", "y.npy", "-o", output)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "out of memory"),
        (MemoryError("Unable to allocate 9 TiB"), "out of memory: Unable to allocate 9 TiB"),
        (ValueError("two\nlines"), "two lines"),
        (OSError(), "OSError"),
        (OverflowError("int too large to convert"), "int too large to convert"),
        (pe.BackendUnavailable("cuda: no GPU"), "cuda: no GPU"),
    ],
)
def test_cli_errors_from_below_are_one_line(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    message: str,
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "correct_labels", fail)
    got = run_error(capsys, *CORRECT, "x.npy", "y.npy", "-o", "o.csv", "--quiet")
    assert got == f"proto-engine: error: {message}"


def test_cli_warnings_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "select", "x.npy", "y.npy", "-o", "p.safetensors", "--eta-max", "0.5")
    assert status == 0
    (line,) = [line for line in err.splitlines() if "warning" in line]
    assert line.startswith("proto-engine: warning: eta_max turned down more than half of")
