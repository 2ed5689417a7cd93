"""The benchmark house: checks a result first, then times; variants interleaved; rows of JSON.

A benchmark lists `Variant` objects: ways to compute one thing. `run_case` then, for one size,

1. leaves out what cannot fit into memory (the row says "out of memory" and how much it would take),
2. measures the peak memory of each variant in a fresh process of its own,
3. runs each once and checks what it returns; a wrong result ends the benchmark without a number,
4. times them in turn, round after round, caches emptied before every call.

So a slow minute of the machine hits all variants alike. Timing is in here, the machine in `machine`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import CacheFlush, available_bytes, peak_memory, provenance, thread_limit

RESULTS = Path(__file__).resolve().parent / "results"
OUT_OF_MEMORY = "out of memory"
_MEMORY_FLAG = "--memory-of"
_USABLE_SHARE = 0.75  # of the available memory: estimates are rough, and others need some too

Case = dict[str, int]  # the sizes of a case by name


class CheckFailed(Exception):
    """A variant returned something wrong: there is nothing to time."""


@dataclass(frozen=True)
class Variant:
    """One way to compute the thing.

    Attributes
    ----------
    name : str
        What is run, such as "cpu" or "torch.mm".
    task : str
        What is computed, such as "select_prototypes"; variants of one task are comparable.
    role : {"ours", "baseline", "roofline"}
    threads : int
    call : callable
        Takes the case's inputs; returns what the check looks at.
    needs_bytes : int
        Rough peak of memory, inputs left out, for variants that may not fit.
    """

    name: str
    task: str
    role: str
    threads: int
    call: Callable[[Any], Any]
    needs_bytes: int = 0

    @property
    def key(self) -> str:
        """Tells the variants of a case apart."""
        return f"{self.name}/{self.task}/{self.threads}"


@dataclass(frozen=True)
class Bench:
    """A benchmark: how to make a case's inputs, what runs on them, and how a result is checked.

    Attributes
    ----------
    name : str
        Of the result file.
    script : Path
        Started again, with ``--memory-of``, to measure memory in a fresh process.
    sizes : tuple of str
        Names of a case's sizes, in the order of ``--size``.
    prepare : callable
        Case and folder: write the files that the inputs need there.
    inputs : callable
        Case and folder to inputs; the same for the same case, in any process.
    tiny : callable
        Case to a case of the same kind so small that computing it only loads libraries.
    variants : callable
        Case to the list of variants.
    checker : callable
        Case and inputs to a function ``check(variant, result)`` that raises `CheckFailed`.
    work : callable
        Case to the nominal {"flops": ..., "bytes": ...} of the task; either may be None.
    """

    name: str
    script: Path
    sizes: tuple[str, ...]
    prepare: Callable[[Case, Path], None]
    inputs: Callable[[Case, Path], Any]
    tiny: Callable[[Case], Case]
    variants: Callable[[Case], list[Variant]]
    checker: Callable[[Case, Any], Callable[[Variant, Any], None]]
    work: Callable[[Case], dict[str, float | None]]


def run_case(
    bench: Bench,
    case: Case,
    variants: Sequence[Variant],
    common: dict[str, Any],
    folder: Path,
    *,
    repeats: int,
) -> list[dict[str, Any]]:
    """Check, measure and time the variants of one case.

    Parameters
    ----------
    bench : Bench
    case : dict
    variants : sequence of Variant
    common : dict
        From `machine.provenance`; goes into every row.
    folder : Path
        An empty one, for the inputs' files.
    repeats : int
        Timed calls of each variant.

    Returns
    -------
    list of dict
        One row a variant.

    Raises
    ------
    CheckFailed
        A result is wrong. Nothing has been timed.
    """
    room = available_bytes()
    fits = [v for v in variants if room is None or v.needs_bytes <= _USABLE_SHARE * room]
    for name, sizes in (("full", case), ("tiny", bench.tiny(case))):
        (folder / name).mkdir()
        bench.prepare(sizes, folder / name)
    peaks = {v.key: memory_in_child(bench, case, v, folder) for v in fits}
    fits = [v for v in fits if peaks[v.key] != OUT_OF_MEMORY]

    inputs = bench.inputs(case, folder / "full")
    check = bench.checker(case, inputs)
    for v in fits:
        with thread_limit(v.threads):
            check(v, v.call(inputs))  # the warm-up as well
        _say(f"{bench.name} {case}: {v.key} is right")
    times = time_interleaved(fits, inputs, repeats=repeats, flush=CacheFlush())

    rows = []
    for v in variants:
        row = {"bench": bench.name, **common, "case": case}
        row |= {"variant": v.name, "task": v.task, "role": v.role, "threads": v.threads}
        if v.key in times:
            growth, peak = peaks[v.key] or (None, None)
            row |= {"outcome": "ok", "warmup": 1, **summary(times[v.key], **bench.work(case))}
            row |= {"memory_growth_bytes": growth, "memory_peak_bytes": peak}
        else:
            row |= {"outcome": OUT_OF_MEMORY, "needs_bytes": v.needs_bytes, "available_bytes": room}
        rows.append(row)
    return rows


def time_interleaved(
    variants: Sequence[Variant], inputs: Any, *, repeats: int, flush: Callable[[], None]
) -> dict[str, list[float]]:
    """Seconds of ``repeats`` calls of each variant: all variants once, then all again, and so on.

    Each round starts one variant further on, so that none always runs behind the same other one.
    """
    times: dict[str, list[float]] = {v.key: [] for v in variants}
    for round_number in range(repeats):
        first = round_number % max(1, len(variants))
        for v in [*variants[first:], *variants[:first]]:
            gc.collect()
            flush()
            with thread_limit(v.threads):
                start = time.perf_counter()
                result = v.call(inputs)
                times[v.key].append(time.perf_counter() - start)
            del result
        _say(f"round {round_number + 1} of {repeats}: " + ", ".join(f"{k} {t[-1]:.3g} s" for k, t in times.items()))
    return times


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


def memory_in_child(bench: Bench, case: Case, variant: Variant, folder: Path) -> Any:
    """Peak memory of one variant in a fresh process: (growth, peak), None, or "out of memory"."""
    wanted = json.dumps({"case": case, "variant": variant.key, "folder": str(folder)})
    command = [sys.executable, str(bench.script), _MEMORY_FLAG, wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == -9:  # the kernel's out-of-memory killer leaves no other trace
        return OUT_OF_MEMORY
    if done.returncode != 0:
        raise RuntimeError(f"measuring the memory of {variant.key} failed:\n{done.stderr}")
    answer = json.loads(done.stdout.splitlines()[-1])
    _say(f"{bench.name} {case}: {variant.key} memory {answer}")
    return answer


def serve_memory(bench: Bench, arguments: Sequence[str]) -> bool:
    """The other end of `memory_in_child`: True when the arguments asked for it and it is done.

    Inputs are loaded and the variant has run once on tiny ones before the measurement starts, so that
    neither the data nor the code of the libraries counts as growth.
    """
    if len(arguments) != 2 or arguments[0] != _MEMORY_FLAG:
        return False
    wanted = json.loads(arguments[1])
    case, folder = wanted["case"], Path(wanted["folder"])
    variant = next(v for v in bench.variants(case) if v.key == wanted["variant"])
    tiny, inputs = bench.inputs(bench.tiny(case), folder / "tiny"), bench.inputs(case, folder / "full")
    with thread_limit(variant.threads):
        variant.call(tiny)
    with thread_limit(variant.threads):  # once more, now that the libraries are loaded
        try:
            answer: Any = peak_memory(lambda: variant.call(inputs))
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
                raise
            answer = OUT_OF_MEMORY
    print(json.dumps(answer))
    return True


def main(bench: Bench, cases: Sequence[Case], quick: Sequence[Case], arguments: Sequence[str]) -> int:
    """The command line of a benchmark; returns the exit status."""
    if serve_memory(bench, arguments):
        return 0
    size = "x".join(name.upper() for name in bench.sizes)
    parser = argparse.ArgumentParser(description=f"The benchmark {bench.name}; see benchmarks/README.md.")
    parser.add_argument("--size", action="append", metavar=size, help="a case (repeat for more); default: all")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each variant (default: 7)")
    parser.add_argument("--only", action="append", metavar="NAME", help="this variant only (repeat for more)")
    parser.add_argument("--dir", help="where the inputs' files are kept meanwhile (default: the system's choice)")
    parser.add_argument("--out", type=Path, help=f"JSONL file to add to (default: results/{bench.name}.jsonl)")
    parser.add_argument("--quick", action="store_true", help="tiny cases, two repeats; kept only with --out")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats: wanted 1 or more, got {options.repeats}")
    chosen = quick if options.quick else cases
    if options.size:
        try:
            chosen = [parse_case(bench, text) for text in options.size]
        except ValueError as error:
            parser.error(str(error))
    out = options.out or (None if options.quick else RESULTS / f"{bench.name}.jsonl")
    common = provenance(arguments)
    for case in chosen:
        variants = [v for v in bench.variants(case) if not options.only or v.name in options.only]
        if not variants:
            names = ", ".join(sorted({v.name for v in bench.variants(case)}))
            parser.error(f"--only: wanted some of {names}, got {', '.join(options.only)}")
        with tempfile.TemporaryDirectory(prefix="proto_engine_bench_", dir=options.dir) as folder:
            repeats = 2 if options.quick else options.repeats
            rows = run_case(bench, case, variants, common, Path(folder), repeats=repeats)
        for row in rows:
            print(describe(row))
        if out is not None:
            append_rows(out, rows)
    return 0


def parse_case(bench: Bench, text: str) -> Case:
    """A case from ``--size``, such as "16384x512"."""
    parts = text.lower().split("x")
    if len(parts) != len(bench.sizes) or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"--size: wanted {'x'.join(bench.sizes)} in whole numbers, got {text!r}")
    return dict(zip(bench.sizes, map(int, parts), strict=True))


def describe(row: dict[str, Any]) -> str:
    """A row in one line, for the terminal."""
    what = " x ".join(f"{value:,}" for value in row["case"].values())
    what += f"  {row['variant']:<14} {row['task']:<18} {row['threads']} thr  "
    if row["outcome"] != "ok":
        return what + row["outcome"]
    growth = row["memory_growth_bytes"]
    memory = "" if growth is None else f"  +{growth / 1e6:,.0f} MB"
    return what + f"{row['median_s']:.4g} s ({row['p10_s']:.4g} to {row['p90_s']:.4g}){memory}"


def append_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Add whole lines to a JSONL file: one write at its end, then fsync.

    A line that an interrupted writer left unfinished is closed first; `read_rows` then names it.
    """
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            lines = b"\n" + lines
        written = os.write(descriptor, lines)
        if written != len(lines):
            raise OSError(f"{path.name}: wrote {written} of {len(lines)} bytes")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file; none when there is no file.

    Raises
    ------
    ValueError
        A line is no JSON object; the message says which.
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path.name}: line {number} is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path.name}: line {number}: wanted an object, got {type(row).__name__}")
        rows.append(row)
    return rows


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
