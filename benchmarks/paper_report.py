"""Markdown of the paper's tables from rows of paper_tables.jsonl: mean and spread over seeds, whoever wins."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from paper_numbers import PAPER
from paper_runs import row_key
from paper_variants import DEFAULTS, TABLES, VARIED, Row, Table, Variant
from rows import OK

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
    "label_accuracy_first": "first phase",
    "label_accuracy_last": "last phase",
    "label_accuracy_least": "least of all phases",
    "minutes": "minutes a run",
}
NOISES = {"symmetric": "symmetric", "pairflip": "pair-flip", "instance": "instance-dependent"}
# Beside what tables vary: rows that differ in nothing else stand in one table.
_WITHIN = (*VARIED, "seed", "noise", "start_epoch", "prior_weight", "entropy_weight")
_NOT_COMPARED = ("label_accuracy_given", "minutes")


def table_of(name: str, rows: Sequence[Row]) -> str:
    """The table `name` of `paper_variants.TABLES`, once for each noise and for each group of settings with rows."""
    table = TABLES[name]
    return "\n\n".join(
        _block(name, table, group, noise) for group in settings_groups(name, rows) for noise in noises_of(group)
    )


def settings_groups(name: str, rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of a table, the newest of each run, parted by everything that its lines do not vary."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    newest = {row_key(row): row for row in sorted(rows, key=lambda row: row["date"])}
    for row in newest.values():
        if any(variant.has(row) for variant in TABLES[name].variants):
            shared = {key: value for key, value in (DEFAULTS | row["settings"]).items() if key not in _WITHIN}
            groups.setdefault(tuple(f"{key}={shared[key]}" for key in sorted(shared)), []).append(row)
    return [
        groups[key]
        for key in sorted(groups, key=lambda key: (groups[key][0]["data"], -groups[key][0]["num_images"], key))
    ]


def noises_of(rows: Sequence[Row]) -> list[str]:
    """Symmetric noise first, then by name and rate."""
    return sorted({row["noise"] for row in rows}, key=lambda noise: (not noise.startswith("symmetric"), noise))


def noise_name(noise: str) -> str:
    """``symmetric:0.4`` in words."""
    if noise == "none":
        return "labels as they come"
    kind, rate = noise.split(":")
    return f"{NOISES[kind]} noise, {float(rate):.0%}"


def line_name(variant: Variant) -> str:
    """A line in words: methods have longer names than on the command line."""
    method, _, rest = variant.line.partition(" + ")
    return NAMES.get(method, method) + (f" + {rest}" if rest else "")


def mean_and_spread(values: Sequence[float], digits: int = 3) -> str:
    """The mean and the sample standard deviation (n - 1), which one value does not have."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def _block(name: str, table: Table, group: Sequence[Row], noise: str) -> str:
    """One noise: what holds for all of its rows, then a line for each variant that has any."""
    rows = [row for row in group if row["noise"] == noise]
    lines = [(variant, [row for row in rows if variant.has(row)]) for variant in table.variants]
    lines = [(variant, found) for variant, found in lines if found]
    seeds = sorted({row["seed"] for row in rows})
    paper = {line: numbers for line, numbers in PAPER.get(rows[0]["data"], {}).get(name, {}).items() if noise == "none"}
    columns = [c for c in table.columns if any(_values(found, c) for _, found in lines) or _has(paper, c)]
    best = {column: _best(column, [found for _, found in lines]) for column in columns}
    heads = [table.title, *(HEADS[column] for column in columns)]
    heads += [f"paper: {HEADS[column]}" for column in columns if _has(paper, column)]
    text = [_caption(rows, noise, seeds), "", _line(heads), _line(["---"] * len(heads))]
    for variant, found in lines:
        cells = [line_name(variant), *(_cell(found, column, len(seeds), best[column]) for column in columns)]
        if all(row["outcome"] != OK for row in found):
            cells[1] = _told(found)
        printed = paper.get(variant.line, {})
        cells += [_paper_cell(printed.get(column)) for column in columns if _has(paper, column)]
        text.append(_line(cells))
    return "\n".join([*text, *_notes(rows)])


def _caption(rows: Sequence[Row], noise: str, seeds: Sequence[int]) -> str:
    first = rows[0]
    settings = first["settings"]
    starts = _listed(sorted({row["settings"]["start_epoch"] for row in rows}))
    return (
        f"**{first['data']}, {noise_name(noise)}**: {first['num_images']:,} training images, {settings['model']}, "
        f"{settings['epochs']} epochs, correction from epoch {starts} on (counted from 0); mean ± standard deviation "
        f"over seeds {_listed(seeds)}."
    )


def _notes(rows: Sequence[Row]) -> list[str]:
    """Which labels are verified, and how to get the rows again."""
    notes = []
    verified = sorted({row["verified"].rsplit(",", 1)[0] for row in rows if row.get("verified")})
    if verified:
        notes += ["", f'"+ verified": for some images it is known whether the given label is right '
                  f'({"; ".join(verified)}); "+ clean": their true label, too.']  # fmt: skip
    commands = sorted({row["command"] for row in rows})
    return [*notes, "", "Regenerate with " + " and ".join(f"`{command}`" for command in commands) + "."]


def _values(found: Sequence[Row], column: str) -> list[float]:
    if column == "minutes":
        return [row["seconds"] / 60 for row in found if row["outcome"] == OK]
    return [row[column] for row in found if row["outcome"] == OK and row[column] is not None]


def _best(column: str, lines: Sequence[Sequence[Row]]) -> float | None:
    """The highest mean of a column, whoever has it; None where there is nothing to compare."""
    means = [statistics.mean(values) for found in lines if (values := _values(found, column))]
    return max(means) if len(means) > 1 and column not in _NOT_COMPARED else None


def _cell(found: Sequence[Row], column: str, num_seeds: int, best: float | None) -> str:
    values = _values(found, column)
    if not values:
        return ""
    text = mean_and_spread(values, 1 if column == "minutes" else 3)
    if statistics.mean(values) == best:
        text = f"**{text}**"
    if column == "test_accuracy" and len(values) < num_seeds:
        text += f" ({len(values)} of {num_seeds} seeds{_stopped(found)})"
    return text


def _stopped(found: Sequence[Row]) -> str:
    outcomes = [row["outcome"] for row in found if row["outcome"] != OK]
    return f", {len(outcomes)} {outcomes[0]}" if outcomes else ""


def _told(found: Sequence[Row]) -> str:
    """Why a line has no number."""
    return f"{found[0]['outcome']}: {found[0]['reason']}".replace("|", "/")


def _paper_cell(percent: float | None) -> str:
    return "" if percent is None else f"{percent / 100:.4f}"


def _has(paper: dict[str, dict[str, float]], column: str) -> bool:
    return any(column in numbers for numbers in paper.values())


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))
