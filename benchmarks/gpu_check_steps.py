"""The steps of `gpu_check` in their order; here those that build, record and run benchmarks."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from gpu_check_context import FAILED, LOOPS, PASSED, Context, Outcome, dead_loops, left_out, without
from gpu_check_sanitizer import planted, sanitizer
from gpu_check_tests import loops, tests
from processes import Command
from rows import append_rows, read_rows
from verified import write_record

BENCHES = ("bench_engine", "bench_density", "bench_score", "bench_cutoff", "bench_eta", "bench_similarity")


def build(context: Context) -> Outcome:
    """The package for the GPU that is here alone, into the Python that runs this. Its self-check leaves out the tile
    loops, which may hang."""
    words = [sys.executable, "-m", "pip", "install", "-v", "--no-build-isolation", "--no-deps", "-e", "."]
    wanted = {"PROTO_ENGINE_CUDA": "1", "PROTO_ENGINE_CUDA_ARCHS": context.gpu.architectures}
    done = context.runner.run(Command(words, wanted), context.limit(240))
    if done.status != 0:
        return Outcome(FAILED, f"pip install: {done.why}")
    info = Command([sys.executable, "-m", "proto_engine.cli", "info"], without(LOOPS))
    done = context.runner.run(info, context.limit(60))
    return Outcome(PASSED if done.status == 0 else FAILED, context.gpu.architectures)


def record(context: Context) -> Outcome:
    """The loops that came through tests and sanitizer, for everyone to rely on."""
    needed = ("tests", "planted", "sanitizer")
    missing = [name for name in needed if name not in context.before]
    if missing:
        return Outcome(FAILED, f"nothing recorded: not run: {', '.join(missing)}")
    if context.before["planted"].outcome != PASSED:
        return Outcome(FAILED, "nothing recorded: the sanitizer did not find what was planted")
    clean, dead = context.before["sanitizer"].loops or [], dead_loops(context)
    through = [loop for loop in context.before["tests"].loops or [] if loop in clean and loop not in dead]
    if not through:
        return Outcome(FAILED, "nothing recorded: no tile loop came through", loops=[])
    run = write_record(context.gpu, through, context.root)
    append_rows(context.out / "results.jsonl", [{"bench": "gpu_check", **run}])
    shutil.copy(context.root / "benchmarks/results/gpu_verified.json", context.out / "gpu_verified.json")
    return Outcome(PASSED, ", ".join(through), loops=through)


def benchmarks(context: Context) -> Outcome:
    """All benchmarks, one after another: nothing else may run meanwhile."""
    rows_file = context.out / "results.jsonl"
    dead = dead_loops(context)
    told, bad = left_out(dead), bool(dead)
    for bench in BENCHES:
        before = len(read_rows(rows_file))
        words = [sys.executable, f"benchmarks/{bench}.py", "--device", "cuda", "--gpu-check", "--out", str(rows_file)]
        left = context.deadline - time.monotonic()
        done = context.runner.run(Command(words, without(dead)), context.limit(110)) if left > 10 else None
        rows = read_rows(rows_file)[before:]
        append_rows(context.root / "benchmarks" / "results" / f"{bench}.jsonl", rows)
        bad = bad or done is None or done.status != 0 or not rows
        ended = "left out, no time" if done is None else "" if done.status == 0 else f", {done.why}"
        told.append(f"{bench} {len(rows)} rows{ended}" if done is not None else f"{bench} {ended}")
    return Outcome(FAILED if bad else PASSED, "; ".join(told))


STEPS: Mapping[str, Callable[[Context], Outcome]] = {
    step.__name__: step for step in (build, loops, planted, tests, sanitizer, record, benchmarks)
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
