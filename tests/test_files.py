"""Atomic writing: the whole new file or the old one, and nothing left beside it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from proto_engine.files import atomic_write, check_writable

posix = pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX systems")
not_root = pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write anywhere")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_atomic_write_creates_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    for content in (b"first", b"second, longer"):
        with atomic_write(path) as file:
            file.write(content)
        assert path.read_bytes() == content
    assert names(tmp_path) == ["out.bin"]


def test_atomic_write_text_is_utf8_with_line_ends_as_given(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with atomic_write(path, "w") as file:
        file.write("größe\nzwei\r\n")
    assert path.read_bytes() == "größe\nzwei\r\n".encode()


def test_atomic_write_shows_the_old_file_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_atomic_write_leaves_the_old_file_on_any_exception(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), atomic_write(path) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out.bin"]


@posix
def test_atomic_write_leaves_nothing_when_the_file_cannot_grow(tmp_path: Path) -> None:
    """A real refusal by the system, met in the middle of the data and again when the buffer is flushed."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="too large"), atomic_write(tmp_path / "out.bin") as file:
            for _ in range(100):
                file.write(b"x" * 1000)
        with pytest.raises(OSError, match="too large"), atomic_write(tmp_path / "out.bin") as file:
            file.write(b"x" * 5000)  # fits the buffer: only the flush at the end fails
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_atomic_write_leaves_nothing_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"), atomic_write(tmp_path / "out.bin") as file:
        file.write(b"data")
    assert names(tmp_path) == []


@posix
def test_atomic_write_syncs_the_data_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, _name=name, _real=real: (calls.append(_name), _real(*args)))
    with atomic_write(tmp_path / "out.bin") as file:
        file.write(b"data")
    assert calls == ["fsync", "replace", "fsync"]  # the file, the new name, the folder that holds the name


@posix
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_atomic_write_new_file_has_the_mode_of_a_plain_open(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        (tmp_path / "plain").open("wb").close()
        with atomic_write(tmp_path / "atomic") as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


@posix
def test_atomic_write_keeps_the_mode_of_the_file_it_replaces(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with atomic_write(path) as file:
        file.write(b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@posix
@pytest.mark.parametrize("exists", [True, False])
def test_atomic_write_follows_a_symbolic_link(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "data").mkdir()
    target, link = tmp_path / "data" / "real.bin", tmp_path / "link.bin"
    if exists:
        target.write_bytes(b"old")
    link.symlink_to(target)
    with atomic_write(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert names(tmp_path / "data") == ["real.bin"]


def test_atomic_write_takes_the_longest_names(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127)  # 254 bytes, a byte short of what file systems take
    with atomic_write(path) as file:
        file.write(b"x")
    assert path.read_bytes() == b"x"


def test_atomic_write_refuses_other_modes(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="mode: wanted 'wb' or 'w', got 'ab'"),
        atomic_write(tmp_path / "x", "ab"),
    ):
        pass


def test_check_writable_accepts_new_and_existing_files_and_makes_none(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    assert check_writable(tmp_path / "old", "output") == tmp_path / "old"
    assert check_writable(tmp_path / "new", "output") == tmp_path / "new"
    assert names(tmp_path) == ["old"]


def test_check_writable_names_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cases: list[tuple[Path, type[OSError], str]] = [
        (tmp_path / "none" / "out", FileNotFoundError, "output: the folder .*none' .* does not exist"),
        (tmp_path / "file" / "out", NotADirectoryError, "output: .*file' in .* is not a folder"),
        (tmp_path, IsADirectoryError, "output: wanted a file to write, .* is a folder"),
        (tmp_path / ("x" * 300), OSError, "output: cannot write .*too long"),
    ]
    for path, kind, message in cases:
        with pytest.raises(kind, match=message):
            check_writable(path, "output")


@posix
def test_check_writable_refuses_devices() -> None:
    with pytest.raises(OSError, match="output: wanted a plain file to write, '/dev/null' is a device"):
        check_writable("/dev/null", "output")


@posix
@pytest.mark.parametrize("refused", ["file", "folder"])
def test_check_writable_refuses_without_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    blocked = path if refused == "file" else tmp_path
    monkeypatch.setattr(os, "access", lambda asked, mode: Path(asked) != blocked)  # also true for root
    with pytest.raises(PermissionError, match="output: no permission"):
        check_writable(path, "output")


@posix
@not_root
def test_check_writable_asks_the_system_for_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match="output: no permission to write in the folder"):
            check_writable(tmp_path / "out", "output")
    finally:
        tmp_path.chmod(0o700)


def test_a_failure_to_write_names_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=r"No space left on device.*out\.bin") as failed,
        atomic_write(tmp_path / "out.bin"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "out.bin" in str(failed.value)
    assert list(tmp_path.iterdir()) == []
