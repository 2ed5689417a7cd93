"""The command line as a process of its own: its streams, its status, its progress on a terminal."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from cli_house import CORRECT, posix
from cli_house import digits as digits
from cli_house import folder as folder


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "proto_engine.cli", *arguments]


def test_cli_as_a_process(folder: Path) -> None:
    done = subprocess.run(
        command(*CORRECT, "x.npy", "y.npy", "-o", "o.csv"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "labels changed" in done.stdout
    assert "backend 'auto' chose" in done.stderr
    assert "%|" not in done.stderr  # no progress bar where nobody can see it
    quiet = subprocess.run(
        command(*CORRECT, "x.npy", "y.npy", "-o", "q.csv", "--quiet", "--prototypes-per-class", "2"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (quiet.returncode, quiet.stderr) == (0, "")
    failed = subprocess.run(
        command(*CORRECT, "x.npy", "no.npy", "-o", "o.csv"), capture_output=True, text=True, check=False
    )
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr == "proto-engine: error: labels: 'no.npy' does not exist\n"


@posix
@pytest.mark.parametrize("quiet", [False, True])
def test_cli_shows_progress_on_a_terminal(folder: Path, quiet: bool) -> None:
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    terminal, stderr = os.openpty()
    fcntl.ioctl(stderr, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    arguments = [*CORRECT, "x.npy", "y.npy", "-o", "o.csv", "--prototypes-per-class", "2"]
    done = subprocess.run(
        command(*arguments, *["--quiet"] * quiet), stdout=subprocess.DEVNULL, stderr=stderr, check=False
    )
    os.write(stderr, b"end")  # something to read in any case
    os.close(stderr)
    shown = os.read(terminal, 2**16).decode()
    os.close(terminal)
    assert done.returncode == 0
    assert ("correct: 100%|" in shown) == (not quiet)
    assert (shown == "end") == quiet


@posix
def test_cli_reader_that_leaves_is_no_error(folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command("info"), stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
