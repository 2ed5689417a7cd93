"""The paths of a command: no input is lost by an output, and bad images are found before the work."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_house import CORRECT, run, run_error
from problems import clustered
from report_house import picture

from proto_engine import cli


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """30 rows of two classes, with images in a folder, in a Parquet column, and by paths in one."""
    monkeypatch.chdir(tmp_path)
    x, _ = clustered(30, 4, 2, seed=0)
    np.save("x.npy", x)
    np.save("y.npy", np.arange(30) // 15)
    paths = [f"images/{'ab'[k // 15]}/{k:02d}.png" for k in range(30)]
    for k, path in enumerate(paths):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(picture((k, 0, 0)))
    pq.write_table(pa.table({"image": [picture()] * 30, "more": [picture()] * 30}), "images.parquet")
    pq.write_table(pa.table({"path": paths}), "paths.parquet")
    for name in ("p.safetensors", "d.csv", "table.csv"):  # never read: the outputs are looked at before
        Path(name).write_bytes(b"content of " + name.encode())
    return tmp_path


INPUTS_AND_OUTPUTS = [
    *[
        (f"correct x.npy y.npy --prototypes p.safetensors {outputs} --images {images}", lost)
        for outputs in ("-o OUT.csv --report r.html", "-o o.csv --report OUT.html")
        for images, lost in (
            ("images.parquet", "x.npy"),
            ("images.parquet", "y.npy"),
            ("images.parquet", "p.safetensors"),
            ("images.parquet", "images.parquet"),
            ("images", "images/b/20.png"),
            ("paths.parquet", "images/a/03.png"),
        )
    ],
    ("select x.npy y.npy -o OUT.safetensors", "x.npy"),
    ("select x.npy y.npy -o OUT.safetensors", "y.npy"),
    ("score x.npy p.safetensors -o OUT.npy", "x.npy"),
    ("score x.npy p.safetensors -o OUT.parquet", "p.safetensors"),
    ("report x.npy y.npy -o OUT.html", "x.npy"),
    ("report x.npy y.npy -o OUT.html", "y.npy"),
    ("report x.npy y.npy -o OUT.html --images images", "images/a/00.png"),
    ("report table.csv -o OUT.html", "table.csv"),
    ("report table.csv -o OUT.html --prototypes p.safetensors", "p.safetensors"),
    ("report table.csv -o OUT.html --images paths.parquet", "images/b/29.png"),
    ("apply y.npy d.csv -o OUT.npy", "y.npy"),
    ("apply y.npy d.csv -o OUT.parquet", "d.csv"),
    ("apply images d.csv -o OUT.csv", "images/a/00.png"),
    ("apply y.npy d.csv -o OUT.csv --tree images new", "images/a/00.png"),
]


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize(("arguments", "lost"), INPUTS_AND_OUTPUTS)
def test_cli_input_is_never_overwritten(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: str, lost: str, link: Any
) -> None:
    (output,) = [word for word in arguments.split() if word.startswith("OUT")]
    link(lost, output)
    before = Path(lost).read_bytes()
    option = "--report" if f"--report {output}" in arguments else "--output"
    assert f"{option}: {output!r} is an input too and would be lost" in run_error(capsys, *arguments.split())
    assert Path(lost).read_bytes() == before


def test_cli_images_are_never_overwritten_by_the_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("images.parquet").read_bytes()
    arguments = ("x.npy", "y.npy", "-o", "images.parquet", "--images", "./images.parquet", "--report", "r.html")
    error = run_error(capsys, *CORRECT, *arguments)
    assert "--output: 'images.parquet' is an input too and would be lost" in error
    assert Path("images.parquet").read_bytes() == before


def test_cli_two_outputs_are_never_one_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.symlink("page.html", "o.csv")
    error = run_error(capsys, "correct", "x.npy", "y.npy", "-o", "o.csv", "--report", "page.html")
    assert "--report: wanted another file than that of --output, got 'page.html' and 'o.csv'" in error
    error = run_error(capsys, "apply", "y.npy", "d.csv", "-o", "new.csv", "--tree", "images", "new.csv")
    assert "--output: wanted another file than that of --tree, got 'new.csv' and 'new.csv'" in error


def test_cli_outputs_may_lie_beside_the_images(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = ("-o", "images/o.csv", "--report", "images/a/r.html")
    for _ in range(2):  # the second time they are there
        assert run(capsys, *CORRECT, "x.npy", "y.npy", *outputs, "--images", "images", "--quiet")[0] == 0


@pytest.mark.parametrize("command", [("correct", "-o", "o.csv", "--report", "p.html"), ("report", "-o", "p.html")])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (("few.parquet",), "--images: wanted 30 images, one a row, 'few.parquet' has 3"),
        (("few",), "--images: wanted 30 images, one a row, 'few' has 1"),
        (("two.parquet",), "images: 'two.parquet': name the column of the images, it has 'a', 'b'"),
        (("images.parquet", "--image-column", "no"), "images: 'images.parquet' has no column 'no'"),
        (("x.npy",), "images: 'x.npy' is truncated or not a Parquet file"),
        (("images", "--image-column", "image"), "--image-column: 'images' is a folder, which has no columns"),
        (("none",), "--images: 'none' does not exist"),
    ],
)
def test_cli_bad_images_are_found_before_the_work(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    images: tuple[str, ...],
    message: str,
) -> None:
    pq.write_table(pa.table({"image": [b"x"] * 3}), "few.parquet")
    pq.write_table(pa.table({"a": [b"x"] * 30, "b": [b"x"] * 30}), "two.parquet")
    Path("few/a").mkdir(parents=True)
    Path("few/a/1.png").write_bytes(picture())
    for name in ("select_prototypes", "correct_labels"):
        monkeypatch.setattr(cli, name, None)
    assert message in run_error(capsys, command[0], "x.npy", "y.npy", *command[1:], "--images", *images)


def test_cli_files_are_whole_before_anything_is_printed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sys.stdout", Full())
    assert cli.main([*CORRECT, "x.npy", "y.npy", "-o", "o.csv", "--report", "p.html", "--quiet"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert Path("o.csv").exists()
    assert Path("p.html").read_text("utf-8").rstrip().endswith("</html>")
