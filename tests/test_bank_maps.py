"""Feature banks over mapped files: views, in bounded resident memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bank_files import N, features, make

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
