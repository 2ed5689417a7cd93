"""The steps of `gpu_check` that run compute-sanitizer: on faults that it must find, and on every tile loop."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from gpu_check_context import FAILED, PASSED, Context, Outcome, dead_loops, left_out, loops_here
from processes import Command, Done
from verified import ROOT

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
PLANTED = {"bounds": "memcheck", "race": "racecheck", "uninitialized": "initcheck"}
_FOUND = 7  # compute-sanitizer's status, as it is asked to end
_DIRTY = re.compile(r"SUMMARY: [1-9]\d* (error|hazard)")
_CLEAN = re.compile(r"ERROR SUMMARY: 0 errors|RACECHECK SUMMARY: 0 hazards")


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
    dead = dead_loops(context)
    alive = [loop for loop in loops_here(context) if loop not in dead]
    commands = {
        f"{loop} {tool}": Command(
            [*_examined(program, tool), sys.executable, script, *loop.split("/")], {"OMP_NUM_THREADS": "1"}
        )
        for loop in alive
        for tool in TOOLS
    }
    done = context.runner.run_together(commands, context.limit(150))
    wrong = [name for name, result in done.items() if result.status != 0 or not _CLEAN.search(result.output)]
    clean = [loop for loop in alive if not any(name.split()[0] == loop for name in wrong)]
    found = [f"{name}: {_what(done[name])}" for name in wrong] or [f"{len(done)} runs, all clean"]
    return Outcome(FAILED if dead or wrong else PASSED, "; ".join(left_out(dead) + found), loops=clean)


def _examined(program: str, tool: str) -> list[str]:
    words = [program, "--tool", tool, "--error-exitcode", str(_FOUND), "--print-limit", "20"]
    # What the runtime reports as an error is raised in Python; here it is about the kernels.
    return [*words, "--report-api-errors", "no"] if tool == "memcheck" else words


def _what(done: Done) -> str:
    found = re.findall(r"ERROR SUMMARY: .*|RACECHECK SUMMARY: .*|Device not supported.*", done.output)
    return f"{found[-1]}, {done.why}" if found else done.why
