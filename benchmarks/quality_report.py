"""Markdown of docs/quality.md from rows of bench_quality.jsonl: mean and spread over seeds, whoever wins."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from quality_lines import COLUMNS, Column, Line, best, groups, lines_of, mean, setting_name, settings_of, values
from quality_methods import METHODS
from quality_remarks import remarks
from quality_runs import Row
from rows import OK

BANK_NAMES = {"filters": "fixed filters", "network": "features of a network trained on the given labels"}
_ORDER = {option: n for n, option in enumerate(("name", "data", "features", "root", "labels"))}


def quality_tables(rows: Sequence[Row]) -> str:
    """A table for each data set and bank, with what stands out below it."""
    parts = []
    for group in groups(rows):
        lines = [_head()]
        for found in settings_of(group):
            lines += _setting_lines(found)
        parts += [_caption(group), "\n".join(lines), *remarks(group), *_failures(group)]
    return "\n\n".join(parts)


def quality_cost(rows: Sequence[Row]) -> str:
    """Time and memory of every method, over all settings of a data set."""
    parts = []
    for group in groups(rows):
        first = group[0]
        heads = ["method", "seconds", "CPU seconds", "memory growth", "peak memory", "runs"]
        lines = [_line(heads), _line(["---"] * len(heads))]
        for method in METHODS:
            done = [row for row in group if row["method"] == method and row["outcome"] == OK]
            if done:
                cells = [_seconds(done, "seconds"), _seconds(done, "cpu_seconds")]
                cells += [_megabytes(done, "memory_growth_bytes"), _megabytes(done, "memory_peak_bytes")]
                lines.append(_line([METHODS[method].title, *cells, str(len(done))]))
        size = f"{first['num_samples']:,} x {first['dim']:,} {first['dtype']}, {first['num_classes']} classes"
        parts += [f"**{_title(first)}**: {size}, {first['threads']} threads.", "\n".join(lines)]
    return "\n\n".join(parts)


def _setting_lines(rows: Sequence[Row]) -> list[str]:
    lines, text = lines_of(rows), []
    highest = {column: best(lines, column) for column in COLUMNS if column.compared}
    given = statistics.mean({row["noise_seed"]: row["given_accuracy"] for row in rows}.values())
    what = f"{setting_name(rows[0])}: {given:.4f} right"
    for position, (method, score, done) in enumerate(lines):
        again = position > 0 and lines[position - 1][0] == method  # another score of the same run
        name = f"same, {score}" if again else METHODS[method].title
        cells = [
            "" if again and not column.of_score else _cell((method, score, done), column, highest.get(column))
            for column in COLUMNS
        ]
        text.append(_line([what if position == 0 else "", name, *cells]))
    for method in METHODS:
        failed = [row for row in rows if row["method"] == method and row["outcome"] != OK]
        if failed and not any(line[0] == method for line in lines):
            text.append(_line(["", METHODS[method].title, failed[0]["outcome"], *[""] * (len(COLUMNS) - 1)]))
    return text


def _cell(line: Line, column: Column, highest: float | None) -> str:
    found = values(line, column)
    if not found:
        return ""
    spread = f" ± {statistics.stdev(found):.{column.digits}f}" if len(found) > 1 else ""
    text = f"{statistics.mean(found):.{column.digits}f}{spread}"
    return f"**{text}**" if mean(line, column) == highest else text


def _failures(group: Sequence[Row]) -> list[str]:
    found = {f"{METHODS[row['method']].title}: {row['reason']}": None for row in group if row["outcome"] != OK}
    return [f"Not finished: {'; '.join(found)}.".replace("|", "/")] if found else []


def _caption(group: Sequence[Row]) -> str:
    first = group[0]
    bold = "; the best mean of a column is bold, whoever has it" if len({row["method"] for row in group}) > 1 else ""
    seeds = _listed({row["seed"] for row in group if row["seed"] is not None})
    days = _listed({row["date"][:10] for row in group})
    commits = _listed({row["commit"] for row in group if row["commit"]})
    commands = "; ".join(f"`{text}`" for text in sorted({_plain(row["command"]) for row in group}))
    return (
        f"**{_title(first)}**: {first['num_samples']:,} x {first['dim']:,} {first['dtype']}, {first['num_classes']} "
        f"classes. Mean ± standard deviation over seeds {seeds}{bold}. "
        f"{_listed({row['device'] for row in group})}. Measured {days}, commit {commits}, {commands}."
    )


def _title(row: Row) -> str:
    return f"{row['data']}, {BANK_NAMES.get(row['bank'], row['bank'])}"


def _plain(command: str) -> str:
    """Without what has no bearing on the numbers, and in one order, so that parts of one series read as one command."""
    program, *options = command.split(" --")
    without = ("out", "cache", "again", "methods", "seeds")
    kept = [option for option in options if option.split()[0] not in without]
    kept.sort(key=lambda option: (_ORDER.get(option.split()[0], len(_ORDER)), option))
    return " --".join([program, *kept])


def _seconds(rows: Sequence[Row], name: str) -> str:
    found = [row[name] for row in rows]
    low, middle, high = min(found), statistics.median(found), max(found)
    return f"{middle:.3g}" if len(found) == 1 else f"{middle:.3g} ({low:.3g} to {high:.3g})"


def _megabytes(rows: Sequence[Row], name: str) -> str:
    found = [row[name] for row in rows if row[name] is not None]
    return f"{max(found) / 1e6:,.0f} MB" if found else ""


def _head() -> str:
    heads = ["labels given", "method", *(column.head for column in COLUMNS)]
    return _line(heads) + "\n" + _line(["---"] * len(heads))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _listed(found: set[Any]) -> str:
    return ", ".join(str(item) for item in sorted(found, key=str))
