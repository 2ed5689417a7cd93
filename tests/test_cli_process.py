"""The command line as a process of its own: its streams, its status, its progress on a terminal."""

from __future__ import annotations

import os
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import pandas as pd
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


@posix
def test_cli_without_a_reader_of_warnings_still_writes(folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    arguments = ("select", "x.npy", "y.npy", "-o", "p.safetensors", "--eta-max", "0.5", "--quiet")  # draws a warning
    done = subprocess.run(command(*arguments), stdout=subprocess.PIPE, stderr=write, text=True, check=False)
    os.close(write)
    assert done.returncode == 0
    assert " prototypes for 10 of 10 classes" in done.stdout
    assert Path("p.safetensors").exists()


@posix
@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-"])
def test_cli_closed_streams_are_no_error(folder: Path, closed: str) -> None:
    """Python has None for them, as under pythonw."""

    def run(*arguments: str) -> tuple[int, str, str]:
        line = f"{shlex.join(command(*arguments))} {closed}"
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    status, out, err = run(*CORRECT, "x.npy", "y.npy", "-o", "o.csv", "--prototypes-per-class", "2")
    assert status == 0
    assert Path("o.csv").exists()
    assert ("labels changed" in out) == (closed == "2>&-")
    assert "Traceback" not in err
    for failing in (("correct", "x.npy", "no.npy", "-o", "o.csv"), ("correct", "x.npy", "-o", "o.csv")):
        status, out, err = run(*failing)
        assert (status, out) == (2, "")  # an error is not for stdout, even where there is no stderr
        assert len(err.splitlines()) == (1 if closed == ">&-" else 0)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii:surrogateescape"])
def test_cli_names_beyond_the_encoding_of_stdout_become_question_marks(folder: Path, encoding: str) -> None:
    frame = pd.read_csv("y.csv")
    frame.replace({"word": {"one": "\u732b"}}).to_csv("y.csv", index=False)
    arguments = [*CORRECT, "x.npy", "y.csv", "--label-column", "word", "-o", "o.csv", "--report", "p.html"]
    done = subprocess.run(
        command(*arguments), env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode("ascii").splitlines()
    assert any(line.startswith("? ") for line in lines) and lines[-1] == "report written to p.html"
    assert "\u732b" in Path("o.csv").read_text("utf-8")
    assert Path("p.html").exists()


@posix
def test_cli_ended_by_sigterm_leaves_no_temporary_file(folder: Path) -> None:
    """The signal comes while the table is written."""
    program = (
        "import os, signal, sys\n"
        "from proto_engine import cli, corrections\n"
        "kept = corrections.Corrections._frames\n"
        "def frames(self, names):\n"
        "    print(len([name for name in os.listdir() if name.endswith('.tmp')]), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    yield from kept(self, names)\n"
        "corrections.Corrections._frames = frames\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = [*CORRECT, "x.npy", "y.npy", "-o", "o.csv", "--quiet"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (143, ["1"]), done.stderr
    assert not [name for name in os.listdir() if name.endswith(".tmp") or name == "o.csv"]
