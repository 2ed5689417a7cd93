"""Markdown of the paper's tables from rows of paper_tables.jsonl: mean and spread over seeds, whoever wins."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from paper_numbers import PAPER
from paper_runs import deciding, row_key
from paper_variants import TABLES, VARIED, Row, Table, Variant
from proto_trainer.config import RECIPES
from rows import OK, newest_runs

NAMES = {
    "ce": "cross-entropy",
    "forward": "forward correction",
    "joint": "joint optimization",
    "mlnt": "meta-learning (teacher)",
    "cleannet-hard": "CleanNet, hard",
    "cleannet-soft": "CleanNet, soft",
    "smp": "self-correction",
}
HEADS = {
    "test_accuracy": "test accuracy, last epoch",
    "test_accuracy_best": "best epoch",
    "test_accuracy_first": "test accuracy, epoch of the first correction",
    "label_accuracy_given": "labels given",
    "label_accuracy_first": "labels, first phase",
    "label_accuracy_last": "labels, last phase",
    "label_accuracy_least": "labels, least of all phases",
}
NOISES = {"symmetric": "symmetric", "pairflip": "pair-flip", "instance": "instance-dependent"}
# Beside what tables vary: rows that differ in nothing else stand in one table.
_WITHIN = (*VARIED, "seed", "noise", "start_epoch", "prior_weight", "entropy_weight")
_NOT_COMPARED = ("label_accuracy_given",)


def table_of(name: str, rows: Sequence[Row], picture: Callable[[Sequence[Row]], str | None] = lambda rows: None) -> str:
    """The table `name` of `paper_variants.TABLES`, once for each noise and for each group of settings with rows.

    ``picture`` gives the file that shows the rows of one noise, for those that have one.
    """
    parts = []
    for group in settings_groups(name, rows):
        parts.append(_caption(group))
        for noise in noises_of(group):
            found = [row for row in group if row["noise"] == noise]
            parts += [f"*{noise_name(noise)}*", _lines(name, TABLES[name], found)]
            if file := picture(found):
                parts.append(f"![{group[0]['data']}, {noise_name(noise)}]({file})")
        parts += _notes(name, group)
    return "\n\n".join(parts)


def settings_groups(name: str, rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of a table, the newest of each run, parted by everything that its lines do not vary."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in newest_runs(rows, row_key):
        if any(variant.has(row) for variant in TABLES[name].variants):
            settings = deciding(row["settings"])
            groups.setdefault(tuple(f"{k}={settings[k]}" for k in sorted(settings) if k not in _WITHIN), []).append(row)
    groups = {key: group for key, group in groups.items() if _compares(TABLES[name], group)}
    ordered = sorted(groups, key=lambda key: (groups[key][0]["data"], -groups[key][0]["num_images"], key))
    return [sorted(groups[key], key=row_key) for key in ordered]


def _compares(table: Table, group: Sequence[Row]) -> bool:
    """Whether a table that varies a setting has rows with two values of it, not just the default that others share."""
    found = [variant for variant in table.variants if any(variant.has(row) for row in group)]
    settings = {str(variant.settings) for variant in found}
    return len(settings) > 1 or all(not variant.settings for variant in table.variants)


def noises_of(rows: Sequence[Row]) -> list[str]:
    """Symmetric noise first, then by name and rate."""
    return sorted({row["noise"] for row in rows}, key=lambda noise: (not noise.startswith("symmetric"), noise))


def noise_name(noise: str) -> str:
    """``symmetric:0.4`` in words."""
    if noise == "none":
        return "labels as they come"
    kind, rate = noise.split(":")
    return f"{NOISES[kind]} noise, {float(rate):.0%}"


def mean_and_spread(values: Sequence[float], digits: int = 3) -> str:
    """The mean and the sample standard deviation (n - 1), which one value does not have."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def _lines(name: str, table: Table, rows: Sequence[Row]) -> str:
    """One noise: a line for each variant that has any rows, the paper's numbers behind ours."""
    lines = [(variant, [row for row in rows if variant.has(row)]) for variant in table.variants]
    lines = [(variant, found) for variant, found in lines if found]
    num_seeds = len({row["seed"] for row in rows})
    paper = PAPER.get(rows[0]["data"], {}).get(name, {}) if rows[0]["noise"] == "none" else {}
    printed = [column for column in table.columns if any(column in numbers for numbers in paper.values())]
    columns = [c for c in table.columns if c in printed or any(_values(found, c) for _, found in lines)]
    if "test_accuracy" not in columns and "test_accuracy" in table.columns:  # where to say why there is no number
        columns.insert(0, "test_accuracy")
    best = {column: _best(column, [found for _, found in lines]) for column in columns}
    heads = [table.title, *(HEADS[column] for column in columns), *(f"paper: {HEADS[column]}" for column in printed)]
    text = [_line(heads), _line(["---"] * len(heads))]
    for variant, found in lines:
        cells = [_name(variant), *(_cell(found, column, num_seeds, best[column]) for column in columns)]
        if all(row["outcome"] != OK for row in found):
            cells[1] = f"{found[0]['outcome']}: {found[0]['reason']}".replace("|", "/")
        numbers = paper.get(variant.line, {})
        cells += [f"{numbers[column] / 100:.4f}" if column in numbers else "" for column in printed]
        text.append(_line(cells))
    return "\n".join(text)


def _name(variant: Variant) -> str:
    """A line in words: methods have longer names than on the command line."""
    method, _, rest = variant.line.partition(" + ")
    return NAMES.get(method, method) + (f" + {rest}" if rest else "")


def _cell(found: Sequence[Row], column: str, num_seeds: int, best: float | None) -> str:
    values = _values(found, column)
    if not values:
        return ""
    text = mean_and_spread(values, 3)
    if statistics.mean(values) == best:
        text = f"**{text}**"
    if column == "test_accuracy" and len(values) < num_seeds:
        others = [row["outcome"] for row in found if row["outcome"] != OK]
        text += f" ({len(values)} of {num_seeds} seeds{f', {len(others)} {others[0]}' if others else ''})"
    return text


def _values(found: Sequence[Row], column: str) -> list[float]:
    done = [row for row in found if row["outcome"] == OK]
    return [row[column] for row in done if row[column] is not None]


def _best(column: str, lines: Sequence[Sequence[Row]]) -> float | None:
    """The highest mean of a column, whoever has it; None where there is nothing to compare."""
    means = [statistics.mean(values) for found in lines if (values := _values(found, column))]
    return max(means) if len(means) > 1 and column not in _NOT_COMPARED else None


def _caption(group: Sequence[Row]) -> str:
    first, settings = group[0], group[0]["settings"]
    return (
        f"**{first['data']}**: {first['num_images']:,} training images, {settings['model']}, {settings['epochs']} "
        f"epochs, correction from epoch {listed({row['settings']['start_epoch'] for row in group})} on (counted "
        f"from 0). Mean ± standard deviation over seeds {listed({row['seed'] for row in group})}; the best mean of a "
        "column is bold."
    )


def _notes(name: str, group: Sequence[Row]) -> list[str]:
    """Which labels are verified, on what the rows were measured, and how to get them again."""
    notes = []
    if told := {row["verified"].rsplit(",", 1)[0] for row in group if row.get("verified")}:
        notes.append(f'"+ verified": for some images it is known whether the given label is right ({listed(told)}).')
    if longer := {row["clean_epochs"] for row in group if row.get("clean_epochs")}:
        notes.append(f'"+ clean": their right label is known, too; epochs of fine-tuning on it: {listed(longer)}.')
    device, threads = (listed({row[what] for row in group}) for what in ("device", "threads"))
    days = listed({row["date"][:10] for row in group})
    commits = {row["commit"] for row in group} - {None}  # a source archive has none
    notes.append(
        f"{device}; threads a run: {threads}; {days}{f'; commit {listed(commits)}' if commits else ''}. "
        f"Regenerate with `{command_of(name, group)}`."
    )
    return [" ".join(notes)]


def command_of(name: str, group: Sequence[Row]) -> str:
    """The one command that gives all rows of a group, however many were used."""
    data, settings = group[0]["data"], group[0]["settings"]
    words = ["python", "benchmarks/paper_tables.py", name, "--data", data]
    words += [] if data == "digits" else ["--root", "DIR"]
    words += ["--noise", *noises_of(group), "--seeds", *map(str, sorted({row["seed"] for row in group}))]
    words += [] if settings["images"] is None else ["--images", str(settings["images"])]
    words += [] if settings["epochs"] == RECIPES[data]["epochs"] else ["--epochs", str(settings["epochs"])]
    return shlex.join(words)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def listed(values: set[Any]) -> str:
    """In order, with commas."""
    return ", ".join(map(str, sorted(values)))
