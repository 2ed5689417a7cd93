"""The steps of `gpu_check`: what each runs, and what it makes of the outcome."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import Command, Done, Runner
from rows import append_rows, read_rows
from verified import ROOT, Gpu, write_record

PASSED, FAILED = "passed", "failed"
LOOPS = ("cuda/simt", "cuda/mma", "cuda/wgmma", "cuda/wgmma-cluster", "cupy/simt", "cupy/mma")
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
PLANTED = {"bounds": "memcheck", "race": "racecheck", "uninitialized": "initcheck"}
BENCHES = ("bench_engine", "bench_density", "bench_score", "bench_cutoff", "bench_eta", "bench_similarity")
_NOTHING_RAN = 5  # pytest's status
_FOUND = 7  # compute-sanitizer's, as it is asked to end
_DIRTY = re.compile(r"SUMMARY: [1-9]\d* (error|hazard)")
_CLEAN = re.compile(r"ERROR SUMMARY: 0 errors|RACECHECK SUMMARY: 0 hazards")


@dataclass
class Outcome:
    """How a step ended. ``loops`` are the tile loops that came through it; None where it is not about loops."""

    outcome: str
    detail: str
    seconds: float = 0.0
    loops: list[str] | None = None


@dataclass
class Context:
    """What the steps need to know."""

    runner: Runner
    gpu: Gpu
    out: Path
    deadline: float  # of time.monotonic()
    before: dict[str, Outcome] = field(default_factory=dict)  # steps that have ended
    root: Path = ROOT

    def limit(self, seconds: float) -> float:
        """As long as that, but not beyond the deadline."""
        return max(1.0, min(seconds, self.deadline - time.monotonic()))


def build(context: Context) -> Outcome:
    """The package for the GPU that is here alone, into the Python that runs this."""
    words = [sys.executable, "-m", "pip", "install", "-v", "--no-build-isolation", "--no-deps", "-e", "."]
    wanted = {"PROTO_ENGINE_CUDA": "1", "PROTO_ENGINE_CUDA_ARCHS": context.gpu.architectures}
    done = context.runner.run(Command(words, wanted), context.limit(240))
    if done.status != 0:
        return Outcome(FAILED, f"pip install: {done.why}")
    done = context.runner.run(Command([sys.executable, "-m", "proto_engine.cli", "info"]), context.limit(60))
    return Outcome(PASSED if done.status == 0 else FAILED, context.gpu.architectures)


# ---- tests -------------------------------------------------------------------------------------------------------


def lanes(root: Path = ROOT) -> dict[str, list[str]]:
    """Tests that run side by side, by pytest's options: a lane for each tile loop, for what else a backend has, and
    for all others. Tests of a loop have its name among their parameters."""
    native = sorted(path.relative_to(root).as_posix() for path in (root / "tests").glob("test_cuda*.py"))
    native.append("tests/test_device_scoring.py")
    cupy, exact = ["tests/test_backend_cupy.py"], ["tests/test_backends_exact.py", "tests/test_backends_score.py"]
    of_loop = {"simt": "simt", "mma": "mma and not wgmma", "wgmma": "wgmma and not cluster", "wgmma-cluster": "cluster"}
    no_loop = "not simt and not mma and not cluster"  # "mma" is in "wgmma" too
    found = {f"cuda/{loop}": ["-k", f"{name} and not cupy", *native, *exact] for loop, name in of_loop.items()}
    found |= {f"cupy/{loop}": ["-k", f"{of_loop[loop]} and cupy", *cupy, *exact] for loop in ("simt", "mma")}
    found["cuda"] = ["-k", no_loop, *native]
    found["cupy"] = ["-k", no_loop, *cupy]
    found["others"] = ["-k", "not cuda: and not cupy:", "tests", *(f"--ignore={path}" for path in (*native, *cupy))]
    return found


def tests(context: Context) -> Outcome:
    """All tests marked gpu. A loop comes through if tests of it ran, and none failed of it or of its backend."""
    threads = {"OMP_NUM_THREADS": "2", "PROTO_ENGINE_NUM_THREADS": "4"}
    words = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "--durations=5"]
    commands = {name: Command([*words, *options], threads) for name, options in lanes(context.root).items()}
    done = context.runner.run_together(commands, context.limit(240))
    passed = {name: _num_passed(result) for name, result in done.items()}
    wrong = {name for name, number in passed.items() if number is None}
    through = [loop for loop in LOOPS if passed[loop] and not wrong & {loop, loop.partition("/")[0]}]
    total = sum(number or 0 for number in passed.values())
    if wrong:
        why = ", ".join(f"{name} ({_last_line(done[name])})" for name in sorted(wrong))
        return Outcome(FAILED, f"{total} passed; failed: {why}", loops=through)
    return Outcome(PASSED if total else FAILED, f"{total} passed", loops=through)


def _num_passed(done: Done) -> int | None:
    """Tests that passed; None where one failed, or the run came to no end."""
    if done.status not in (0, _NOTHING_RAN):
        return None
    found = re.findall(r"(\d+) passed", done.output)
    return int(found[-1]) if found else 0


def _last_line(done: Done) -> str:
    lines = done.output.strip().splitlines()
    return done.why if done.status is None or not lines else lines[-1].strip("= ")


# ---- compute-sanitizer -------------------------------------------------------------------------------------------


def sanitizer_program() -> str | None:
    return shutil.which("compute-sanitizer") or next(
        (path for path in ("/usr/local/cuda/bin/compute-sanitizer",) if os.access(path, os.X_OK)), None
    )


def planted(context: Context) -> Outcome:
    """Faults that are known to be there: compute-sanitizer must find each."""
    program = sanitizer_program()
    if program is None:
        return Outcome(FAILED, "compute-sanitizer is not installed")
    binary = str(context.out / "planted")
    architecture = "sm_" + context.gpu.capability.replace(".", "")
    words = ["nvcc", "-lineinfo", f"-arch={architecture}", "-o", binary, str(ROOT / "benchmarks" / "planted.cu")]
    try:
        done = context.runner.run(Command(words), context.limit(60))
        if done.status != 0:
            return Outcome(FAILED, f"nvcc: {done.why}")
        commands = {fault: Command([*_examined(program, tool), binary, fault]) for fault, tool in PLANTED.items()}
        found = context.runner.run_together(commands, context.limit(60))
    finally:
        Path(binary).unlink(missing_ok=True)
    missed = [fault for fault, result in found.items() if result.status is None or not _DIRTY.search(result.output)]
    if missed:
        return Outcome(FAILED, f"not found: {', '.join(missed)} ({found[missed[0]].why})")
    return Outcome(PASSED, f"found: {', '.join(found)}")


def sanitizer(context: Context) -> Outcome:
    """Every launch of every tile loop under the four tools."""
    program = sanitizer_program()
    if program is None:
        return Outcome(FAILED, "compute-sanitizer is not installed", loops=[])
    script = str(ROOT / "benchmarks" / "small_launches.py")
    commands = {
        f"{loop} {tool}": Command(
            [*_examined(program, tool), sys.executable, script, *loop.split("/")], {"OMP_NUM_THREADS": "1"}
        )
        for loop in loops_here(context)
        for tool in TOOLS
    }
    done = context.runner.run_together(commands, context.limit(150))
    wrong = [name for name, result in done.items() if result.status != 0 or not _CLEAN.search(result.output)]
    clean = [loop for loop in loops_here(context) if not any(name.split()[0] == loop for name in wrong)]
    if wrong:
        return Outcome(FAILED, "; ".join(f"{name}: {_what(done[name])}" for name in wrong), loops=clean)
    return Outcome(PASSED, f"{len(done)} runs, all clean", loops=clean)


def loops_here(context: Context) -> list[str]:
    """The tile loops that can run on this GPU with what is installed."""
    number = tuple(map(int, context.gpu.capability.split(".")))
    can = {"simt": number >= (7, 5), "mma": number >= (8, 0)}
    can |= dict.fromkeys(("wgmma", "wgmma-cluster"), number == (9, 0))
    found = [loop for loop in LOOPS if can[loop.partition("/")[2]]]
    return found if importlib.util.find_spec("cupy") else [loop for loop in found if not loop.startswith("cupy")]


def _examined(program: str, tool: str) -> list[str]:
    words = [program, "--tool", tool, "--error-exitcode", str(_FOUND), "--print-limit", "20"]
    # What the runtime reports as an error is raised in Python; here it is about the kernels.
    return [*words, "--report-api-errors", "no"] if tool == "memcheck" else words


def _what(done: Done) -> str:
    found = re.findall(r"ERROR SUMMARY: .*|RACECHECK SUMMARY: .*|Device not supported.*", done.output)
    return f"{found[-1]}, {done.why}" if found else done.why


# ---- record, benchmarks ------------------------------------------------------------------------------------------


def record(context: Context) -> Outcome:
    """The loops that came through tests and sanitizer, for everyone to rely on."""
    needed = ("tests", "planted", "sanitizer")
    missing = [name for name in needed if name not in context.before]
    if missing:
        return Outcome(FAILED, f"nothing recorded: not run: {', '.join(missing)}")
    if context.before["planted"].outcome != PASSED:
        return Outcome(FAILED, "nothing recorded: the sanitizer did not find what was planted")
    clean = context.before["sanitizer"].loops or []
    loops = [loop for loop in context.before["tests"].loops or [] if loop in clean]
    if not loops:
        return Outcome(FAILED, "nothing recorded: no tile loop came through", loops=[])
    run = write_record(context.gpu, loops, context.root)
    append_rows(context.out / "results.jsonl", [{"bench": "gpu_check", **run}])
    shutil.copy(context.root / "benchmarks/results/gpu_verified.json", context.out / "gpu_verified.json")
    return Outcome(PASSED, ", ".join(loops), loops=loops)


def benchmarks(context: Context) -> Outcome:
    """All benchmarks, one after another: nothing else may run meanwhile."""
    rows_file = context.out / "results.jsonl"
    told, bad = [], False
    for bench in BENCHES:
        before = len(read_rows(rows_file))
        words = [sys.executable, f"benchmarks/{bench}.py", "--device", "cuda", "--gpu-check", "--out", str(rows_file)]
        left = context.deadline - time.monotonic()
        done = context.runner.run(Command(words), context.limit(110)) if left > 10 else None
        rows = read_rows(rows_file)[before:]
        append_rows(context.root / "benchmarks" / "results" / f"{bench}.jsonl", rows)
        bad = bad or done is None or done.status != 0 or not rows
        ended = "left out, no time" if done is None else "" if done.status == 0 else f", {done.why}"
        told.append(f"{bench} {len(rows)} rows{ended}" if done is not None else f"{bench} {ended}")
    return Outcome(FAILED if bad else PASSED, "; ".join(told))


STEPS: Mapping[str, Callable[[Context], Outcome]] = {
    step.__name__: step for step in (build, planted, tests, sanitizer, record, benchmarks)
}


def steps_to_json(outcomes: Mapping[str, Outcome], sources: str) -> str:
    """What has ended so far, of which sources."""
    steps = {name: vars(outcome) for name, outcome in outcomes.items()}
    return json.dumps({"sources": sources, "steps": steps}, indent=2) + "\n"


def steps_from_json(text: str, sources: str) -> dict[str, Outcome]:
    """The steps that an earlier call has ended; none if it was about other sources."""
    found: dict[str, Any] = json.loads(text)
    if found["sources"] != sources:
        return {}
    return {name: Outcome(**values) for name, values in found["steps"].items() if name in STEPS}
