"""Feature banks in .parquet files: the column chosen, bad lists, row groups kept and streamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bank_files import D, N, assert_same_bits, features, list_column, write_parquet

from proto_engine import bank_parquet
from proto_engine.bank import FeatureBank
from proto_engine.image_files import ParquetImages
from proto_engine.labels import read_labels


def test_bank_parquet_chooses_the_column(tmp_path: Path) -> None:
    path, x = tmp_path / "bank.parquet", features()
    pq.write_table(pa.table({"features": list_column(x), "other": list_column(x + 1), "id": np.arange(N)}), path)
    assert_same_bits(FeatureBank.open(path).rows(np.arange(N)), x)
    assert_same_bits(FeatureBank.open(path, column="other").rows(np.arange(N)), x + 1)
    with pytest.raises(
        ValueError, match=r"has no column 'none'; it has 'features \(.*\)', 'other \(.*\)', 'id \(int64\)'"
    ):
        FeatureBank.open(path, column="none")
    with pytest.raises(TypeError, match="column 'id': wanted lists of floats"):
        FeatureBank.open(path, column="id")
    pq.write_table(pa.table({"a": list_column(x), "b": list_column(x)}), path)
    with pytest.raises(ValueError, match=r"name the column to use with column=; it has 'a .*', 'b .*'"):
        FeatureBank.open(path)
    pq.write_table(pa.table({"f0": x[:, 0], "f1": x[:, 1]}), path)
    with pytest.raises(ValueError, match=r"wanted a column of lists, .*'f0 \(float\)', 'f1 \(float\)'"):
        FeatureBank.open(path)


@pytest.mark.parametrize("column", [None, "features"])
def test_bank_parquet_refuses_a_column_that_is_there_twice(tmp_path: Path, column: str | None) -> None:
    path, x = tmp_path / "bank.parquet", features()
    for other in (list_column(x), pa.array(np.arange(N))):
        pq.write_table(pa.Table.from_arrays([list_column(x), other], names=["features", "features"]), path)
        with pytest.raises(ValueError, match=r"bank\.parquet': wanted one column 'features', it has 2 of that name"):
            FeatureBank.open(path, column=column)
    others = pa.Table.from_arrays([list_column(x), pa.array(x[:, 0]), pa.array(x[:, 1])], names=["features", "a", "a"])
    pq.write_table(others, path)
    assert_same_bits(FeatureBank.open(path, column=column).rows(np.arange(N)), x)


def test_bank_parquet_refuses_other_lists(tmp_path: Path) -> None:
    path = tmp_path / "bank.parquet"
    ragged = [[1.0, 2.0]] * 40 + [[1.0]]
    cases: list[tuple[pa.Array, type[Exception], str]] = [
        (pa.array([[1, 2]]), TypeError, "wanted lists of float16, float32 or float64, got list<"),
        (pa.array([], pa.list_(pa.float32(), 2)), ValueError, "is empty: 0 rows"),
        (pa.array([[], []], pa.list_(pa.float32())), ValueError, "is empty: lists of length 0"),
        (pa.array(ragged), ValueError, "wanted lists of equal length, row 0 has 2 values, row 40 has 1"),
        (pa.array([None, [1.0]]), ValueError, "row 0 is null"),
        (pa.array([[1.0, 2.0]] * 37 + [None, [1.0, 2.0]]), ValueError, "row 37 is null"),
        # Arrow before 26 cannot read such a column at all.
        (pa.array([[1.0, 2.0]] * 37 + [None], pa.list_(pa.float64(), 2)), ValueError, "row 37 is null|damaged near"),
        (pa.array([[1.0, 2.0]] * 35 + [[1.0, None]]), ValueError, "row 35 has a null value"),
        (
            pa.array([[1.0, 2.0]] * 35 + [[None, 1.0]], pa.list_(pa.float32(), 2)),
            ValueError,
            "row 35 has a null value",
        ),
    ]
    for column, kind, message in cases:
        pq.write_table(pa.table({"x": column}), path, row_group_size=10)
        with pytest.raises(kind, match=message):
            list(FeatureBank.open(path).chunks())
        if "row 3" in message or "row 40" in message:  # seen by a gather too, as soon as it meets the row
            with pytest.raises(kind, match=message):
                FeatureBank.open(path).rows([len(column) - 1, 0, 37 if len(column) > 37 else 35])


def test_bank_parquet_with_damaged_pages_says_so(tmp_path: Path) -> None:
    path = tmp_path / "bank.parquet"
    write_parquet(path, features(), compression="zstd", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[200 : len(content) // 2] = bytes(len(content) // 2 - 200)
    path.write_bytes(content)
    bank = FeatureBank.open(path)
    with pytest.raises(ValueError, match="column 'feature' is damaged near row"):
        list(bank.chunks())


def test_bank_parquet_gathers_from_groups_too_large_to_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = features()
    write_parquet(tmp_path / "bank.parquet", x)
    monkeypatch.setattr(bank_parquet, "_BATCH_BYTES", 5 * D * 4)
    wanted = np.random.default_rng(2).permutation(N)
    for cache_rows in (0, 40, 70, 10**6):  # no group fits; one; two; all
        monkeypatch.setattr(bank_parquet, "_CACHE_BYTES", cache_rows * D * 4)
        bank = FeatureBank.open(tmp_path / "bank.parquet")
        for _ in range(2):
            assert_same_bits(bank.rows(wanted), x[wanted])
            assert sum(group.nbytes for group in bank._source._cache.values()) <= cache_rows * D * 4


def test_bank_parquet_decodes_kept_groups_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "bank.parquet", features())
    bank = FeatureBank.open(tmp_path / "bank.parquet")
    bank.rows([0, 40, 199])
    monkeypatch.setattr(bank._source, "_decode", None)  # would raise if it were needed
    assert_same_bits(bank.rows([198, 1, 41]), features()[[198, 1, 41]])


def test_bank_parquet_streams_a_large_row_group_in_bounded_memory(tmp_path: Path) -> None:
    num_samples, dim = 2**15, 512  # 64 MiB in one row group
    path = tmp_path / "bank.parquet"
    write_parquet(path, features(num_samples=num_samples, dim=dim), row_group_size=num_samples, compression="none")
    before, highest = pa.total_allocated_bytes(), 0
    for _, rows in FeatureBank.open(path).chunks(max_bytes=2**20):
        assert rows.shape[1] == dim
        highest = max(highest, pa.total_allocated_bytes() - before)
    assert highest < 24 * 2**20


def test_parquet_with_a_damaged_footer_is_refused_by_every_reader(tmp_path: Path) -> None:
    path, rng = tmp_path / "bank.parquet", np.random.default_rng(0)
    table = {"feature": list_column(features()), "label": pa.array(np.arange(N)), "image": pa.array([b"x"] * N)}
    pq.write_table(pa.table(table), path)
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    length = int.from_bytes(content[-8:-4].tobytes(), "little")
    readers: list[Callable[[], Any]] = [
        lambda: FeatureBank.open(path, column="feature").rows([0]),
        lambda: read_labels(path, "label"),
        lambda: ParquetImages(path, "image")[0],
    ]
    refused = np.zeros(len(readers), dtype=int)
    for _ in range(150):
        damaged = content.copy()
        where = rng.integers(len(content) - 8 - length, len(content), 3)
        damaged[where] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        for k, read in enumerate(readers):
            try:
                read()
            except ValueError as error:
                assert "bank.parquet" in str(error)
                refused[k] += 1
    assert (refused > 30).all()


def test_parquet_that_may_not_be_read_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bank_parquet.open_parquet(tmp_path / "none.parquet", "features")
