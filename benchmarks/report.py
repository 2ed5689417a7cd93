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
from functools import partial
from pathlib import Path

import gpu_plots
import plots
from claims import claims
from gpu_tables import gpu_full_table, gpu_rows, gpu_status, gpu_summary
from machine import ROOT
from paper_curves import draw as draw_curves
from paper_curves import picture_of, pictures
from paper_report import table_of
from paper_variants import TABLES
from quality_plots import plot_quality
from quality_plots import shown as quality_shown
from quality_report import quality_cost, quality_tables
from rows import RESULTS, read_rows
from tables import Row, density_summary, full_table, host_rows, score_summary
from training_tables import training_summary

from proto_engine import atomic_write

BENCHES = tuple(f"bench_{op}" for op in ("similarity", "cutoff", "density", "eta", "score", "engine"))


@dataclass(frozen=True)
class Section:
    """A table of one file."""

    file: str
    name: str  # of the markers
    sources: tuple[str, ...]  # result files
    table: Callable[[Sequence[Row]], str]


@dataclass(frozen=True)
class Plot:
    """A picture of the rows of one result file that ``shown`` takes."""

    file: str
    source: str
    shown: Callable[[Sequence[Row]], list[Row]]
    draw: Callable[[Sequence[Row], Path], None]


def all_rows(rows: Sequence[Row]) -> str:
    """The tables of benchmarks/README.md: the hosts, then the GPUs."""
    return "\n\n".join(table for table in (full_table(rows), gpu_full_table(rows)) if table)


def paper_table(name: str, rows: Sequence[Row]) -> str:
    """A table of docs/results.md; that of the methods with its pictures."""

    def picture(shown: Sequence[Row]) -> str | None:
        file = picture_of(shown, rows)
        return f"images/{file}" if file else None

    return table_of(name, rows, picture) if name == "methods" else table_of(name, rows)


def curves(rows: Sequence[Row]) -> list[Plot]:
    """The pictures of the paper's tables: as many as there are data sets and noises with rows."""
    return [
        Plot(f"docs/images/{file}", "paper_tables", lambda rows, shown=tuple(shown): list(shown), draw_curves)
        for file, shown in pictures(rows).items()
    ]


SECTIONS = (
    Section("README.md", "bench_density", ("bench_density",), density_summary),
    Section("README.md", "bench_score", ("bench_score",), score_summary),
    Section("README.md", "gpu", BENCHES, gpu_summary),
    Section("README.md", "training", ("paper_tables",), training_summary),
    Section("benchmarks/README.md", "gpu_status", BENCHES, gpu_status),
    *(
        Section("benchmarks/README.md", name, (name,), all_rows)
        for name in (*BENCHES, "bench_correction", "bench_input")
    ),
    *(Section("docs/results.md", f"paper_{name}", ("paper_tables",), partial(paper_table, name)) for name in TABLES),
    Section("docs/quality.md", "quality", ("bench_quality",), quality_tables),
    Section("docs/quality.md", "quality_unseen", ("bench_quality_unseen",), quality_tables),
    Section("docs/quality.md", "quality_cost", ("bench_quality",), quality_cost),
)
PLOTS = (
    Plot("docs/images/bench_density.png", "bench_density", host_rows, plots.plot_density),
    Plot("docs/images/bench_score.png", "bench_score", host_rows, plots.plot_score),
    Plot("docs/images/gpu_roofline.png", "bench_density", gpu_rows, gpu_plots.plot_roofline),
    Plot("docs/images/gpu_time.png", "bench_density", gpu_rows, gpu_plots.plot_time),
    Plot("docs/images/quality.png", "bench_quality", quality_shown, plot_quality),
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
    names = {name for section in SECTIONS for name in section.sources} | {plot.source for plot in PLOTS}
    rows = {name: read_rows(results / f"{name}.jsonl") for name in names}
    for file in dict.fromkeys(section.file for section in SECTIONS):
        path = root / file
        old = text = path.read_text(encoding="utf-8") if path.exists() else ""
        for section in (s for s in SECTIONS if s.file == file):
            table = section.table([row for name in section.sources for row in rows[name]])
            new = render(text, section.name, table)
            if new is not None:
                if check and new != text:
                    problems.append(f"{file}: the table {section.name} does not show the newest rows")
                text = new
            elif table:
                problems.append(f"{file}: no place for the rows, wanted one <!-- {section.name}:begin --> and :end")
        if text != old and not check:
            with atomic_write(path, "w") as output:
                output.write(text)
    for plot in (*PLOTS, *curves(rows["paper_tables"])):
        path = root / plot.file
        shown = plot.shown(rows[plot.source])
        if not shown or plots.shown_digest(path) == plots.digest(shown):
            continue
        if check:
            problems.append(f"{plot.file}: does not show the newest rows")
        else:
            plot.draw(shown, path)
    return problems


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Tables and plots from benchmarks/results.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where README and rows disagree")
    options = parser.parse_args(arguments)
    problems = update(ROOT, RESULTS, check=options.check)
    for line in claims({name: read_rows(RESULTS / f"{name}.jsonl") for name in (*BENCHES, "bench_correction")}):
        print(line)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
