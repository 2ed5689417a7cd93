"""The one table that a command prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_house import CORRECT, WORDS, run
from cli_house import digits as digits
from cli_house import folder as folder

import proto_engine as pe
from proto_engine.cli_report import correction_report, selection_report
from proto_engine.corrections import CorrectionSummary


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
