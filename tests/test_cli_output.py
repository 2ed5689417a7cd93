"""The output of a command: checked before the work, and never half-written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_house import CORRECT, posix, run, run_error
from cli_house import digits as digits
from cli_house import folder as folder

from proto_engine import cli


@pytest.mark.parametrize(
    ("command", "output", "later"),
    [
        ("correct", "o.parquet", "correct_labels"),
        ("select", "o.safetensors", "select_prototypes"),
        ("score", "o.npy", "score_samples"),
    ],
)
def test_cli_checks_the_output_before_the_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    command: str, output: str, later: str,
) -> None:  # fmt: skip
    for name in ("open", "select_prototypes", later):
        monkeypatch.setattr(*((cli.FeatureBank, name) if name == "open" else (cli, name)), None)
    Path(output).mkdir()
    message = run_error(capsys, command, "x.npy", "y.npy", "-o", output)
    assert f"--output: wanted a file to write, '{output}' is a folder" in message


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("correct", "o.csv"),
        ("correct", "o.parquet"),
        ("select", "o.safetensors"),
        ("score", "o.npy"),
        ("score", "o.parquet"),
    ],
)
def test_cli_full_disk_keeps_the_old_output(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    output: str,
) -> None:
    assert run(capsys, "select", "x.npy", "y.npy", "-o", "p.safetensors")[0] == 0
    Path(output).write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    other = "p.safetensors" if command == "score" else "y.npy"
    assert "No space left on device" in run_error(capsys, command, "x.npy", other, "-o", output, "--quiet")
    assert Path(output).read_bytes() == b"old"


@posix
def test_cli_interrupt_leaves_the_old_output(folder: Path) -> None:
    rng = np.random.default_rng(0)
    np.save("big.npy", rng.normal(size=(30_000, 256)).astype(np.float32))  # many seconds of work
    np.save("big_y.npy", np.zeros(30_000, dtype=np.int64))
    Path("o.csv").write_bytes(b"old")
    before = sorted(os.listdir())
    work = ["correct", "big.npy", "big_y.npy", "-o", "o.csv", "--samples-per-class", "all"]
    # Python takes no notice of Ctrl-C when started by a shell in the background: ask for it.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from proto_engine.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", code, *work], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "chose" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "proto-engine: interrupted\n")
    assert Path("o.csv").read_bytes() == b"old"
    assert sorted(os.listdir()) == before


def test_cli_interrupt_while_writing_leaves_the_old_output(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("o.csv").write_bytes(b"old")
    before = sorted(os.listdir())

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    status, out, err = run(capsys, *CORRECT, "x.npy", "y.npy", "-o", "o.csv", "--prototypes-per-class", 2, "--quiet")
    assert (status, out, err) == (130, "", "proto-engine: interrupted\n")
    assert Path("o.csv").read_bytes() == b"old"
    assert sorted(os.listdir()) == before
