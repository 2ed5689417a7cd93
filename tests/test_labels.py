"""Reading labels: numbers pass through, names are encoded by sorted name, gaps are refused by row."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proto_engine.bank import FeatureBank
from proto_engine.labels import number_columns, read_label_pair, read_labels
from proto_engine.prototypes import Prototypes

NAMES = ["dog", "cat", "Zebra", "cat", "ähre", "dog"]
SORTED = ["Zebra", "cat", "dog", "ähre"]
CODES = [2, 1, 0, 1, 3, 2]


def write(path: Path, values: Any, column: str = "label", /, **more: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, np.asarray(values))
    elif path.suffix == ".csv":
        pd.DataFrame({column: values, **more}).to_csv(path, index=False)
    else:
        pq.write_table(pa.table({column: values, **more}), path)
    return path


def write_columns(path: Path, names: list[str]) -> None:
    """A table of two rows whose column k holds k; names may be repeated."""
    columns = [pa.array([k, k]) for k in range(len(names))]
    if path.suffix == ".csv":
        rows = [names, *[[str(k) for k in range(len(names))]] * 2]
        path.write_text("".join(",".join(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_arrays(columns, names=names), path)


ENDINGS = [".npy", ".csv", ".parquet"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_read_labels_numbers_pass_through(tmp_path: Path, ending: str) -> None:
    codes, names = read_labels(write(tmp_path / f"y{ending}", np.array([3, 0, 7, 3])))
    assert names is None
    assert codes.dtype == np.int64
    assert codes.tolist() == [3, 0, 7, 3]


@pytest.mark.parametrize("ending", ENDINGS)
def test_read_labels_names_are_encoded_in_sorted_order(tmp_path: Path, ending: str) -> None:
    codes, names = read_labels(write(tmp_path / f"y{ending}", NAMES))
    assert names == SORTED
    assert codes.dtype == np.int64
    assert codes.tolist() == CODES


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", ">i4", "i8", "u8", "f4", "f8"])
def test_read_labels_takes_every_number_type(tmp_path: Path, dtype: str) -> None:
    endings = [".npy"] if dtype.startswith(">") else [".npy", ".parquet"]
    for ending in endings:
        codes, names = read_labels(write(tmp_path / f"y{ending}", np.array([2, 0, 100], dtype=dtype)))
        assert (codes.tolist(), codes.dtype, names) == ([2, 0, 100], np.int64, None)


def test_read_labels_csv_numbers_may_be_written_as_floats(tmp_path: Path) -> None:
    (tmp_path / "y.csv").write_text("label\n2.0\n0.0\n1\n")
    assert read_labels(tmp_path / "y.csv")[0].tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    "texts",
    [
        ["001", "1", "01", "2"],
        ["001", "002"],
        ["0x10", "16"],
        ["1e3", "1000"],
        ["1", "two"],
        ["-01", "-1"],
        ["+1", "1"],
    ],
)
def test_read_labels_csv_names_made_of_digits_keep_their_spelling(tmp_path: Path, texts: list[str]) -> None:
    codes, names = read_labels(write(tmp_path / "y.csv", texts))
    assert names == sorted(texts)
    assert [names[code] for code in codes] == texts


def test_two_columns_of_names_of_which_one_has_digits_alone(tmp_path: Path) -> None:
    frame = pd.DataFrame({"given_label": ["1", "two", "1"], "suggested_label": ["1", "1", "2"]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    first, second, names, others = read_label_pair(tmp_path / "t.csv", "given_label", ("no", "suggested_label"), "t")
    assert (names, others) == (["1", "two"], ["1", "2"])
    assert (first.tolist(), second.tolist()) == ([0, 1, 0], [0, 0, 1])
    frame.astype({"suggested_label": int}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"^t mixes class names and numbers"):
        read_label_pair(tmp_path / "t.parquet", "given_label", ("suggested_label",), "t")


def test_read_labels_csv_takes_numbers_as_programs_write_them(tmp_path: Path) -> None:
    for dtype in (np.float64, np.int64):
        np.savetxt(tmp_path / "y.csv", np.array([0, 10, 2], dtype=dtype), header="label", comments="")
        codes, names = read_labels(tmp_path / "y.csv")
        assert (codes.tolist(), names) == ([0, 10, 2], None)
    (tmp_path / "y.csv").write_text("label\n1.0\nnan\n")
    with pytest.raises(ValueError, match=r"row 1 is missing"):
        read_labels(tmp_path / "y.csv")


def test_read_labels_csv_keeps_words_that_look_missing(tmp_path: Path) -> None:
    words = ["None", "NA", "null", "nan", "a, b", 'say "x"', "two\nlines"]
    codes, names = read_labels(write(tmp_path / "y.csv", words))
    assert names == sorted(words)
    assert [names[code] for code in codes] == words


@pytest.mark.parametrize(
    "values",
    [
        pa.array(NAMES, pa.large_string()),
        pa.array(NAMES).dictionary_encode(),
        pa.chunked_array([NAMES[:2], NAMES[2:]]),
    ],
    ids=["large", "dictionary", "chunked"],
)
def test_read_labels_parquet_takes_every_kind_of_string(tmp_path: Path, values: Any) -> None:
    codes, names = read_labels(write(tmp_path / "y.parquet", values))
    assert (codes.tolist(), names) == (CODES, SORTED)


def test_read_labels_parquet_takes_number_categories_and_truth_values(tmp_path: Path) -> None:
    codes, names = read_labels(write(tmp_path / "y.parquet", pa.array([5, 9, 5]).dictionary_encode()))
    assert (codes.tolist(), names) == ([5, 9, 5], None)
    codes, names = read_labels(write(tmp_path / "y.parquet", pa.array([True, False])))
    assert (codes.tolist(), names) == ([1, 0], ["false", "true"])


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_read_labels_chooses_the_column(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"y{ending}"
    for usual in ("label", "labels", "given_label"):
        write(path, [1, 0], usual, path=["a", "b"])
        assert read_labels(path)[0].tolist() == [1, 0]
    assert read_labels(path, "path")[1] == ["a", "b"]
    with pytest.raises(ValueError, match=r"labels: .* has no column 'none', it has 'given_label', 'path'"):
        read_labels(path, "none")
    write(path, [1, 0], "x", z=[1, 1])
    with pytest.raises(ValueError, match="name the column of the labels, it has 'x', 'z'"):
        read_labels(path)
    write(path, [1, 0], "label", given_label=[1, 1])
    with pytest.raises(ValueError, match="name the column of the labels, it has 'label', 'given_label'"):
        read_labels(path)
    assert read_labels(write(path, [4, 2], "anything"))[0].tolist() == [4, 2]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_read_labels_refuses_a_column_that_is_there_twice(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"y{ending}"
    for names, column in ((["label", "label", "x"], None), (["label", "label", "x"], "label")):
        write_columns(path, names)
        with pytest.raises(ValueError, match=rf"y\{ending}': wanted one column 'label', it has 2 of that name"):
            read_labels(path, column)
    write_columns(path, ["x", "x", "label"])
    assert read_labels(path)[0].tolist() == [2, 2]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("values", [[1, None, 0, None], ["a", None, "b", None]])
def test_read_labels_names_the_first_missing_row(tmp_path: Path, ending: str, values: list[Any]) -> None:
    path = write(tmp_path / f"y{ending}", values, id=[1, 2, 3, 4])
    with pytest.raises(ValueError, match=r"column 'label': row 1 is missing \(2 missing in all\)"):
        read_labels(path)


def test_read_labels_csv_takes_a_blank_line_for_a_missing_label(tmp_path: Path) -> None:
    """Skipped, it would silently move every label after it to the sample before."""
    (tmp_path / "y.csv").write_text("label\n1\n\n0\n")
    with pytest.raises(ValueError, match="row 1 is missing"):
        read_labels(tmp_path / "y.csv")


def test_read_labels_refuses_wrong_values(tmp_path: Path) -> None:
    cases: list[tuple[str, Any, type[Exception], str]] = [
        (".npy", [0, -1], ValueError, "wanted class numbers from 0, row 1 is -1"),
        (".csv", [0, 2, -3], ValueError, "wanted class numbers from 0, row 2 is -3"),
        (".parquet", [-1], ValueError, "wanted class numbers from 0, row 0 is -1"),
        (".npy", [0.0, 1.5], ValueError, "wanted whole numbers, row 1 is 1.5"),
        (".csv", [0.25, 1], ValueError, "wanted whole numbers, row 0 is 0.25"),
        (".parquet", [1.0, float("nan")], ValueError, "row 1 is missing"),
        (".npy", [1.0, float("inf")], ValueError, "wanted class numbers from 0, row 1 is inf"),
        (
            ".npy",
            np.array([2**63], dtype=np.uint64),
            ValueError,
            "wanted class numbers from 0, row 0 is 9223",
        ),
        (".npy", ["a", ""], ValueError, "row 1 is missing"),
        (".npy", [[1, 2]], ValueError, r"wanted one dimension \[N\], got shape \(1, 2\)"),
        (".npy", [b"a"], TypeError, r"wanted integers or unicode strings, got \|S1"),
        (".npy", [True], TypeError, "wanted integers or unicode strings, got bool"),
        (".npy", np.array(["a", 1], dtype=object), TypeError, "holds Python objects, which are refused"),
        (".npy", np.zeros(0, dtype=np.int64), ValueError, r"is empty: shape \(0,\)"),
        (".parquet", pa.array([], pa.int64()), ValueError, "is empty: 0 rows"),
        (".parquet", pa.array([b"a"]), TypeError, "wanted integers or strings, got binary"),
        (".parquet", pa.array([[1]]), TypeError, "wanted integers or strings, got list"),
    ]
    for ending, values, kind, message in cases:
        path = write(tmp_path / f"y{ending}", values)
        with pytest.raises(kind, match=f"labels: .*{message}"):
            read_labels(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("label\n", "is empty: 0 rows"),
        ("3\n1\n2\n", "wanted a header line with column names, got '3'"),
        ("label,path\n1\n", "is damaged or not a .csv file"),
        ("label\n\xff\n", "is damaged or not a .csv file"),
    ],
)
def test_read_labels_refuses_bad_csv_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "y.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=f"labels: .*{message}"):
        read_labels(tmp_path / "y.csv")


@pytest.mark.parametrize("ending", [".npy", ".parquet"])
def test_read_labels_refuses_truncated_and_foreign_files(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"y{ending}", np.arange(100))
    content = path.read_bytes()
    for bad in (b"", b"label\n1\n", content[:-1], content[: len(content) // 2]):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"labels: .*y\."):
            read_labels(path)


def test_read_labels_parquet_with_damaged_pages_says_so(tmp_path: Path) -> None:
    values = pa.array([f"class {k}" for k in range(1000)])
    pq.write_table(pa.table({"label": values}), tmp_path / "y.parquet", compression="zstd", use_dictionary=False)
    content = bytearray((tmp_path / "y.parquet").read_bytes())
    content[50:500] = bytes(450)
    (tmp_path / "y.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"labels: .*y\.parquet.* is damaged"):
        read_labels(tmp_path / "y.parquet")


def test_read_labels_refuses_other_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"labels: .*none\.csv' does not exist"):
        read_labels(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(IsADirectoryError, match="labels: wanted a file"):
        read_labels(tmp_path / "folder.csv")
    (tmp_path / "y.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"labels: wanted a \.npy, \.csv or \.parquet file"):
        read_labels(tmp_path / "y.json")
    with pytest.raises(ValueError, match=r"column: .* has no columns, got 'label'"):
        read_labels(write(tmp_path / "y.npy", [1]), "label")


def test_number_columns_have_the_bits_that_were_written(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random(1000) ** 8
    values[3] = np.nan
    frame = pd.DataFrame({"name": ["a\nb"] * 1000, "score": values, "index": np.arange(1000)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    for ending in ("csv", "parquet"):
        got = number_columns(tmp_path / f"t.{ending}", ["score", "index"], "table")
        np.testing.assert_array_equal(got["score"], values)
        np.testing.assert_array_equal(got["index"], np.arange(1000.0))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("columns", [("given_label", "suggested_label"), ("label", "changed")])
def test_read_labels_refuses_a_table_of_ours_that_was_sorted(tmp_path: Path, ending: str, columns: tuple[str, str]):
    path = tmp_path / f"t{ending}"
    frame = pd.DataFrame({"index": [0, 1, 2], columns[0]: ["a", "b", "a"], columns[1]: ["b", "b", "a"]})
    for rows, fits in ((frame, True), (frame[::-1], False), (frame[1:], False), (pd.concat([frame, frame]), False)):
        (rows.to_csv if ending == ".csv" else rows.to_parquet)(path, index=False)
        if fits:
            assert read_labels(path, columns[0])[0].tolist() == [0, 1, 0]
            continue
        with pytest.raises(ValueError, match=r"labels: .*wanted all rows of the data set in their order"):
            read_labels(path, columns[0])
    mine = frame[::-1].rename(columns={columns[1]: "mine"})
    texts = frame[::-1].astype({"index": str}).replace({"index": {"2": "img2"}})
    for other in (mine, texts):  # an index of the user's own
        (other.to_csv if ending == ".csv" else other.to_parquet)(path, index=False)
        assert read_labels(path, columns[0])[0].tolist() == [0, 1, 0]


def test_read_labels_takes_an_empty_text_for_a_missing_label_in_every_file(tmp_path: Path) -> None:
    for ending in ENDINGS:
        with pytest.raises(ValueError, match=r"row 1 is missing"):
            read_labels(write(tmp_path / f"y{ending}", np.array(["cat", "", "dog"])))


@pytest.mark.parametrize(("encoding", "text"), [("utf-16", "label\ncat\n"), ("latin-1", "l\u00e4bel\ncat\n")])
def test_read_labels_names_a_file_in_another_encoding(tmp_path: Path, encoding: str, text: str) -> None:
    (tmp_path / "y.csv").write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=r"labels: .*y\.csv' is damaged or not a .csv file"):
        read_labels(tmp_path / "y.csv")


@pytest.mark.parametrize("letter", [0x110000, 0xD800, 0xFFFFFFFF])
@pytest.mark.parametrize("order", ["<", ">"])
def test_read_labels_refuses_letters_that_no_text_has(tmp_path: Path, letter: int, order: str) -> None:
    np.save(tmp_path / "y.npy", np.array([[97, 0], [letter, 98]], dtype=f"{order}u4").view(f"{order}U2")[:, 0])
    with pytest.raises(ValueError, match=r"labels: .*y\.npy' is damaged: it has letters"):
        read_labels(tmp_path / "y.npy")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes that have names")
@pytest.mark.parametrize("ending", [".npy", ".csv", ".parquet", ".safetensors"])
def test_pipes_are_refused_instead_of_waited_for(tmp_path: Path, ending: str) -> None:
    os.mkfifo(tmp_path / f"f{ending}")
    readers: dict[str, list[Callable[[Path], Any]]] = {
        ".npy": [FeatureBank.open, read_labels], ".csv": [read_labels], ".parquet": [FeatureBank.open, read_labels],
        ".safetensors": [FeatureBank.open, Prototypes.load],
    }  # fmt: skip
    for read in readers[ending]:
        with pytest.raises(ValueError, match=r"wanted a plain file, .* is a device or a pipe"):
            read(tmp_path / f"f{ending}")
