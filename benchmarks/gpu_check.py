"""Everything that wants a GPU, in one command: build, tile loops, tests, compute-sanitizer, the record, benchmarks.

    python benchmarks/gpu_check.py [--out DIR] [--steps build,loops,...] [--minutes 9.5]

Needs an NVIDIA GPU with its driver, nvcc, cmake, a C++ compiler, and in the Python that runs it pip, setuptools,
pybind11, pytest, hypothesis and torch; CuPy and numba where they are installed; no network. In DIR it leaves
log.txt (what every command printed), results.jsonl (all rows), gpu_verified.json and steps.json; rows and record
go to benchmarks/results too. Brought back from another machine, DIR is for `take_results.py`.

A step that fails does not keep the next from running; a tile loop that hangs or is wrong by itself is left out of
the steps that follow. Ended early, it leaves what the finished steps have found; started again with --steps and the
same DIR, it goes on from there.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gpu_check_context import FAILED, PASSED, Context, Outcome
from gpu_check_steps import STEPS, steps_from_json, steps_to_json
from processes import Runner
from verified import ROOT, present_gpu, sources_hash, write_whole


def main(arguments: Sequence[str]) -> int:
    """Run the steps.

    Returns
    -------
    int
        0 where all steps passed, 1 where one did not, 2 for bad arguments or where there is no GPU.
    """
    options = _parsed(arguments)
    gpu = present_gpu()
    if gpu is None:
        print("gpu-check: wanted an NVIDIA GPU, and nvidia-smi shows none", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    print(f"gpu-check on {gpu.name} (compute capability {gpu.capability}, driver {gpu.driver}); log in {options.out}")
    runner = Runner(ROOT, options.out / "log.txt")
    context = Context(runner, gpu, options.out, began + 60 * options.minutes, _before(options))
    ran: dict[str, Outcome] = {}
    with _ended_together(runner):
        for name in options.steps:
            ran[name] = _timed(name, context)
            context.before[name] = ran[name]
            write_whole(options.out / "steps.json", steps_to_json(context.before, sources_hash()))
            print(_line(name, ran[name]), flush=True)
    print(f"\n{'step':<11} {'outcome':<7} {'seconds':>7}  detail")
    print("\n".join(_line(name, outcome) for name, outcome in ran.items()))
    failed = [name for name, outcome in ran.items() if outcome.outcome != PASSED]
    print(f"gpu-check: {'failed: ' + ', '.join(failed) if failed else 'passed'} ({time.monotonic() - began:.0f} s)")
    return 1 if failed else 0


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_check.py", description="Build, test, examine and time on a GPU.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-check", help="folder for log and results")
    parser.add_argument("--steps", default=",".join(STEPS), help=f"some of {','.join(STEPS)} (default: all)")
    parser.add_argument("--minutes", type=float, default=9.5, help="no command runs for longer (default 9.5)")
    options = parser.parse_args(arguments)
    wanted = options.steps.split(",")
    unknown = [name for name in wanted if name not in STEPS]
    if unknown:
        parser.error(f"--steps: wanted some of {', '.join(STEPS)}, got {', '.join(unknown)}")
    if not options.minutes > 0:
        parser.error(f"--minutes: wanted more than 0, got {options.minutes}")
    options.steps = [name for name in STEPS if name in wanted]
    options.out = options.out.resolve()
    return options


@contextmanager
def _ended_together(runner: Runner) -> Iterator[None]:
    """Whoever ends this program ends its commands too."""

    def end(number: int, frame: object) -> None:
        runner.end_all()
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _before(options: argparse.Namespace) -> dict[str, Outcome]:
    """Steps that an earlier call has ended, of the same sources and build, and that this one does not repeat."""
    path = options.out / "steps.json"
    if "build" in options.steps or not path.exists():
        return {}
    try:
        found = steps_from_json(path.read_text(), sources_hash())
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return {name: outcome for name, outcome in found.items() if name not in options.steps}


def _timed(name: str, context: Context) -> Outcome:
    began = time.monotonic()
    if began >= context.deadline:
        return Outcome(FAILED, "no time was left")
    try:
        outcome = STEPS[name](context)
    except Exception as error:  # the next step may still say something
        outcome = Outcome(FAILED, f"{type(error).__name__}: {error}")
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def _line(name: str, outcome: Outcome) -> str:
    return f"{name:<11} {outcome.outcome:<7} {outcome.seconds:>7.1f}  {outcome.detail}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
