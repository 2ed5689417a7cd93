"""Puts the rows of benchmarks/results into the READMEs' tables and the plots of docs/images.

    python benchmarks/report.py            # rewrite them, and say whether the claims hold
    python benchmarks/report.py --check    # fail where they do not show the rows

A table stands between two comments, ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import plots
from harness import RESULTS, read_rows
from machine import ROOT
from tables import CORRECT, SELECT, Row, density_summary, full_table, newest, pick, product_of, ratio, score_summary
from training_tables import training_summary

from proto_engine import atomic_write


@dataclass(frozen=True)
class Section:
    """A table of one file."""

    file: str
    name: str  # of the markers, and of the result file
    table: Callable[[Sequence[Row]], str]


@dataclass(frozen=True)
class Plot:
    """A picture of one result file."""

    file: str
    name: str
    draw: Callable[[Sequence[Row], Path], None]


SECTIONS = (
    Section("README.md", "bench_density", density_summary),
    Section("README.md", "bench_score", score_summary),
    Section("README.md", "fashion_mnist", training_summary),
    Section("benchmarks/README.md", "bench_density", full_table),
    Section("benchmarks/README.md", "bench_score", full_table),
)
PLOTS = (
    Plot("docs/images/bench_density.png", "bench_density", plots.plot_density),
    Plot("docs/images/bench_score.png", "bench_score", plots.plot_score),
)


def render(text: str, name: str, table: str) -> str | None:
    """The text with the table between the markers of that name; None where it has no such place."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        return None
    before, rest = text.split(begin)
    body = f"\n{table}\n" if table else "\n"
    return f"{before}{begin}{body}{end}{rest.split(end)[1]}"


def update(root: Path, results: Path, *, check: bool) -> list[str]:
    """Bring tables and plots up to the rows, or with ``check`` only look.

    Returns
    -------
    list of str
        What is wrong: a file that does not show the rows (with ``check``), rows without a place.
    """
    problems = []
    rows = {name: read_rows(results / f"{name}.jsonl") for name in {part.name for part in (*SECTIONS, *PLOTS)}}
    for file in dict.fromkeys(section.file for section in SECTIONS):
        path = root / file
        old = text = path.read_text(encoding="utf-8")
        for section in (s for s in SECTIONS if s.file == file):
            new = render(text, section.name, section.table(rows[section.name]))
            if new is not None:
                if check and new != text:
                    problems.append(f"{file}: the table {section.name} does not show the newest rows")
                text = new
            elif rows[section.name]:
                problems.append(f"{file}: no place for the rows, wanted one <!-- {section.name}:begin --> and :end")
        if text != old and not check:
            with atomic_write(path, "w") as output:
                output.write(text)
    for plot in PLOTS:
        path = root / plot.file
        if not rows[plot.name] or plots.shown_digest(path) == plots.digest(rows[plot.name]):
            continue
        if check:
            problems.append(f"{plot.file}: does not show the newest rows")
        else:
            plot.draw(rows[plot.name], path)
    return problems


def claims(density: Sequence[Row], score: Sequence[Row]) -> list[str]:
    """What the project promises of its CPU engine, and whether the newest rows bear it out."""
    told = []
    for device, cases in newest(density).items():
        for case in cases:
            ours, product, dense = pick(case, "cpu", SELECT), product_of(case), pick(case, "torch dense", SELECT)
            if case[0]["case"] == {"m": 16384, "dim": 512}:
                told += _claim(device, "cpu / torch.mm(X, X.T, out=S)", ratio(ours, product), 0.8)
                told += _claim(device, "cpu / torch dense", ratio(ours, dense), 0.25)
            if case[0]["case"] == {"m": 60000, "dim": 256} and ours and ours["memory_growth_bytes"]:
                told += _claim(device, "memory growth of cpu, MB", ours["memory_growth_bytes"] / 1e6, 250)
    for device, cases in newest(score).items():
        for case in cases:
            ours, product = pick(case, "cpu", CORRECT), product_of(case)
            if case[0]["case"] == {"num_samples": 1_000_000, "dim": 512, "num_classes": 100}:
                told += _claim(device, "cpu / bare chunked product", ratio(ours, product), 1.3)
                if ours and ours["memory_peak_bytes"]:
                    told += _claim(device, "peak memory of the process, MB", ours["memory_peak_bytes"] / 1e6, 1000)
    return told


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Tables and plots from benchmarks/results.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where README and rows disagree")
    options = parser.parse_args(arguments)
    problems = update(ROOT, RESULTS, check=options.check)
    for line in claims(read_rows(RESULTS / "bench_density.jsonl"), read_rows(RESULTS / "bench_score.jsonl")):
        print(line)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _claim(device: str, what: str, value: float | None, at_most: float) -> list[str]:
    if value is None:
        return []
    verdict = "holds" if value <= at_most else "DOES NOT HOLD"
    return [f"{verdict}: {what} at most {at_most:g}, measured {value:.3g} ({device})"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
