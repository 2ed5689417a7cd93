"""Feature banks: the same rows from memory and from every kind of file, and clear words about bad files."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_cupy
import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proto_engine import bank_parquet
from proto_engine.array_kinds import to_numpy
from proto_engine.bank import FeatureBank

N, D = 200, 7
STATM = Path("/proc/self/statm")


def features(dtype: Any = np.float32, num_samples: int = N, dim: int = D) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(num_samples, dim)).astype(dtype)


def list_column(x: np.ndarray, fixed: bool = True) -> pa.Array:
    values = pa.array(x.ravel())
    if fixed:
        return pa.FixedSizeListArray.from_arrays(values, x.shape[1])
    return pa.ListArray.from_arrays(np.arange(len(x) + 1, dtype=np.int32) * x.shape[1], values)


def write_parquet(path: Path, x: np.ndarray, fixed: bool = True, **options: Any) -> None:
    table = pa.table({"id": np.arange(len(x)), "feature": list_column(x, fixed)})
    pq.write_table(table, path, **{"row_group_size": 33, **options})


WRITERS: dict[str, tuple[str, Callable[[Path, np.ndarray], Any]]] = {
    "npy": ("bank.npy", np.save),
    "npy-fortran": ("bank.npy", lambda path, x: np.save(path, np.asfortranarray(x))),
    "safetensors": ("bank.safetensors", lambda path, x: safetensors.numpy.save_file({"features": x}, path)),
    "parquet-fixed": ("bank.parquet", write_parquet),
    "parquet-lists": ("bank.parquet", lambda path, x: write_parquet(path, x, fixed=False)),
}


def cases() -> list[tuple[str, Any]]:
    floats = [np.float16, np.float32, np.float64]
    return [(kind, dtype) for kind in WRITERS for dtype in floats] + [("safetensors", ml_dtypes.bfloat16)]


def make(tmp_path: Path, kind: str, x: np.ndarray) -> FeatureBank:
    name, write = WRITERS[kind]
    write(tmp_path / name, x)
    return FeatureBank.open(tmp_path / name)


def assert_same_bits(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    assert got.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(("kind", "dtype"), cases())
def test_bank_file_gives_the_rows_that_were_written(tmp_path: Path, kind: str, dtype: Any) -> None:
    x = features(dtype)
    bank = make(tmp_path, kind, x)
    assert (bank.shape, len(bank), bank.dtype) == ((N, D), N, np.dtype(dtype))
    wanted = np.random.default_rng(1).integers(0, N, 64)
    gathered = bank.rows(wanted)
    assert gathered.flags.c_contiguous
    assert_same_bits(gathered, x[wanted])
    step = 1000 // (D * x.dtype.itemsize)
    position = 0
    for start, rows in bank.chunks(max_bytes=1000):
        assert start == position
        assert rows.flags.c_contiguous
        assert 1 <= len(rows) <= step
        assert_same_bits(rows, x[start : start + len(rows)])
        position += len(rows)
    assert position == N


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_bank_chunks_hold_a_row_at_least_and_all_rows_at_most(tmp_path: Path, kind: str) -> None:
    bank = make(tmp_path, kind, features())
    assert [len(rows) for _, rows in bank.chunks(max_bytes=1)] == [1] * N
    assert [len(rows) for _, rows in bank.chunks()] == [N]
    with pytest.raises(ValueError, match="max_bytes: wanted a positive number, got 0"):
        next(bank.chunks(max_bytes=0))


def test_bank_chunks_of_contiguous_memory_are_views(tmp_path: Path) -> None:
    x = features()
    assert all(np.shares_memory(rows, x) for _, rows in FeatureBank(x).chunks(max_bytes=100))
    for kind in ("npy", "safetensors"):
        bank = make(tmp_path, kind, x)
        assert isinstance(bank.array, np.memmap)
        assert all(np.shares_memory(rows, bank.array) for _, rows in bank.chunks(max_bytes=100))


def test_bank_takes_strided_arrays() -> None:
    x = features()
    for view in (x[::2], x[:, ::-1], x[::-1, 1:4], np.asfortranarray(x)):
        bank = FeatureBank(view)
        assert_same_bits(np.concatenate([rows for _, rows in bank.chunks(max_bytes=200)]), view)
        assert_same_bits(bank.rows([5, 0, 5]), view[[5, 0, 5]])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_bank_over_a_tensor_gives_tensors(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(features()).to(getattr(torch, dtype))
    for tensor in (x, x.t().contiguous().t()):
        bank = FeatureBank(tensor)
        assert (bank.shape, bank.dtype, bank.array is tensor) == ((N, D), x.dtype, True)
        for indices in (np.array([3, 1, 3]), torch.tensor([3, 1, 3]), [3, 1, 3]):
            rows = bank.rows(indices)
            assert rows.is_contiguous()
            assert torch.equal(rows, x[[3, 1, 3]])
        chunks = list(bank.chunks(max_bytes=100))
        assert all(rows.is_contiguous() for _, rows in chunks)
        assert torch.equal(torch.cat([rows for _, rows in chunks]), x)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_bank_over_a_cupy_array_gives_cupy_arrays_on_its_device(monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    cupy = fake_cupy.make()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    x = features(dtype)
    for host in (x, np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2]):
        array = cupy.ndarray(host, device=1)
        bank = FeatureBank(array)
        assert (bank.shape, len(bank), bank.dtype, bank.array is array) == ((N, D), N, np.dtype(dtype), True)
        for indices in (np.array([3, 1, 3]), cupy.ndarray(np.array([3, 1, 3]), device=1), [3, 1, 3]):
            rows = bank.rows(indices)
            assert (type(rows), rows.device.id) == (cupy.ndarray, 1)
            assert_same_bits(to_numpy(rows), x[[3, 1, 3]])
        chunks = list(bank.chunks(max_bytes=100))
        assert {rows.device.id for _, rows in chunks} == {1}
        assert max(rows.shape[0] for _, rows in chunks) == max(1, 100 // (D * x.itemsize))
        assert all(rows.strides == (D * x.itemsize, x.itemsize) for _, rows in chunks)
        assert_same_bits(np.concatenate([to_numpy(rows) for _, rows in chunks]), x)
    with pytest.raises(TypeError, match="array: wanted float16, bfloat16, float32 or float64, got int64"):
        FeatureBank(cupy.ndarray(np.ones((2, 3), np.int64)))
    with pytest.raises(IndexError, match="indices: wanted rows 0 to 199, got 0 to 200"):
        FeatureBank(cupy.ndarray(x)).rows(cupy.ndarray(np.array([0, 200])))


def test_bank_refuses_what_only_looks_like_an_array() -> None:
    class Looks:
        shape, dtype = (2, 3), np.dtype(np.float32)

    with pytest.raises(TypeError, match="array: wanted a numpy array, torch tensor or CuPy array, got Looks"):
        FeatureBank(Looks())


def test_bank_import_does_not_import_torch_or_pyarrow() -> None:
    code = "import sys, proto_engine.bank; sys.exit(any(name in sys.modules for name in ('torch', 'pyarrow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", ["npy", "parquet-fixed"])
def test_bank_rows_checks_indices(tmp_path: Path, kind: str) -> None:
    bank = make(tmp_path, kind, features())
    assert bank.rows([]).shape == (0, D)
    with pytest.raises(IndexError, match=rf"indices: wanted rows 0 to {N - 1}, got -1 to 3"):
        bank.rows([3, -1])  # -1 stands for "no prototype" elsewhere: it must not mean the last row
    with pytest.raises(IndexError, match=rf"got 0 to {N}"):
        bank.rows(np.array([0, N]))
    with pytest.raises(TypeError, match="indices: wanted integers, got bool"):
        bank.rows(np.ones(N, dtype=bool))
    with pytest.raises(ValueError, match=r"indices: wanted one dimension, got shape \(1, 2\)"):
        bank.rows([[1, 2]])


def test_bank_refuses_arrays_it_cannot_hold() -> None:
    for shape in ((3,), (2, 3, 4), (0, 4), (4, 0)):
        with pytest.raises(ValueError, match=r"array: wanted \[N, D\] with N, D >= 1, got shape"):
            FeatureBank(np.zeros(shape, dtype=np.float32))
    for dtype in (np.int64, np.bool_, np.complex64, object, np.longdouble):
        with pytest.raises(TypeError, match="array: wanted float16, bfloat16, float32 or float64, got"):
            FeatureBank(np.zeros((2, 3), dtype=dtype))
    with pytest.raises(TypeError, match="array: wanted a numpy array, torch tensor or CuPy array, got list"):
        FeatureBank([[1.0, 2.0]])
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"got torch\.int64"):
        FeatureBank(torch.zeros(2, 3, dtype=torch.int64))


# Resident memory


def shared_bytes() -> int:
    """Resident pages of mapped files."""
    return int(STATM.read_text().split()[2]) * 4096


@pytest.mark.skipif(not STATM.exists(), reason="resident memory is read from Linux's /proc")
@pytest.mark.parametrize("how", ["npy", "safetensors", "view", "rows"])
def test_bank_over_a_map_keeps_resident_memory_bounded(tmp_path: Path, how: str) -> None:
    num_samples, dim, chunk = 2**14, 2048, 2**22  # 128 MiB
    path = tmp_path / ("bank.safetensors" if how == "safetensors" else "bank.npy")
    header = json.dumps(
        {"f": {"dtype": "F32", "shape": [num_samples, dim], "data_offsets": [0, num_samples * dim * 4]}}
    )
    with path.open("wb") as file:  # a sparse file: nothing is written, yet every page can be mapped
        if how == "safetensors":
            header = header.ljust(len(header) + -len(header) % 8)
            file.write(len(header).to_bytes(8, "little") + header.encode())
        else:
            described = {"descr": "<f4", "fortran_order": False, "shape": (num_samples, dim)}
            np.lib.format.write_array_header_1_0(file, described)
        file.truncate(file.tell() + num_samples * dim * 4)
    bank = FeatureBank.open(path)
    if how == "view":
        bank = FeatureBank(np.asarray(np.load(path, mmap_mode="r"))[1:])
    before, highest = shared_bytes(), 0
    if how == "rows":
        for start in range(0, num_samples, 1024):
            assert not bank.rows(np.arange(start, start + 1024)).any()
            highest = max(highest, shared_bytes() - before)
    else:
        for _, rows in bank.chunks(max_bytes=chunk):
            assert not rows.any()
            highest = max(highest, shared_bytes() - before)
    assert highest < 4 * chunk
    array = bank.array
    assert not array.any()
    assert shared_bytes() - before > num_samples * dim * 4 // 2  # the same walk without giving pages back


def test_bank_over_a_copy_on_write_map_keeps_changes(tmp_path: Path) -> None:
    np.save(tmp_path / "bank.npy", features())
    array = np.load(tmp_path / "bank.npy", mmap_mode="c")
    array[:] = 3
    bank = FeatureBank(array)
    for _ in range(2):
        assert all((rows == 3).all() for _, rows in bank.chunks(max_bytes=500))
        assert (bank.rows(np.arange(N)) == 3).all()


# Files in general


def test_bank_open_refuses_paths_that_are_no_bank(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"features: .*none\.npy' does not exist"):
        FeatureBank.open(tmp_path / "none.npy")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(IsADirectoryError, match=r"features: wanted a file, .*folder\.npy' is a folder"):
        FeatureBank.open(tmp_path / "folder.npy")
    (tmp_path / "bank.h5").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"wanted a \.npy, \.safetensors or \.parquet file, got .*bank\.h5"):
        FeatureBank.open(tmp_path / "bank.h5")
    np.save(tmp_path / "bank.npy", features())
    with pytest.raises(ValueError, match=r"column: .* which has no columns, got 'x'"):
        FeatureBank.open(tmp_path / "bank.npy", column="x")


@pytest.mark.parametrize("ending", [".npy", ".safetensors", ".parquet"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"\x93NUMPY", b"PAR1", b"hello, world " * 50, b"\xff" * 64])
def test_bank_open_refuses_foreign_content(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"foreign{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"features: .*foreign"):
        FeatureBank.open(path)


@pytest.mark.parametrize("kind", ["npy", "safetensors", "parquet-fixed"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_bank_open_refuses_truncated_files(tmp_path: Path, kind: str, share: float) -> None:
    name, write = WRITERS[kind]
    path = tmp_path / name
    write(path, features())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"features: .*bank\."):
        FeatureBank.open(path)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(kind=st.sampled_from(["npy", "safetensors"]), data=st.data())
def test_bank_open_survives_any_damage_to_the_header(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    """Damaged headers open as some valid bank or raise one of the two documented errors, never another."""
    name, write = WRITERS[kind]
    write(tmp_path / name, features())
    content = bytearray((tmp_path / name).read_bytes())
    for position in data.draw(st.lists(st.integers(0, 127), min_size=1, max_size=4)):
        content[position] = data.draw(st.integers(0, 255))
    (tmp_path / name).write_bytes(content)
    try:
        bank = FeatureBank.open(tmp_path / name)
    except (ValueError, TypeError) as error:
        assert name in str(error)
    else:
        assert sum(rows.size for _, rows in bank.chunks()) == bank.shape[0] * bank.shape[1]


# .npy


def test_bank_npy_never_unpickles(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    np.save(tmp_path / "objects.npy", np.array([[Bomb(), 1], [2, 3]], dtype=object), allow_pickle=True)
    with pytest.raises(TypeError, match="holds Python objects, which are refused"):
        FeatureBank.open(tmp_path / "objects.npy")
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"is not a \.npy file"):
        FeatureBank.open(tmp_path / "pickle.npy")
    assert not marker.exists()


def test_bank_npy_refuses_other_arrays(tmp_path: Path) -> None:
    path = tmp_path / "bank.npy"
    structured = np.zeros((2, 3), dtype=[("a", "f4"), ("b", "f4")])
    cases: list[tuple[np.ndarray, type[Exception], str]] = [
        (
            np.zeros((2, 3), dtype=np.int32),
            TypeError,
            "wanted float16, bfloat16, float32 or float64, got int32",
        ),
        (np.zeros((2, 3), dtype="U4"), TypeError, "got <U4"),
        (structured, TypeError, "got a structured array"),
        (
            np.zeros((2, 3), dtype=">f4"),
            TypeError,
            r"not in this machine's byte order; .*astype\('float32'\)",
        ),
        (np.zeros((2, 3), dtype=ml_dtypes.bfloat16), TypeError, r"cannot hold bfloat16: use \.safetensors"),
        (np.zeros(3), ValueError, r"wanted two dimensions \[N, D\], got shape \(3,\)"),
        (np.zeros((2, 3, 4)), ValueError, r"wanted two dimensions \[N, D\], got shape \(2, 3, 4\)"),
        (np.zeros((0, 3)), ValueError, r"is empty: shape \(0, 3\)"),
        (np.zeros((3, 0)), ValueError, r"is empty: shape \(3, 0\)"),
    ]
    for array, kind, message in cases:
        np.save(path, array)
        with pytest.raises(kind, match=message):
            FeatureBank.open(path)


def test_bank_npy_reads_header_version_2_and_refuses_3(tmp_path: Path) -> None:
    path, x = tmp_path / "bank.npy", features()
    with path.open("wb") as file:
        np.lib.format.write_array(file, x, version=(2, 0))
    assert_same_bits(FeatureBank.open(path).rows(np.arange(N)), x)
    with path.open("wb") as file:
        np.lib.format.write_array(file, x, version=(3, 0))
    with pytest.raises(ValueError, match=r"format version 3\.0 holds structured arrays only"):
        FeatureBank.open(path)


def test_bank_npy_names_the_lengths(tmp_path: Path) -> None:
    path = tmp_path / "bank.npy"
    np.save(path, features())
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=f"truncated: {len(content) - 1} bytes, its header asks for {len(content)}"):
        FeatureBank.open(path)
    path.write_bytes(content + b"more")
    with pytest.raises(ValueError, match="something follows the array"):
        FeatureBank.open(path)


# .safetensors


def write_safetensors(path: Path, header: Any, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_bank_safetensors_chooses_the_tensor(tmp_path: Path) -> None:
    path, x = tmp_path / "bank.safetensors", features()
    safetensors.numpy.save_file({"a": x, "b": x + 1}, path, metadata={"made": "here"})
    assert_same_bits(FeatureBank.open(path, column="b").rows(np.arange(N)), x + 1)
    with pytest.raises(ValueError, match="name the tensor to use with column=, it holds 'a', 'b'"):
        FeatureBank.open(path)
    with pytest.raises(ValueError, match="has no tensor 'c', it holds 'a', 'b'"):
        FeatureBank.open(path, column="c")
    safetensors.numpy.save_file({"only": x}, path)
    assert_same_bits(FeatureBank.open(path).rows(np.arange(N)), x)
    safetensors.numpy.save_file({"features": x, "other": x + 1}, path)
    assert_same_bits(FeatureBank.open(path).rows(np.arange(N)), x)
    safetensors.numpy.save_file({}, path)
    with pytest.raises(ValueError, match="it holds nothing"):
        FeatureBank.open(path)


def test_bank_safetensors_at_unaligned_offsets_is_read_right(tmp_path: Path) -> None:
    path, x = tmp_path / "bank.safetensors", features()
    for extra in range(1, 4):
        header = json.dumps({"x": {"dtype": "F32", "shape": [N, D], "data_offsets": [0, x.nbytes]}})
        write_safetensors(path, header.ljust(len(header) + extra).encode(), x.tobytes())
        bank = FeatureBank.open(path)
        aligned = bank.array is not None
        assert aligned == ((path.stat().st_size - x.nbytes) % 4 == 0)
        for rows in (bank.rows(np.arange(N)), next(iter(bank.chunks()))[1]):
            assert rows.flags.aligned
            assert_same_bits(rows, x)


def test_bank_safetensors_refuses_contradictory_headers(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"

    def tensor(dtype: Any = "F32", shape: Any = (2, 3), offsets: Any = (0, 24)) -> dict[str, Any]:
        return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}

    cases: list[tuple[Any, type[Exception], str]] = [
        (b"[1]", ValueError, "header is not a JSON object"),
        (b"{broken", ValueError, "header is not a JSON object"),
        (b"[" * 10000, ValueError, "header is not a JSON object"),
        ({"x": 3}, ValueError, "entry in the header is malformed"),
        ({"x": {"dtype": "F32"}}, ValueError, "entry in the header is malformed"),
        (tensor(shape=(2, -3)), ValueError, "entry in the header is malformed"),
        (tensor(offsets=(0, 24, 48)), ValueError, "entry in the header is malformed"),
        (tensor(offsets=(-24, 0)), ValueError, "entry in the header is malformed"),
        (tensor(dtype=["F32"]), ValueError, "entry in the header is malformed"),
        (tensor(dtype="I64"), TypeError, "wanted F16, BF16, F32 or F64, got I64"),
        (tensor(shape=(6,)), ValueError, r"wanted two dimensions \[N, D\], got shape \(6,\)"),
        (tensor(shape=(0, 3), offsets=(0, 0)), ValueError, r"is empty: shape \(0, 3\)"),
        (tensor(offsets=(0, 20)), ValueError, r"20 bytes for shape \(2, 3\) of F32"),
        (tensor(offsets=(8, 32)), ValueError, "is truncated"),
    ]
    for header, kind, message in cases:
        write_safetensors(path, header, bytes(24))
        with pytest.raises(kind, match=message):
            FeatureBank.open(path)


# .parquet


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
        (pa.array([[1.0, 2.0]] * 37 + [None], pa.list_(pa.float64(), 2)), ValueError, "row 37 is null"),
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


def test_bank_repr_says_where_the_rows_are(tmp_path: Path) -> None:
    assert repr(FeatureBank(features())) == "FeatureBank(ndarray, shape=(200, 7), dtype=float32)"
    bank = make(tmp_path, "parquet-fixed", features())
    assert repr(bank) == "FeatureBank(parquet, shape=(200, 7), dtype=float32)"
    assert bank.array is None
