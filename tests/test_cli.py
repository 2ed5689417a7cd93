"""The command line: files in, files out, one table, one line for every error, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from sklearn.datasets import load_digits

import proto_engine as pe
from proto_engine import cli
from proto_engine.class_names import load_with_names, renumber
from proto_engine.cli import main
from proto_engine.cli_report import correction_report, selection_report
from proto_engine.corrections import CorrectionSummary

WORDS = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
posix = pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX systems")


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


CORRECT = ("correct", "--policy", "all")  # as published


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


def test_cli_prints_one_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, *CORRECT, "x.npy", "all.parquet", "-o", "out.parquet")
    frame = pd.read_parquet("out.parquet")
    lines = out.splitlines()
    assert lines[2].split() == ["given", "class", "samples", "changed", "share"]
    for line, name in zip(lines[3:13], sorted(WORDS), strict=True):
        of_class = frame[frame["given_label"] == name]
        share = f"{100 * of_class['changed'].mean():.1f}"
        assert line.split() == [name, str(len(of_class)), str(of_class["changed"].sum()), share, "%"]
    flows = frame[frame["changed"]].groupby(["given_label", "suggested_label"]).size()
    given, suggested = flows.idxmax()
    assert lines[15].split() == [given, "->", suggested, str(flows.max())]
    _, out, _ = run(capsys, "select", "x.npy", "all.parquet", "-o", "p.safetensors")
    lines = out.splitlines()
    assert lines[0] == "80 prototypes for 10 of 10 classes"
    assert lines[2].split() == ["class", "samples", "prototypes", "cutoff", "filtered"]
    assert [line.split()[2] for line in lines[3:]] == ["8"] * 10


def test_cli_report_shortens_what_is_long() -> None:
    num_classes = 200
    changed = np.arange(num_classes)
    flows = [(c, 0, c) for c in range(num_classes - 1, 0, -1)]
    summary = CorrectionSummary(10**6, int(changed.sum()), changed + 1, changed, flows)
    names = ["bad\nname", *(f"{'n' * 60}{c}" for c in range(1, num_classes))]
    lines = correction_report(summary, names).splitlines()
    assert len(lines) == 3 + 30 + 1 + 1 + 1 + 10
    assert lines[3].startswith("n" * 29 + "... ")
    assert lines[3].split()[1] == "171"  # the 30 classes with most changes, in their order
    assert "(the 30 classes with most changes, of 200)" in lines
    assert lines[-10].startswith("n" * 29 + "... -> bad?name")
    few = CorrectionSummary(0, 0, np.zeros(1, dtype=int), np.zeros(1, dtype=int), [])
    assert correction_report(few, None).splitlines() == [
        "0 of 0 labels changed (0.0 %)",
        "",
        "given class  samples  changed  share",
        "0                  0        0      -",
    ]


def test_cli_report_of_a_selection_shows_empty_classes(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, noisy = digits
    with pytest.warns(UserWarning, match="eta_max"):
        prototypes = pe.select_prototypes(x, noisy, num_classes=40)
    lines = selection_report(prototypes, np.bincount(noisy, minlength=40), None).splitlines()
    assert lines[0] == "80 prototypes for 10 of 40 classes"
    assert lines[3 + 10].split() == ["10", "0", "0", "-", "0.0", "%"]
    assert lines[-1] == "(the first 30 classes of 40)"


def test_cli_info_names_versions_and_backends(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "info")
    assert status == 0
    assert f"proto_engine {pe.__version__}" in out
    for name, reason in pe.backends().items():
        (line,) = [line for line in out.splitlines() if line.startswith(f"backend {name} ")]
        assert (reason or "available") in line


def test_cli_help_shows_the_defaults_of_the_functions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["correct", "--help"])
    assert leave.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("default 8)", "default 1280)", "default 0.6)", "default 0.95)", "default density-peaks)"):
        assert part in text


def test_cli_documentation_shows_real_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parent.parent / "docs" / "command_line.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for language, block in re.findall(r"^```(python|console)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        if language == "python":
            exec(block, names)
            shown = "".join(f"{line[2:]}\n" for line in block.splitlines() if line.startswith("# "))
            assert capsys.readouterr().out == shown
        else:
            for part in re.split(r"^\$ proto-engine ", block, flags=re.MULTILINE)[1:]:
                arguments, _, shown = part.partition("\n")
                assert run(capsys, *arguments.split())[:2] == (0, shown)


# Errors


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


@pytest.mark.parametrize(
    ("command", "output", "later"),
    [
        ("correct", "o.parquet", "correct_labels"),
        ("select", "o.safetensors", "select_prototypes"),
        ("score", "o.npy", "score_samples"),
    ],
)
def test_cli_checks_the_output_before_the_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    command: str, output: str, later: str,
) -> None:  # fmt: skip
    for name in ("open", "select_prototypes", later):
        monkeypatch.setattr(*((cli.FeatureBank, name) if name == "open" else (cli, name)), None)
    Path(output).mkdir()
    message = run_error(capsys, command, "x.npy", "y.npy", "-o", output)
    assert f"--output: wanted a file to write, '{output}' is a folder" in message


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("correct", "o.csv"),
        ("correct", "o.parquet"),
        ("select", "o.safetensors"),
        ("score", "o.npy"),
        ("score", "o.parquet"),
    ],
)
def test_cli_full_disk_keeps_the_old_output(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    output: str,
) -> None:
    assert run(capsys, "select", "x.npy", "y.npy", "-o", "p.safetensors")[0] == 0
    Path(output).write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    other = "p.safetensors" if command == "score" else "y.npy"
    assert "No space left on device" in run_error(capsys, command, "x.npy", other, "-o", output, "--quiet")
    assert Path(output).read_bytes() == b"old"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "out of memory"),
        (MemoryError("Unable to allocate 9 TiB"), "out of memory: Unable to allocate 9 TiB"),
        (ValueError("two\nlines"), "two lines"),
        (OSError(), "OSError"),
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


# Whole processes


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "proto_engine.cli", *arguments]


def test_cli_as_a_process(folder: Path) -> None:
    done = subprocess.run(
        command(*CORRECT, "x.npy", "y.npy", "-o", "o.csv"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "labels changed" in done.stdout
    assert "backend 'auto' chose" in done.stderr
    assert "%|" not in done.stderr  # no progress bar where nobody can see it
    quiet = subprocess.run(
        command(*CORRECT, "x.npy", "y.npy", "-o", "q.csv", "--quiet", "--prototypes-per-class", "2"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (quiet.returncode, quiet.stderr) == (0, "")
    failed = subprocess.run(
        command(*CORRECT, "x.npy", "no.npy", "-o", "o.csv"), capture_output=True, text=True, check=False
    )
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr == "proto-engine: error: labels: 'no.npy' does not exist\n"


@posix
@pytest.mark.parametrize("quiet", [False, True])
def test_cli_shows_progress_on_a_terminal(folder: Path, quiet: bool) -> None:
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    terminal, stderr = os.openpty()
    fcntl.ioctl(stderr, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    arguments = [*CORRECT, "x.npy", "y.npy", "-o", "o.csv", "--prototypes-per-class", "2"]
    done = subprocess.run(
        command(*arguments, *["--quiet"] * quiet), stdout=subprocess.DEVNULL, stderr=stderr, check=False
    )
    os.write(stderr, b"end")  # something to read in any case
    os.close(stderr)
    shown = os.read(terminal, 2**16).decode()
    os.close(terminal)
    assert done.returncode == 0
    assert ("correct: 100%|" in shown) == (not quiet)
    assert (shown == "end") == quiet


@posix
def test_cli_interrupt_leaves_the_old_output(folder: Path) -> None:
    rng = np.random.default_rng(0)
    np.save("big.npy", rng.normal(size=(30_000, 256)).astype(np.float32))  # many seconds of work
    np.save("big_y.npy", np.zeros(30_000, dtype=np.int64))
    Path("o.csv").write_bytes(b"old")
    before = sorted(os.listdir())
    work = ["correct", "big.npy", "big_y.npy", "-o", "o.csv", "--samples-per-class", "all"]
    # Python takes no notice of Ctrl-C when started by a shell in the background: ask for it.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from proto_engine.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", code, *work], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "chose" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "proto-engine: interrupted\n")
    assert Path("o.csv").read_bytes() == b"old"
    assert sorted(os.listdir()) == before


def test_cli_interrupt_while_writing_leaves_the_old_output(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("o.csv").write_bytes(b"old")
    before = sorted(os.listdir())

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    status, out, err = run(capsys, *CORRECT, "x.npy", "y.npy", "-o", "o.csv", "--prototypes-per-class", 2, "--quiet")
    assert (status, out, err) == (130, "", "proto-engine: interrupted\n")
    assert Path("o.csv").read_bytes() == b"old"
    assert sorted(os.listdir()) == before


@posix
def test_cli_reader_that_leaves_is_no_error(folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command("info"), stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
