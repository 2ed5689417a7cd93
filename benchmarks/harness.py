"""The benchmark house: checks a result first, then times; variants interleaved; a row for each.

A benchmark lists `Variant` objects: ways to compute one thing. `run_case` then, for one size,

1. leaves out what cannot fit into memory (the row says "out of memory" and how much it would take),
2. runs each variant once and checks what it returns; one that is wrong or fails gets a row that says so and
   is not timed,
3. measures the peak memory of each: on a GPU by one more call, the second to warm up,
4. times them in turn, round after round, caches emptied before every call.

So a slow minute of the machine hits all variants alike. `places` and `gpu` know the two kinds of machines,
`rows` the results, `command` the command line.
"""

from __future__ import annotations

import random
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from parts import Bench, Case, CheckFailed, Side, Unavailable, Variant
from places import Clocks, Memory, Place
from rows import FAILED, OK, OUT_OF_MEMORY, UNAVAILABLE, WRONG, sizes

from proto_engine import BackendUnavailable

_USABLE_SHARE = 0.75  # of the available memory: estimates are rough, and others need some too

_NO_MEMORY = ("out of memory", "out_of_memory", "outofmemory", "allocate memory")  # as torch, CUDA, CuPy say it


@dataclass
class Trial:
    """What became of a variant."""

    outcome: str = OK
    reason: str | None = None
    memory: Memory = field(default_factory=lambda: Memory(None, None, "unknown"))
    clocks: list[Clocks] = field(default_factory=list)


def run_case(
    bench: Bench,
    side: Side,
    case: Case,
    variants: Sequence[Variant],
    place: Place,
    common: dict[str, Any],
    folder: Path,
    *,
    repeats: int | None,
) -> list[dict[str, Any]]:
    """Check, measure and time the variants of one case.

    Parameters
    ----------
    bench : Bench
    side : Side
        The side of the benchmark for this place.
    case : dict
    variants : sequence of Variant
    place : Place
    common : dict
        From `machine.provenance`; goes into every row.
    folder : Path
        An empty one, for the inputs' files.
    repeats : int or None
        Timed calls of each variant; None leaves it to the place.

    Returns
    -------
    list of dict
        One row a variant.
    """
    room = place.available_bytes()
    trials = {v.key: Trial() for v in variants}
    for v in variants:
        if room is not None and v.needs_bytes > _USABLE_SHARE * room:
            trials[v.key].outcome = OUT_OF_MEMORY

    def alive() -> list[Variant]:
        return [v for v in variants if trials[v.key].outcome == OK]

    for name, sized in (("full", case), ("tiny", side.tiny(case))):
        (folder / name).mkdir()
        side.prepare(sized, folder / name)
    for key, memory in place.memory_before(bench, case, alive(), folder).items():
        if memory == OUT_OF_MEMORY:
            trials[key].outcome = OUT_OF_MEMORY
        else:
            trials[key].memory = memory

    inputs = side.inputs(case, folder / "full", place)
    check = side.checker(case, inputs)
    for v in alive():
        trial = trials[v.key]
        first_call(v, trial, inputs, check, place)
        _say(f"{bench.name} {sizes(case)}: {v.key} {'is right' if trial.outcome == OK else trial.outcome}")
    time_interleaved(alive(), trials, inputs, place, repeats=repeats)
    return [row_of(bench, case, v, trials[v.key], common, room) for v in variants]


def first_call(
    variant: Variant, trial: Trial, inputs: Any, check: Callable[[Variant, Any], None], place: Place
) -> None:
    """Run a variant once, check what it returns, and measure its memory; the trial notes what went wrong."""
    with _noting(trial, place):
        mark = place.memory_mark()
        with place.settings(variant):
            result = variant.call(inputs)
        check(variant, result)
        del result
        trial.memory = place.memory_of(variant, inputs, mark) or trial.memory


def time_interleaved(
    variants: Sequence[Variant], trials: dict[str, Trial], inputs: Any, place: Place, *, repeats: int | None
) -> None:
    """Add clocks to the trials: a call of each variant, then of each again, and so on.

    Each round is shuffled (the same way in every run), so that none always runs behind the same other one, in what
    that left in caches and in free memory. A variant leaves when the place has `enough` of it, or when it fails.
    """
    waiting, order = list(variants), random.Random(0)
    while waiting:
        for v in order.sample(waiting, len(waiting)):
            trial = trials[v.key]
            with _noting(trial, place):
                place.flush()
                with place.settings(v):
                    trial.clocks.append(place.clock(lambda v=v: v.call(inputs), ends_on_host=v.ends_on_host))
        waiting = [
            v
            for v in waiting
            if trials[v.key].outcome == OK and not place.enough([c.wall for c in trials[v.key].clocks], repeats)
        ]
    _say(", ".join(f"{v.key} {min((c.wall for c in trials[v.key].clocks), default=0):.3g} s" for v in variants))


@contextmanager
def _noting(trial: Trial, place: Place) -> Iterator[None]:
    """What goes wrong inside becomes the outcome of the trial, its traceback goes to stderr: others go on."""
    try:
        yield
    except Exception as error:
        trial.outcome, trial.reason = outcome_of(error), first_line(error)
        if trial.outcome == FAILED:
            traceback.print_exc()
        error.__traceback__ = None  # its frames hold on to what was computed
    if trial.outcome != OK:
        place.recover()


def outcome_of(error: Exception) -> str:
    """What an error of a variant means."""
    told = f"{type(error).__name__}: {error}".lower()
    if isinstance(error, MemoryError) or any(words in told for words in _NO_MEMORY):
        return OUT_OF_MEMORY
    if isinstance(error, CheckFailed):
        return WRONG
    if isinstance(error, (Unavailable, BackendUnavailable)) or str(error).startswith("backend:"):
        return UNAVAILABLE
    return FAILED


def first_line(error: Exception) -> str:
    """The start of an error's message; the rest is on stderr."""
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:300]


def row_of(
    bench: Bench, case: Case, variant: Variant, trial: Trial, common: dict[str, Any], room: int | None
) -> dict[str, Any]:
    """The row of a variant."""
    row = {"bench": bench.name, **common, "case": case}
    row |= {"variant": variant.name, "task": variant.task, "role": variant.role, "threads": variant.threads}
    row["outcome"] = trial.outcome
    if trial.outcome != OK:
        row |= {"reason": trial.reason, "needs_bytes": variant.needs_bytes or None, "available_bytes": room}
        return row
    clocks = trial.clocks
    use_events = clocks[0].events is not None and not variant.ends_on_host
    times = [c.events if use_events else c.wall for c in clocks]
    row |= {"warmup": 1 if clocks[0].events is None else 2, "clock": "events" if use_events else "wall"}
    row |= summary(times, **(variant.work or bench.work(case)))
    if clocks[0].events is not None:  # both, whichever counts
        row["wall_median_s"] = float(np.median([c.wall for c in clocks]))
        row["events_median_s"] = float(np.median([c.events for c in clocks]))
    memory = trial.memory
    row |= {"memory_growth_bytes": memory.growth, "memory_peak_bytes": memory.peak, "memory_from": memory.source}
    return row


def summary(times: Sequence[float], *, flops: float | None, bytes: float | None) -> dict[str, Any]:
    """Median, p10 and p90 (linear between order statistics), and the rates at the median."""
    p10, median, p90 = (float(np.percentile(times, q)) for q in (10, 50, 90))
    return {
        "repeats": len(times),
        "median_s": median,
        "p10_s": p10,
        "p90_s": p90,
        "gflop_per_s": None if flops is None else flops / median / 1e9,
        "gb_per_s": None if bytes is None else bytes / median / 1e9,
        "times_s": list(times),
    }


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
