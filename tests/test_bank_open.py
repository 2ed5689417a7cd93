"""Files that are no feature bank, of any kind: refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bank_files import WRITERS, features
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proto_engine.bank import FeatureBank


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
