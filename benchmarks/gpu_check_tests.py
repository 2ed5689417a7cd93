"""The steps of `gpu_check` that run tests: each native tile loop by itself for a minute, then everything."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from gpu_check_context import (
    FAILED,
    LOOPS,
    PASSED,
    Context,
    Outcome,
    dead_loops,
    left_out,
    loops_here,
    name_of,
    without,
)
from processes import Command, Done
from verified import ROOT

_PYTEST = (sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider")
_THREADS = {"OMP_NUM_THREADS": "2", "PROTO_ENGINE_NUM_THREADS": "4"}
_NOTHING_RAN = 5  # pytest's status
_LISTS = re.compile(r"\b(EXACT|SCORING)\b")  # of all backends, each tile loop for itself
# Tests of a loop have its name among their parameters; "mma" is in "wgmma" too.
_TESTS_OF = {
    "simt": "simt",
    "mma": "mma and not wgmma",
    "wgmma": "wgmma and not cluster",
    "wgmma-cluster": "cluster and wgmma",
    "score-cluster": "cluster and not wgmma",
}
_TESTS_OF_NO_LOOP = "not simt and not mma and not cluster"


def loops(context: Context) -> Outcome:
    """The products of every native tile loop, before anything else relies on one: a loop that hangs or is wrong is
    found in a minute, and left out of all that follows."""
    here = [loop for loop in loops_here(context) if loop.startswith("cuda/")]
    tests_file = "tests/test_cuda_tile_loops.py"
    commands = {loop: Command([*_PYTEST, "-x", *_selected(loop), tests_file], _THREADS) for loop in here}
    done = context.runner.run_together(commands, context.limit(60))
    through = [loop for loop in here if _num_passed(done[loop])]
    if wrong := [loop for loop in here if loop not in through]:
        why = ", ".join(f"{loop} ({_last_line(done[loop])})" for loop in wrong)
        return Outcome(FAILED, f"left out from here on: {why}", loops=through)
    return Outcome(PASSED if through else FAILED, ", ".join(through) or "none can run on this GPU", loops=through)


def lanes(root: Path = ROOT) -> dict[str, list[str]]:
    """Tests that run side by side, by pytest's options: a lane for each tile loop, for what else a backend has, and
    for all others."""
    native = sorted(path.relative_to(root).as_posix() for path in (root / "tests").glob("test_cuda*.py"))
    native.append("tests/test_device_scoring.py")
    cupy = ["tests/test_backend_cupy.py"]
    files = {"cuda": native, "cupy": cupy}
    shared = [path for path in _of_all_backends(root) if path not in (*native, *cupy)]
    found = {loop: [*_selected(loop), *files[loop.partition("/")[0]], *shared] for loop in LOOPS}
    found |= {backend: ["-k", _TESTS_OF_NO_LOOP, *paths] for backend, paths in files.items()}
    found["others"] = ["-k", "not cuda: and not cupy:", "tests", *(f"--ignore={path}" for path in (*native, *cupy))]
    return found


def _of_all_backends(root: Path) -> list[str]:
    """Files whose tests have every backend and tile loop as a parameter."""
    found = sorted((root / "tests").glob("test_*.py"))
    return [path.relative_to(root).as_posix() for path in found if _LISTS.search(path.read_text("utf-8"))]


def tests(context: Context) -> Outcome:
    """All tests marked gpu. A loop comes through if tests of it ran, and none failed of it or of its backend."""
    dead = dead_loops(context)
    environment = {**_THREADS, **without(dead)}
    words = [*_PYTEST, "--durations=5"]
    commands = {
        name: Command([*words, *options], environment)
        for name, options in lanes(context.root).items()
        if name not in dead
    }
    done = context.runner.run_together(commands, context.limit(240))
    passed = {name: _num_passed(result) for name, result in done.items()}
    wrong = {name for name, number in passed.items() if number is None}
    through = [loop for loop in LOOPS if passed.get(loop) and not wrong & {loop, loop.partition("/")[0]}]
    total = sum(number or 0 for number in passed.values())
    told = [f"{total} passed", *left_out(dead)]
    if wrong:
        told.append("failed: " + ", ".join(f"{name} ({_last_line(done[name])})" for name in sorted(wrong)))
    return Outcome(PASSED if total and not dead and not wrong else FAILED, "; ".join(told), loops=through)


def _selected(loop: str) -> list[str]:
    """Options that select the tests of "cuda/mma", say."""
    return ["-k", f"{_TESTS_OF[name_of(loop)]} and {'cupy' if loop.startswith('cupy') else 'not cupy'}"]


def _num_passed(done: Done) -> int | None:
    """Tests that passed; None where one failed, or the run came to no end."""
    if done.status not in (0, _NOTHING_RAN):
        return None
    found = re.findall(r"(\d+) passed", done.output)
    return int(found[-1]) if found else 0


def _last_line(done: Done) -> str:
    """What a command said last, or why it came to no end."""
    lines = done.output.strip().splitlines()
    return done.why if done.status is None or not lines else lines[-1].strip("= ")
