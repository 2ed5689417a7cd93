"""Decisions back into labels and folders of links: what is applied, and everything that is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_house import picture

import proto_engine as pe
from proto_engine.cli import main
from proto_engine.decisions import COLUMNS, apply_decisions, read_decisions
from proto_engine.image_files import ParquetImages, list_image_folder
from proto_engine.label_text import labels_digest
from proto_engine.label_tree import write_tree

NAMES = ["ant", "bee", "cat"]
GIVEN = np.array([0, 0, 1, 1, 2, 2])
SUGGESTED = np.array([0, 1, 1, 2, 2, 0])
DIGEST = labels_digest(GIVEN, NAMES)


def decisions(file: Path, rows: list[tuple[int, str, str]], names: list[str] | None = None, **more: Any) -> Path:
    """A file as the page writes it: (row, decision, label)."""
    names = names or NAMES
    frame = pd.DataFrame(
        {
            "index": [row for row, _, _ in rows],
            "given_label": [names[GIVEN[row]] for row, _, _ in rows],
            "suggested_label": [names[SUGGESTED[row]] for row, _, _ in rows],
            "decision": [kind for _, kind, _ in rows],
            "label": [label for _, _, label in rows],
            "labels_sha256": labels_digest(GIVEN, names),
        }
    )
    frame.assign(**more).to_csv(file, index=False)
    return file


DECIDED = [(1, "accept", "bee"), (3, "reject", "bee"), (5, "relabel", "bee")]
AFTER = ["ant", "bee", "bee", "bee", "cat", "bee"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Labels in several kinds of file, the table of a correction, an image folder, and decisions."""
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"label": np.array(NAMES)[GIVEN]}).to_csv("labels.csv", index=False)
    np.save("labels.npy", np.array(NAMES)[GIVEN])
    np.save("numbers.npy", GIVEN)
    margin = np.linspace(0.1, 0.6, 6)
    pe.Corrections(SUGGESTED, GIVEN, margin, margin, GIVEN != SUGGESTED).save("corrected.parquet", NAMES)
    for row, c in enumerate(GIVEN):
        Path("images", NAMES[c]).mkdir(parents=True, exist_ok=True)
        Path("images", NAMES[c], f"{row % 2}.png").write_bytes(picture((row, 0, 0)))
    decisions(tmp_path / "decisions.csv", DECIDED)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert main(["apply", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def run_error(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    before = sorted(os.listdir())
    assert main(["apply", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("proto-engine: error: ") and captured.err.count("\n") == 1
    assert sorted(os.listdir()) == before
    return captured.err


@pytest.mark.parametrize("source", ["labels.csv", "labels.npy", "corrected.parquet", "images"])
def test_apply_reads_labels_from_anywhere(folder: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, source, "decisions.csv", "-o", "new.csv")
    assert out == "3 decisions applied, 2 of 6 labels changed\n"
    frame = pd.read_csv("new.csv")
    assert frame["label"].tolist() == AFTER
    assert frame["changed"].tolist() == [False, True, False, False, False, True]


def test_apply_writes_every_kind_of_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("new.npy", "new.parquet"):
        run(capsys, "labels.csv", "decisions.csv", "-o", name)
    assert np.load("new.npy").tolist() == AFTER
    assert pd.read_parquet("new.parquet")["label"].tolist() == AFTER


def test_apply_keeps_numbers_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decisions(folder / "n.csv", [(1, "accept", "1"), (4, "relabel", "7")], names=["0", "1", "2"])
    run(capsys, "numbers.npy", "n.csv", "-o", "new.npy")
    assert np.load("new.npy").tolist() == [0, 1, 1, 1, 7, 2]
    decisions(folder / "n.csv", [(4, "relabel", "cat")], names=["0", "1", "2"])
    assert "the labels are numbers, row 4 was labeled 'cat'" in run_error(capsys, "numbers.npy", "n.csv", "-o", "x.npy")


def test_apply_refuses_numbers_that_cannot_be_classes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each number up to the largest gets its text: row numbers or hashes would take all memory."""
    np.save("hashes.npy", [2**24, 0])
    error = run_error(capsys, "hashes.npy", "decisions.csv", "-o", "new.csv")
    assert "labels: wanted less than 16777216, got 16777216 at row 0" in error


def test_apply_undecided_rows_may_take_the_suggestion(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--undecided", "suggested", "-o", "new.csv")
    run(capsys, "corrected.parquet", *options)
    assert pd.read_csv("new.csv")["label"].tolist() == np.array(NAMES)[SUGGESTED].tolist()
    run(capsys, "corrected.parquet", "decisions.csv", *options)
    assert pd.read_csv("new.csv")["label"].tolist() == ["ant", "bee", "bee", "bee", "cat", "bee"]
    assert "no column 'suggested_label'" in run_error(capsys, "labels.npy", *options)
    assert "has no column 'suggested_label'" in run_error(capsys, "labels.csv", *options)


def test_apply_refuses_decisions_of_another_data_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("other.npy", np.array(NAMES)[GIVEN[::-1]])
    error = run_error(capsys, "other.npy", "decisions.csv", "-o", "new.csv")
    assert "made for another data set" in error and DIGEST[:16] in error
    np.save("shorter.npy", np.array(NAMES)[GIVEN[:5]])
    for tree in ((), ("--tree", "images", "new")):
        assert "another data set" in run_error(capsys, "shorter.npy", "decisions.csv", "-o", "new.csv", *tree)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decision": "maybe"}, "line 2: wanted accept, reject or relabel as decision, got 'maybe'"),
        ({"index": -1}, "line 2: wanted a row number from 0 as index, got '-1'"),
        ({"index": 1}, "row 1 is decided twice"),
        ({"label": "cat"}, "line 2: accept means the label 'bee', got 'cat'"),
        ({"label": ""}, "line 2: accept means the label 'bee', got ''"),
        ({"labels_sha256": ["a", "a", "b"]}, "about different data sets, see line 4"),
        ({"given_label": ["bee", "bee", "cat"]}, "row 1 was given 'ant', not 'bee'"),
        ({"index": [1, 3, 600]}, "wanted rows below 6, got row 600"),
    ],
)
def test_apply_refuses_decisions_that_mean_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    decisions(folder / "bad.csv", DECIDED, **change)
    assert message in run_error(capsys, "labels.csv", "bad.csv", "-o", "new.csv")


def test_read_decisions_refuses_other_files(folder: Path) -> None:
    frame = pd.read_csv("decisions.csv")
    for column in COLUMNS:
        frame.drop(columns=column).to_csv("bad.csv", index=False)
        with pytest.raises(ValueError, match=f"wanted a column '{column}'"):
            read_decisions("bad.csv")
    for content, message in (
        (b"", "wanted a column 'index'"),
        (",".join(COLUMNS).encode(), "holds no decisions"),
        (",".join(COLUMNS).encode() + b"\n1,ant\n", "line 2 is too short"),
        (b"\xff\xfe\x00", "damaged or not a CSV file"),
        (",".join(COLUMNS).encode() + b'\n"1', "damaged or not a CSV file"),
    ):
        Path("bad.csv").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_decisions("bad.csv")
    Path("marked.csv").write_bytes(b"\xef\xbb\xbf" + Path("decisions.csv").read_bytes())  # as a spreadsheet saves it
    assert read_decisions("marked.csv") == read_decisions("decisions.csv")


def test_apply_decisions_adds_names_that_no_given_label_has(folder: Path) -> None:
    found, digest = read_decisions(decisions(folder / "d.csv", [(0, "relabel", "dog")]))
    codes, names = apply_decisions(GIVEN, NAMES, found, digest)
    assert (codes.tolist(), names) == ([3, 0, 1, 1, 2, 2], [*NAMES, "dog"])
    assert NAMES == ["ant", "bee", "cat"] and GIVEN[0] == 0  # inputs stay


def test_apply_checks_its_arguments_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "wanted --output, --tree or both" in run_error(capsys, "labels.csv", "decisions.csv")
    assert "without a file of decisions" in run_error(capsys, "labels.csv", "-o", "new.csv")
    assert "wanted a file ending in .csv" in run_error(capsys, "labels.csv", "decisions.csv", "-o", "new.txt")
    assert "would be lost" in run_error(capsys, "labels.csv", "decisions.csv", "-o", "labels.csv")
    assert "which has no columns" in run_error(capsys, "images", "decisions.csv", "--label-column", "x", "-o", "n.csv")


def listing(root: str) -> dict[str, str]:
    """Files of a folder and what they hold, folders with nothing in them too."""
    found = {}
    for where, folders, files in os.walk(root):
        if not folders and not files:
            found[os.path.relpath(where, root) + "/"] = ""
        for file in files:
            path = os.path.join(where, file)
            found[os.path.relpath(path, root)] = os.path.relpath(os.path.realpath(path), os.path.realpath("images"))
    return found


def test_apply_links_a_corrected_tree(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path("images").rglob("*")}
    out = run(capsys, "labels.csv", "decisions.csv", "--tree", "images", "fixed")
    assert "6 images linked in fixed, 2 of them in another class than before" in out
    assert listing("fixed") == {
        "ant/0.png": "ant/0.png",
        "bee/0.png": "bee/0.png",
        "bee/1.png": "bee/1.png",
        "bee/ant--1.png": "ant/1.png",
        "bee/cat--1.png": "cat/1.png",
        "cat/0.png": "cat/0.png",
    }
    assert {path: path.stat().st_mtime_ns for path in Path("images").rglob("*")} == before
    assert Path("fixed/bee/ant--1.png").is_symlink()
    assert list_image_folder("fixed", "tree")[1].tolist() == [0, 1, 1, 1, 1, 2]


def test_apply_tree_by_numbers_and_from_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decisions(folder / "n.csv", [(1, "accept", "1")], names=["0", "1", "2"])
    run(capsys, "numbers.npy", "n.csv", "--tree", "images", "numbered")
    assert "bee/ant--1.png" in listing("numbered")
    run(capsys, "images", "decisions.csv", "--tree", "images", "named")
    assert "bee/ant--1.png" in listing("named")


def test_tree_keeps_empty_classes_subfolders_and_names_apart(folder: Path) -> None:
    Path("images/ant/deep").mkdir()
    Path("images/ant/deep/1.png").write_bytes(picture())
    Path("images/bee/ant--1.png").write_bytes(picture())  # the name that a moved image would take
    paths, codes, classes = list_image_folder("images", "tree")
    given = [classes[c] for c in codes]
    assert write_tree("images", "new", given, ["bee"] * len(given)) == 5
    assert listing("new") == {
        "ant/": "",
        "bee/0.png": "bee/0.png",
        "bee/1.png": "bee/1.png",
        "bee/ant--0.png": "ant/0.png",
        "bee/ant--1.png": "bee/ant--1.png",
        f"bee/ant--1--{paths.index('ant/1.png')}.png": "ant/1.png",
        "bee/ant--deep--1.png": "ant/deep/1.png",
        "bee/cat--0.png": "cat/0.png",
        "bee/cat--1.png": "cat/1.png",
        "cat/": "",
    }
    write_tree("images", "same", given, given)
    assert listing("same")["ant/deep/1.png"] == "ant/deep/1.png"


def test_tree_refuses_and_leaves_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [NAMES[c] for c in GIVEN]
    Path("dangling").symlink_to("nowhere")
    for target, error, message in (
        ("images", FileExistsError, "exists; wanted a new folder"),
        ("dangling", FileExistsError, "exists; wanted a new folder"),
        ("images/new", ValueError, "lies within"),
        ("none/new", FileNotFoundError, "does not exist"),
    ):
        with pytest.raises(error, match=message):
            write_tree("images", target, given, given)
    with pytest.raises(ValueError, match=r"wanted 5 images, one for each label, .* has 6"):
        write_tree("images", "new", given[:5], given[:5])
    with pytest.raises(ValueError, match=r"row 0 was given 'cat', but is 'ant/0\.png'"):
        write_tree("images", "new", given[::-1], given[::-1])
    for name in ("../up", "a\\b", "..", ""):
        with pytest.raises(ValueError, match="cannot be the name of a folder"):
            write_tree("images", "new", given, [name, *given[1:]])
    with pytest.raises(NotADirectoryError, match="wanted a folder with a subfolder"):
        write_tree("labels.csv", "new", given, given)
    decisions(folder / "paths.csv", [(1, "accept", "bee")], path="ant/9.png")
    error = run_error(capsys, "labels.csv", "paths.csv", "--tree", "images", "new")
    assert "row 1 was 'ant/9.png', but is 'ant/1.png'" in error
    assert not any("new" in name for name in os.listdir())


def test_tree_that_fails_half_way_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [NAMES[c] for c in GIVEN]
    links: list[Path] = []

    def fail(self: Path, target: Path) -> None:
        links.append(self)
        if len(links) == 3:
            raise OSError("disk full")

    monkeypatch.setattr(Path, "symlink_to", fail)
    before = sorted(os.listdir())
    with pytest.raises(OSError, match="disk full"):
        write_tree("images", "new", given, given)
    assert sorted(os.listdir()) == before


def test_image_folder_is_numbered_as_torchvision_numbers_it(folder: Path) -> None:
    from torchvision.datasets import ImageFolder

    for name in ("ant/b/z.JPG", "ant/a/y.webp", "ant/notes.txt", "bee/x.jpeg"):
        Path("images", name).parent.mkdir(exist_ok=True)
        Path("images", name).write_bytes(picture())
    paths, labels, classes = list_image_folder("images", "images")
    theirs = ImageFolder("images")
    assert classes == theirs.classes
    assert [(os.path.join("images", path), label) for path, label in zip(paths, labels, strict=True)] == theirs.samples
    with pytest.raises(ValueError, match="found no image"):
        list_image_folder("images/ant/a", "images")


@pytest.mark.parametrize("kind", ["bytes", "paths", "structures"])
def test_parquet_images_are_read_group_by_group(folder: Path, kind: str) -> None:
    paths = [f"images/{NAMES[c]}/{row % 2}.png" for row, c in enumerate(GIVEN)]
    encoded = [Path(path).read_bytes() for path in paths]
    structures = [{"bytes": data, "path": path} for data, path in zip(encoded, paths, strict=True)]
    values: list[Any] = {"bytes": encoded, "paths": paths, "structures": structures}[kind]
    pq.write_table(pa.table({"x": pa.array([*values[:5], None]), "label": GIVEN}), "images.parquet", row_group_size=4)
    images = ParquetImages(folder / "images.parquet", "x")
    assert len(images) == 6
    wanted = [str(folder / path) for path in paths] if kind == "paths" else encoded
    assert [images[row] for row in (4, 0, 3)] == [wanted[row] for row in (4, 0, 3)]
    assert not images[5]
    assert images.paths == (None if kind == "bytes" else [*paths[:5], ""])


def test_parquet_images_want_a_column_of_images(folder: Path) -> None:
    pq.write_table(pa.table({"a": [b"x"], "b": [b"y"], "n": [1]}), "images.parquet")
    with pytest.raises(ValueError, match="name the column of the images"):
        ParquetImages("images.parquet")
    with pytest.raises(ValueError, match="has no column 'z'"):
        ParquetImages("images.parquet", "z")
    with pytest.raises(ValueError, match="column 'n': wanted bytes or paths, got int64"):
        ParquetImages("images.parquet", "n")
    pq.write_table(pa.table({"image": [b"x"], "name": ["y"]}), "images.parquet")
    assert ParquetImages("images.parquet")[0] == b"x"
    pq.write_table(pa.Table.from_arrays([pa.array([b"x"])] * 2, names=["image", "image"]), "images.parquet")
    for column in (None, "image"):
        with pytest.raises(ValueError, match=r"'images\.parquet': wanted one column 'image', it has 2 of that name"):
            ParquetImages("images.parquet", column)
    Path("bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="truncated or not a Parquet file"):
        ParquetImages("bad.parquet")


@pytest.mark.parametrize("kind", ["bytes", "paths"])
def test_parquet_images_with_damaged_pages_say_so(folder: Path, kind: str) -> None:
    data = np.random.default_rng(0).integers(97, 123, (100, 50), dtype=np.uint8)
    values = [row.tobytes() if kind == "bytes" else row.tobytes().decode() for row in data]
    pq.write_table(pa.table({"image": values}), "images.parquet", compression="zstd", use_dictionary=False)
    content = bytearray(Path("images.parquet").read_bytes())
    content[50:1500] = bytes(1450)
    Path("images.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"images: 'images\.parquet', column 'image' is damaged"):
        ParquetImages("images.parquet")[0]


def test_a_table_that_was_sorted_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"index": [2, 0, 1], "given_label": ["a", "b", "a"], "suggested_label": ["b", "b", "a"]}
    pd.DataFrame(rows).to_csv("sorted.csv", index=False)
    assert main(["apply", "sorted.csv", "--undecided", "suggested", "-o", "out.csv"]) == 2
    assert "wanted all rows of the data set in their order" in capsys.readouterr().err
    assert not Path("out.csv").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes that have names")
def test_a_pipe_among_the_images_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(b"x")
    (tmp_path / "cat" / "b.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "cat" / "c.png")
    assert list_image_folder(tmp_path, "images")[0] == ["cat/a.png", "cat/b.png"]
