"""The corrections table: the same values in memory, as a frame and in files."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from proto_engine import corrections
from proto_engine.corrections import Corrections
from proto_engine.labels import read_labels

GIVEN = np.array([0, 0, 1, 1, 2, 0])
LABELS = np.array([0, 1, 1, 0, 1, 1])
COLUMNS = ["index", "given_label", "suggested_label", "score", "margin", "changed"]
CLASS_NAMES = ["cat", "dog, wet", 'the "fox"']


def example() -> Corrections:
    score = np.linspace(0.5, 1.0, 6, dtype=np.float32)
    return Corrections(LABELS, GIVEN, score, score / 3, GIVEN != LABELS)


def as_tensors(found: Corrections) -> Corrections:
    torch = pytest.importorskip("torch")
    names = ("labels", "given", "score", "margin", "changed")
    return Corrections(*(torch.from_numpy(getattr(found, name)) for name in names))


def test_corrections_frame_has_a_row_a_sample() -> None:
    frame = example().to_frame()
    assert list(frame.columns) == COLUMNS
    assert len(example()) == len(frame) == 6
    assert frame["index"].tolist() == list(range(6))
    assert frame["given_label"].tolist() == GIVEN.tolist()
    assert frame["suggested_label"].tolist() == LABELS.tolist()
    assert frame["changed"].tolist() == (GIVEN != LABELS).tolist()
    assert frame["score"].dtype == frame["margin"].dtype == np.float32


def test_corrections_frame_shows_class_names() -> None:
    frame = example().to_frame(CLASS_NAMES)
    assert frame["given_label"].tolist() == [CLASS_NAMES[label] for label in GIVEN]
    assert frame["suggested_label"].tolist() == [CLASS_NAMES[label] for label in LABELS]
    with pytest.raises(ValueError, match="class_names: wanted a name for each label up to 2, got 2 names"):
        example().to_frame(["a", "b"])


def test_corrections_of_tensors_give_the_same_frame_and_files(tmp_path: Path) -> None:
    tensors = as_tensors(example())
    pd.testing.assert_frame_equal(tensors.to_frame(), example().to_frame())
    assert tensors.summary().flows == example().summary().flows
    tensors.save(tmp_path / "a.csv")
    example().save(tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize("class_names", [None, CLASS_NAMES])
@pytest.mark.parametrize("rows_per_write", [4, 2**20])
def test_corrections_saved_files_read_back_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, class_names: Any, rows_per_write: int
) -> None:
    monkeypatch.setattr(corrections, "_ROWS_PER_WRITE", rows_per_write)
    frame = example().to_frame(class_names)
    example().save(tmp_path / "out.parquet", class_names)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), frame)
    example().save(tmp_path / "out.CSV", class_names)
    read = pd.read_csv(tmp_path / "out.CSV", dtype={"score": np.float32, "margin": np.float32})
    pd.testing.assert_frame_equal(read, frame)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.CSV", "out.parquet"]


def test_corrections_csv_is_plain(tmp_path: Path) -> None:
    example().save(tmp_path / "out.csv", CLASS_NAMES)
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert lines[1] == "0,cat,cat,0.5,0.16666667,False"
    assert lines[5].startswith('4,"the ""fox""","dog, wet",')


def test_corrections_save_checks_the_path_first(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path: wanted a file ending in \.parquet or \.csv, got .*out\.txt"):
        example().save(tmp_path / "out.txt")
    with pytest.raises(FileNotFoundError, match="path: the folder"):
        example().save(tmp_path / "none" / "out.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_corrections_save_on_a_full_disk_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    path = tmp_path / f"out{ending}"
    path.write_bytes(b"old")

    def full(self: Corrections, *args: Any) -> Any:
        yield pd.DataFrame({"index": [0]})
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Corrections, "_frames", full)
    with pytest.raises(OSError, match="No space left"):
        example().save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_corrections_summary_counts_by_hand() -> None:
    summary = example().summary(num_classes=4)
    assert (summary.num_samples, summary.num_changed) == (6, 4)
    assert summary.share_changed == pytest.approx(4 / 6)
    assert summary.samples_per_class.tolist() == [3, 2, 1, 0]
    assert summary.changed_per_class.tolist() == [2, 1, 1, 0]
    assert summary.flows == [(0, 1, 2), (1, 0, 1), (2, 1, 1)]


def test_corrections_summary_agrees_with_a_plain_count() -> None:
    rng = np.random.default_rng(0)
    given, labels = rng.integers(0, 9, (2, 5000))
    zeros = np.zeros(5000, dtype=np.float32)
    summary = Corrections(labels, given, zeros, zeros, given != labels).summary()
    table = pd.crosstab(given, labels).to_numpy(copy=True)
    np.fill_diagonal(table, 0)
    assert summary.changed_per_class.tolist() == table.sum(axis=1).tolist()
    assert {(a, b): count for a, b, count in summary.flows} == {
        (a, b): table[a, b] for a in range(9) for b in range(9) if table[a, b]
    }
    assert [count for *_, count in summary.flows] == sorted(table[table > 0], reverse=True)


def test_corrections_summary_without_changes_or_samples() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    empty = Corrections(nothing, nothing, nothing, nothing, nothing.astype(bool)).summary(2)
    assert (empty.share_changed, empty.flows, empty.samples_per_class.tolist()) == (0.0, [], [0, 0])
    same = Corrections(GIVEN, GIVEN, GIVEN, GIVEN, np.zeros(6, dtype=bool)).summary()
    assert (same.num_changed, same.flows) == (0, [])


def test_corrections_summary_checks_labels() -> None:
    with pytest.raises(ValueError, match="num_classes: wanted more than the largest label 2, got 2"):
        example().summary(num_classes=2)
    words = np.array(["a", "b"])
    with pytest.raises(TypeError, match="summary: wanted integer labels, got <U1"):
        Corrections(words, words, words, words, words == words).summary()


def test_corrections_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        example().labels = GIVEN  # type: ignore[misc]


def test_names_with_line_ends_come_back_from_csv(tmp_path):
    names = ["cat\r", "a\nb", "a\r\nb", 'say "x"', "plain"]
    labels = np.arange(10) % 5
    found = Corrections(labels, labels[::-1].copy(), np.ones(10), np.ones(10), labels != labels[::-1])
    found.save(tmp_path / "c.csv", names)
    frame = pd.read_csv(tmp_path / "c.csv")
    assert frame["suggested_label"].tolist() == [names[c] for c in labels]
    assert frame["index"].tolist() == list(range(10)) and frame["changed"].tolist() == found.changed.tolist()
    codes, read = read_labels(tmp_path / "c.csv", "given_label")
    assert [read[c] for c in codes] == [names[c] for c in labels[::-1]]
    plain = tmp_path / "plain.csv"
    found.save(plain, ["a", "b", "c", "d", "e"])
    assert '"' not in plain.read_text().splitlines()[-1]
