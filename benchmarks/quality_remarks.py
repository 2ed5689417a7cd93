"""Sentences below the tables of docs/quality.md: where ours is behind, wrong about itself, or changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from quality_lines import AUROC, LABELS, Column, best, lines_of, mean, setting_name, settings_of
from quality_methods import METHODS, OURS
from quality_runs import Row

APART = 0.05  # expected and really right changes are told when they are further apart


def remarks(group: Sequence[Row]) -> list[str]:
    """Of one data set: about the rivals where there are any, and about our own expectations."""
    return _rivals(group) + _expectations(group)


def _rivals(group: Sequence[Row]) -> list[str]:
    """Where another method is ahead."""
    ahead: dict[Column, list[str]] = {AUROC: [], LABELS: []}
    compared = dict.fromkeys(ahead, 0)
    for rows in settings_of(group):
        lines = lines_of(rows)
        ours = next((line for line in lines if line[0] == OURS), None)
        if ours is None:
            continue
        for column, told in ahead.items():
            highest, own = best(lines, column), mean(ours, column)
            if highest is None or own is None:
                continue
            compared[column] += 1
            if highest > own:
                winner = next(line for line in lines if mean(line, column) == highest)
                told.append(f"{setting_name(rows[0])} ({METHODS[winner[0]].title}: {highest:.4f}, ours {own:.4f})")
    if not any(compared.values()):
        return []
    auroc, labels = (_told(ahead[column], f"of {compared[column]} settings") for column in (AUROC, LABELS))
    return [
        f"Another method is ahead of ours in AUROC in {auroc} "
        f"Another method has more right labels by default in {labels}"
    ]


def _expectations(group: Sequence[Row]) -> list[str]:
    """Where expectation and truth part, where labels got worse, and where none changed."""
    apart, worse, kept, runs = [], [], [], 0
    for rows in settings_of(group):
        for row in (row for method, _, done in lines_of(rows) if method == OURS for row in done):
            seed, found = f"{setting_name(row)}, seed {row['seed']}", row["default"]
            runs += 1
            if found["expected"] is not None and abs(found["expected"] - found["right"]) > APART:
                apart.append(f"{seed} ({found['expected']:.3f} expected, {found['right']:.3f} right)")
            if row["note"]:
                kept.append(f"{seed} ({row['note']})")
            if found["accuracy"] < row["given_accuracy"]:
                worse.append(f"{seed} ({row['given_accuracy']:.4f} to {found['accuracy']:.4f})")
    if not runs:
        return []
    return [
        f"Of {runs} runs, expected and really right changes differ by more than {100 * APART:.0f} points in "
        f"{_told(apart)} The default made labels worse in {_told(worse)} It left all labels alone, with a reason, in "
        f"{_told(kept)}"
    ]


def _told(found: Sequence[str], of: str = "") -> str:
    if not found:
        return f"none {of}".rstrip() + "."
    return (f"{len(found)} {of}: " if of else f"{len(found)} run{'s' * (len(found) > 1)}: ") + "; ".join(found) + "."
