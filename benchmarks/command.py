"""The command line of a benchmark."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from children import serve_memory
from harness import run_case
from machine import provenance
from parts import Bench, Case, Side
from places import DeviceLost, Host, Place
from rows import FAILED, RESULTS, WRONG, append_rows, describe, sizes

DTYPES = ("float16", "bfloat16", "float32")
_CHECK_SECONDS = 35  # of --gpu-check: after that no new case begins


def main(bench: Bench, arguments: Sequence[str]) -> int:
    """Run a benchmark.

    Returns
    -------
    int
        The exit status: 1 where a variant of ours or a roofline was wrong or stopped with an error, 2 where
        there is no such device.
    """
    if serve_memory(bench, arguments):
        return 0
    parser = _parser(bench)
    options = parser.parse_args(arguments)
    if options.repeats is not None and options.repeats < 1:
        parser.error(f"--repeats: wanted 1 or more, got {options.repeats}")
    if options.device == "cpu" and (options.dtype or options.gpu_check):
        parser.error("--dtype, --gpu-check: wanted with --device cuda only; on the host all is float32")
    if options.dir is not None and not Path(options.dir).is_dir():
        parser.error(f"--dir: wanted a folder that exists, got {options.dir}")
    try:
        cases = _cases(bench, options)
    except ValueError as error:
        parser.error(str(error))
    place = open_place(options.device, brief=options.gpu_check)
    if isinstance(place, str):
        print(f"--device cuda: {place}", file=sys.stderr)
        return 2
    return _run(bench, cases, place, options, provenance(arguments, place.about()), parser)


def parse_case(bench: Bench, text: str) -> Case:
    """A case from ``--size``, such as "16384x512"."""
    parts = text.lower().split("x")
    if len(parts) != len(bench.sizes) or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"--size: wanted {'x'.join(bench.sizes)} in whole numbers, got {text!r}")
    return dict(zip(bench.sizes, map(int, parts), strict=True))


def _parser(bench: Bench) -> argparse.ArgumentParser:
    size = "x".join(name.upper() for name in bench.sizes)
    parser = argparse.ArgumentParser(description=f"The benchmark {bench.name}; see benchmarks/README.md.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to run (default: the host)")
    parser.add_argument("--size", action="append", metavar=size, help="a case (repeat for more); default: all")
    parser.add_argument(
        "--dtype", action="append", choices=DTYPES, help="on a GPU: these only (default: all; of --size float16)"
    )
    parser.add_argument("--repeats", type=int, help="timed calls of each variant (default: 7; on a GPU 2 to 50)")
    parser.add_argument("--only", action="append", metavar="NAME", help="this variant only (repeat for more)")
    parser.add_argument("--without", action="append", metavar="NAME", help="not this variant (repeat for more)")
    parser.add_argument("--dir", help="where the inputs' files are kept meanwhile (default: the system's choice)")
    parser.add_argument("--out", type=Path, help=f"JSONL file to add to (default: results/{bench.name}.jsonl)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="tiny cases, two repeats; kept only with --out")
    which.add_argument("--gpu-check", action="store_true", help=f"what fits into about {_CHECK_SECONDS} s of a GPU")
    return parser


def _cases(bench: Bench, options: argparse.Namespace) -> list[Case]:
    side = _side(bench, options.device)
    if options.size:
        cases = [parse_case(bench, text) for text in options.size]
        if options.device == "cpu":
            return cases
        return [{**case, "dtype": dtype} for case in cases for dtype in options.dtype or DTYPES[:1]]
    cases = list(side.quick if options.quick else side.gpu_check if options.gpu_check else side.cases)
    return [case for case in cases if not options.dtype or case["dtype"] in options.dtype]


def open_place(device: str, *, brief: bool) -> Place | str:
    """The place, or why there is none; ``brief`` calls each variant fewer times."""
    if device == "cpu":
        return Host()
    try:
        import gpu
    except ImportError as error:
        return f"torch is needed to time a GPU ({error})"
    return gpu.unavailable() or gpu.Gpu(seconds=0.1 if brief else 0.4)


def _side(bench: Bench, device: str) -> Side:
    return bench.host if device == "cpu" else bench.gpu


def _run(
    bench: Bench,
    cases: Sequence[Case],
    place: Place,
    options: argparse.Namespace,
    common: dict[str, object],
    parser: argparse.ArgumentParser,
) -> int:
    side = _side(bench, options.device)
    out = options.out or (None if options.quick else RESULTS / f"{bench.name}.jsonl")
    repeats = 2 if options.quick else options.repeats
    began, status = monotonic(), 0
    for number, case in enumerate(cases):
        if options.gpu_check and monotonic() - began > _CHECK_SECONDS:
            left = "; ".join(sizes(case) for case in cases[number:])
            print(f"{bench.name}: out of time, left out: {left}", file=sys.stderr)
            break
        there = side.variants(case, place)
        variants = [v for v in there if not options.only or v.name in options.only]
        without = (*(options.without or ()), *(side.check_without if options.gpu_check else ()))
        variants = [v for v in variants if v.name not in without]
        if not variants:
            names = ", ".join(sorted({v.name for v in there}))
            parser.error(f"--only, --without: wanted some of {names}, and {sizes(case)} is left with none")
        with tempfile.TemporaryDirectory(prefix="proto_engine_bench_", dir=options.dir) as folder:
            try:
                rows = run_case(bench, side, case, variants, place, common, Path(folder), repeats=repeats)
            except DeviceLost as error:
                print(f"{bench.name} {sizes(case)}: {error}; leave the last variant out (--without)", file=sys.stderr)
                return 1
        for row in rows:
            print(describe(row), flush=True)
            ours = row["role"] != "baseline"  # what others cannot do is their row's to say
            status = 1 if ours and row["outcome"] in (WRONG, FAILED) else status
        if out is not None:
            append_rows(out, rows)
    return status
