"""`proto-engine report` and `correct --report`: from files to a page, and every way to get it wrong."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from problems import clustered
from report_house import picture

from proto_engine.cli import main
from proto_engine.label_text import labels_digest

NAMES = np.array(["ant", "bee", "cat"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """90 rows of three classes in order of class, so that an image folder numbers them alike."""
    monkeypatch.chdir(tmp_path)
    x, y = clustered(90, 8, 3, seed=0)
    order = np.argsort(y, kind="stable")
    given = y[order]
    x = x[order]
    x[:5] = x[given == 1][:5]  # five rows of class 0 look like class 1
    np.save("x.npy", x)
    pd.DataFrame({"label": NAMES[given]}).to_csv("y.csv", index=False)
    place = [int((given[:k] == given[k]).sum()) for k in range(90)]
    for k in range(90):
        path = Path("images", NAMES[given[k]], f"{place[k]:03d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture((k, 0, 0)))
    images = pa.array([{"bytes": picture((k, 0, 0)), "path": f"p{k}.png"} for k in range(90)])
    pq.write_table(pa.table({"image": images, "other": images}), "images.parquet")
    return tmp_path


def data_of(path: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', Path(path).read_text("utf-8"))
    assert found
    return json.loads(found[1])


def run(*arguments: Any) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def run_error(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    before = sorted(os.listdir())
    assert main([str(argument) for argument in arguments]) == 2
    assert sorted(os.listdir()) == before
    return capsys.readouterr().err


def test_report_of_features_and_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("report", "x.npy", "y.csv", "-o", "page.html", "--images", "images", "--quiet")
    assert capsys.readouterr().out == "report written to page.html\n"
    data = data_of("page.html")
    given = np.searchsorted(NAMES, pd.read_csv("y.csv")["label"])
    assert data["names"] == NAMES.tolist()
    assert data["digest"] == labels_digest(given, NAMES)
    assert data["changed"] == 5
    assert data["paths"][0] == "ant/000.png"
    assert len(data["pictures"]) == 90
    assert [c for c, _ in data["graphs"]] == [0, 1, 2]
    assert "<h1>y.csv</h1>" in Path("page.html").read_text("utf-8")


def test_report_beside_a_correction_is_that_of_its_table(folder: Path) -> None:
    options = ("--images", "images.parquet", "--image-column", "other", "--title", "T", "--quiet")
    run("correct", "x.npy", "y.csv", "-o", "corrected.parquet", "--report", "a.html", *options)
    run("select", "x.npy", "y.csv", "-o", "p.safetensors", "--quiet")
    run("correct", "x.npy", "y.csv", "-o", "corrected.csv", "--prototypes", "p.safetensors", "--quiet")
    a = data_of("a.html")
    assert a["paths"][3] == "p3.png"
    for table in ("corrected.parquet", "corrected.csv"):
        run("report", table, "-o", "b.html", "--prototypes", "p.safetensors", *options)
        b = data_of("b.html")
        assert b.pop("graphs") == []  # they need the features
        assert b == {key: value for key, value in a.items() if key != "graphs"}
        run("report", table, "-o", "c.html", "--quiet")
        assert data_of("c.html")["id"] == a["id"]


def test_report_reads_the_optional_columns_of_a_table(folder: Path) -> None:
    run("correct", "x.npy", "y.csv", "-o", "corrected.parquet", "--quiet")
    frame = pd.read_parquet("corrected.parquet").drop(columns=["score", "margin"])
    frame.assign(issue_score=0.25, probability=0.5).to_parquet("more.parquet")
    run("report", "more.parquet", "-o", "page.html", "--quiet")
    data = data_of("page.html")
    assert data["issue"] and data["probability"] and not data["score"] and not data["margin"]
    assert "expected right" in Path("page.html").read_text("utf-8")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_report_refuses_a_table_with_a_column_twice(
    folder: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    run("correct", "x.npy", "y.csv", "-o", "corrected.parquet", "--quiet")
    table = pq.read_table("corrected.parquet")
    for name in ("given_label", "score", "index"):
        twice = pa.Table.from_arrays([*table.columns, table[name]], names=[*table.column_names, name])
        if ending == "csv":
            pyarrow.csv.write_csv(twice, "twice.csv")
        else:
            pq.write_table(twice, "twice.parquet")
        error = run_error(capsys, "report", f"twice.{ending}", "-o", "p.html")
        assert f"'twice.{ending}': wanted one column {name!r}, it has 2 of that name" in error


def test_report_says_what_it_wants(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("correct", "x.npy", "y.csv", "-o", "corrected.parquet", "--policy", "all", "--quiet")
    frame = pd.read_parquet("corrected.parquet")
    frame[~frame["changed"]].to_parquet("some.parquet")
    frame.drop(columns="suggested_label").to_parquet("given.parquet")
    frame.assign(suggested_label=1).to_parquet("mixed.parquet")
    for ending in ("csv", "parquet"):
        getattr(frame.assign(score="high"), f"to_{ending}")(f"high.{ending}")
    pq.write_table(pa.table({"image": [b"x"] * 3}), "few.parquet")
    for arguments, message in (
        (("x.npy", "-o", "p.html"), "wanted features and labels, or one table"),
        (("some.parquet", "-o", "p.html"), "wanted all rows of the data set in their order"),
        (("given.parquet", "-o", "p.html"), "has no column 'suggested_label'"),
        (("mixed.parquet", "-o", "p.html"), "mixes class names and numbers"),
        (("high.csv", "-o", "p.html"), "'high.csv': wanted numbers in columns 'score', 'margin': "),
        (("high.parquet", "-o", "p.html"), "'high.parquet': wanted numbers in columns 'score', 'margin': "),
        (("corrected.parquet", "-o", "p.pdf"), "--output: wanted a file ending in .html or .htm"),
        (("corrected.parquet", "-o", "p.html", "--seed", "1"), "--seed: wanted LABELS too"),
        (("corrected.parquet", "-o", "p.html", "--samples-per-class", "all"), "--samples-per-class: wanted LABELS too"),
        (("corrected.parquet", "-o", "p.html", "--images", "none"), "--images: 'none' does not exist"),
        (("corrected.parquet", "-o", "p.html", "--images", "few.parquet"), "wanted 90 images, one a row"),
        (("corrected.parquet", "-o", "p.html", "--image-column", "x"), "--image-column: wanted --images too"),
        (("corrected.parquet", "-o", "p.html", "--images", "images", "--image-column", "x"), "which has no columns"),
    ):
        assert message in run_error(capsys, "report", *arguments)
    Path("in.html").write_text("")
    assert "would be lost" in run_error(capsys, "report", "in.html", "y.csv", "-o", "in.html")
    error = run_error(capsys, "correct", "x.npy", "y.csv", "-o", "c.parquet", "--report", "none/p.html")
    assert "--report: the folder" in error


@pytest.mark.parametrize(
    "option",
    [
        "--seed 0",
        "--samples-per-class all",
        "--min-margin 0",
        "--policy confident",
        "--backend auto",
        "--on-bad-rows raise",
        "--label-column label",
        "--feature-column features",
    ],
)
def test_report_of_a_table_takes_no_option_that_does_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    run("correct", "x.npy", "y.csv", "-o", "corrected.parquet", "--policy", "all", "--quiet")
    run("report", "corrected.parquet", "-o", "page.html", "--quiet")
    error = run_error(capsys, "report", "corrected.parquet", "-o", "page.html", *option.split())
    assert f"{option.split()[0]}: wanted LABELS too; a table of corrections leaves no room for it" in error


@pytest.mark.parametrize("option", ["--images images", "--image-column image", "--title Digits"])
def test_correct_without_a_page_takes_no_option_of_the_page(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    error = run_error(capsys, "correct", "x.npy", "y.csv", "-o", "corrected.csv", *option.split())
    assert f"{option.split()[0]}: wanted --report too" in error


def test_report_with_images_needs_pillow(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    error = run_error(capsys, "correct", "x.npy", "y.csv", "-o", "c.csv", "--report", "p.html", "--images", "images")
    assert "thumbnails need Pillow: pip install 'proto_engine[report]'" in error


def test_report_takes_prototypes_of_another_bank_for_no_rows_of_its_own(folder: Path) -> None:
    run("select", "x.npy", "y.csv", "-o", "p.safetensors", "--quiet")
    np.save("half.npy", np.load("x.npy")[::2])
    pd.read_csv("y.csv")[::2].to_csv("half.csv", index=False)
    run("report", "half.npy", "half.csv", "--prototypes", "p.safetensors", "-o", "page.html", "--quiet")
    data = data_of("page.html")
    assert len(data["graphs"]) == 3 and data["prototypes"] == []


def test_documented_example_makes_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[1] / "docs" / "report.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[1], {})
    command = re.findall(r"\$ proto-engine (report features.npy .*)", text)[-1]
    run(*command.split(), "--quiet")
    data = data_of("report.html")
    assert len(data["gallery"]) == 500 and len(data["prototypes"]) == 10
    # a row's picture and features are the same digit: its folder is its given label
    assert all(path.split("/")[0] == data["names"][c] for path, c in zip(data["paths"], codes(data), strict=True))


def codes(data: dict[str, Any]) -> list[int]:
    return np.frombuffer(base64.b64decode(data["given"]), "<u2").tolist()
