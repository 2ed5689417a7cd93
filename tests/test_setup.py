"""What setup.py makes of the compilers that it finds, with stand-ins for nvcc and cmake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Begins to build the native module; returns what was said, and what cmake was asked for."""
    asked = tmp_path / "asked"

    def program(name: str, text: str) -> None:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def build(wanted: str, nvcc: str | None) -> tuple[str, str]:
        program("cmake", f'echo "$@" >> {asked}; exit 1')
        program("c++", "exit 0")
        if nvcc is not None:
            program("nvcc", f"echo 'Cuda compilation tools, {nvcc}'")
        environment = {**os.environ, "PATH": str(tmp_path / "bin"), "PROTO_ENGINE_CUDA": wanted, "CXX": "c++"}
        command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(tmp_path / "lib")]
        done = subprocess.run(
            [*command, "--build-temp", str(tmp_path / "temp")],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode != 0
        return done.stderr, asked.read_text() if asked.exists() else ""

    return build


@pytest.mark.parametrize(
    ("wanted", "nvcc", "cuda"),
    [
        ("auto", "release 12.1, V12.1.66", "ON"),
        ("auto", "no number", "ON"),
        ("1", "release 13.0", "ON"),
        ("0", "release 12.8", "OFF"),
        ("auto", "release 11.8", "OFF"),
        ("auto", None, "OFF"),
    ],
)
def test_cuda_is_compiled_where_nvcc_is_new_enough(build, wanted, nvcc, cuda):
    said, asked = build(wanted, nvcc)
    assert f"-DPROTO_ENGINE_CUDA={cuda} " in asked
    assert ("installing without the native CUDA backend" in said) == (wanted == "auto" and cuda == "OFF")


@pytest.mark.parametrize(
    ("wanted", "nvcc", "reason"),
    [
        ("1", None, "PROTO_ENGINE_CUDA=1, but nvcc is not on the PATH"),
        ("1", "release 12.0", "PROTO_ENGINE_CUDA=1, but nvcc is of CUDA 12.0, and 12.1 or later is wanted"),
        ("yes", None, "PROTO_ENGINE_CUDA: wanted auto, 0 or 1, got 'yes'"),
    ],
)
def test_what_cannot_be_compiled_is_named(build, wanted, nvcc, reason):
    said, asked = build(wanted, nvcc)
    assert reason in said and not asked
