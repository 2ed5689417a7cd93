"""Feature banks over mapped files: views, in bounded resident memory."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from bank_files import D, N, features, make

import proto_engine as pe
from proto_engine.bank import FeatureBank

STATM = Path("/proc/self/statm")


def test_bank_chunks_of_contiguous_memory_are_views(tmp_path: Path) -> None:
    x = features()
    assert all(np.shares_memory(rows, x) for _, rows in FeatureBank(x).chunks(max_bytes=100))
    for kind in ("npy", "safetensors"):
        bank = make(tmp_path, kind, x)
        assert isinstance(bank.array, np.memmap)
        assert all(np.shares_memory(rows, bank.array) for _, rows in bank.chunks(max_bytes=100))


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


def refuse_all(bank: FeatureBank, message: str) -> None:
    labels = np.zeros(len(bank), dtype=int)
    reads = (
        lambda: bank.rows([0]),
        lambda: next(bank.chunks()),
        lambda: bank.array,
        lambda: pe.select_prototypes(bank, labels),
        lambda: pe.label_evidence(bank, np.arange(len(bank)) % 2),
    )
    for read in reads:
        with pytest.raises(ValueError, match=message):
            read()


@pytest.mark.parametrize("kind", ["npy", "npy-fortran", "safetensors"])
def test_bank_over_a_file_that_became_shorter_names_it(tmp_path: Path, kind: str) -> None:
    bank = make(tmp_path, kind, features())
    (path,) = tmp_path.iterdir()
    size = path.stat().st_size
    chunks = bank.chunks(max_bytes=1000)
    next(chunks)
    os.truncate(path, size + 1)
    next(chunks)
    os.truncate(path, size - 1)  # the last page stays, so that nothing worse happens
    message = (
        f"features: {re.escape(repr(str(path)))} has become shorter since it was opened: {size - 1} bytes of {size}"
    )
    with pytest.raises(ValueError, match=message):
        next(chunks)
    refuse_all(bank, message)


def test_bank_over_a_part_of_a_map_that_became_shorter(tmp_path: Path) -> None:
    np.save(tmp_path / "bank.npy", features(num_samples=2000))
    bank = FeatureBank(np.asarray(np.load(tmp_path / "bank.npy", mmap_mode="c"))[3:])
    assert bank.rows([0]).shape == (1, D)
    os.truncate(tmp_path / "bank.npy", (tmp_path / "bank.npy").stat().st_size - 1)
    refuse_all(bank, r"bank\.npy' has become shorter")
    with tempfile.TemporaryFile() as file:  # mapped far into it
        file.write(bytes(70000) + features().tobytes())
        file.flush()
        bank = FeatureBank(np.memmap(file, dtype=np.float32, mode="r", offset=70000, shape=(N, D)))
        assert bank.rows([0]).shape == (1, D)
        file.truncate(70000 + N * D * 4 - 1)
        refuse_all(bank, "the mapped file has become shorter since it was opened: 75599 bytes of 75600")
