"""A GPU that is none, for the tests of `make gpu-check`: its commands are answered by a stand-in."""

from __future__ import annotations

import time

import benchmark_house  # noqa: F401  puts benchmarks/ on the path
import pytest

import gpu_check_context  # isort: skip  from the folder that benchmark_house adds
import gpu_check_sanitizer  # isort: skip
import verified  # isort: skip
from processes import Command, Done  # isort: skip

H100 = verified.Gpu("NVIDIA H100 80GB HBM3", "9.0", "580.159.04")
CLEAN = "========= ERROR SUMMARY: 0 errors"
NO_HAZARD = "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"


class FakeRunner:
    """Answers commands instead of running them: the first answer whose key is a part of the command."""

    def __init__(self, **answers: str | tuple[int | None, str]) -> None:
        self.commands: list[Command] = []
        self.limits: list[float] = []
        self._answers = {key.replace("_", " "): answer for key, answer in answers.items()}

    def run(self, command: Command, limit: float) -> Done:
        self.commands.append(command)
        self.limits.append(limit)
        for key, answer in self._answers.items():
            if key in str(command):
                status, output = answer if isinstance(answer, tuple) else (0, answer)
                return Done(status, output, 1.0)
        return Done(0, default_output(str(command)), 1.0)

    def run_together(self, commands, limit):
        return {name: self.run(command, limit) for name, command in commands.items()}


def default_output(command: str) -> str:
    """What a GPU on which all is well answers."""
    if "/planted" in command and "--tool" in command:
        if "racecheck" in command:
            return "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)"
        return "========= ERROR SUMMARY: 128 errors"
    if "--tool" in command:
        return NO_HAZARD if "racecheck" in command else CLEAN
    return "12 passed, 3 skipped, 500 deselected in 5.00s" if "pytest" in command else "fine"


# A test file has this fixture if it imports it as itself: `from fake_gpu import context as context`.
@pytest.fixture
def context(tmp_path, monkeypatch):
    """A GPU, a tree of sources, an empty folder, ten minutes, a sanitizer, and CuPy."""
    monkeypatch.setattr(gpu_check_sanitizer, "sanitizer_program", lambda: "/opt/compute-sanitizer")
    monkeypatch.setattr(gpu_check_context.importlib.util, "find_spec", lambda name: object())
    root = tmp_path / "root"
    for name in ("csrc/cuda/rows.cu", "proto_engine/ops.py", "tests/test_cuda.py", "tests/test_cuda_graph.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name}\n")
    (tmp_path / "out").mkdir()
    deadline = time.monotonic() + 600
    return gpu_check_context.Context(FakeRunner(), H100, tmp_path / "out", deadline, root=root)  # type: ignore[arg-type]
