"""Lines of docs/quality.md: settings of a data set, methods with their scores, and columns of numbers over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quality_methods import METHODS
from quality_runs import Row, key
from rows import OK, newest_runs

NOISES = {"symmetric": "symmetric", "pairflip": "pair-flip", "instance": "instance-dependent"}


@dataclass(frozen=True)
class Column:
    """A number of a line: how to get it from a row and the name of a score, and whether it is compared."""

    head: str
    value: Callable[[Row, str], float | None]
    digits: int = 4
    compared: bool = True
    of_score: bool = False  # differs between scores of one method


def _score(name: str) -> Callable[[Row, str], float | None]:
    return lambda row, score: row["scores"][score][name]


def _of(policy: str, name: str) -> Callable[[Row, str], float | None]:
    return lambda row, score: row[policy][name]


AUROC = Column("AUROC", _score("auroc"), of_score=True)
LABELS = Column("labels right, by default", _of("default", "accuracy"))
COLUMNS = (
    AUROC,
    Column("average precision", _score("average_precision"), 3, of_score=True),
    Column("found in 5 %", _score("recall_budget"), 3, of_score=True),
    Column("found in the true share", _score("recall_share"), 3, of_score=True),
    LABELS,
    Column("all suggestions", _of("all", "accuracy")),
    Column("changed", _of("default", "share_changed"), compared=False),
    Column("expected right", _of("default", "expected"), 3, compared=False),
    Column("really right", _of("default", "right"), 3, compared=False),
    Column("wrong, estimated", lambda row, score: row["noise"], 3, compared=False),
    Column("best threshold*", _score("best_accuracy"), of_score=True),
)
Line = tuple[str, str, list[Row]]  # method, score, rows


def groups(rows: Sequence[Row]) -> list[list[Row]]:
    """The newest row of every run, parted by data, bank, size and threads; a failure counts until it is made good."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in newest_runs(rows, key):
        about = (row["data"], row["bank"], -row["num_samples"], row["dim"], row["dtype"], row["threads"])
        found.setdefault(about, []).append(row)
    return [found[about] for about in sorted(found)]


def settings_of(group: Sequence[Row]) -> list[list[Row]]:
    """The rows of each setting: clean labels first, noise by kind and rate, columns of a file by how right they are."""
    found: dict[str, list[Row]] = {}
    for row in group:
        found.setdefault(row["setting"], []).append(row)
    return sorted(found.values(), key=_order)


def _order(rows: Sequence[Row]) -> tuple[Any, ...]:
    kind, _, rate = rows[0]["setting"].partition(":")
    if kind in NOISES:
        return (1, list(NOISES).index(kind), float(rate))
    return (0, 1 - rows[0]["given_accuracy"], 0.0)


def setting_name(row: Row) -> str:
    """``symmetric:0.4`` in words."""
    kind, _, rate = row["setting"].partition(":")
    if kind in NOISES:
        return f"{NOISES[kind]}, {float(rate):.0%}"
    return "clean labels" if row["setting"] == "none" else row["setting"]


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """Of one setting: methods and their scores that have rows, in the order of `METHODS`."""
    found = []
    for method in METHODS:
        done = [row for row in rows if row["method"] == method and row["outcome"] == OK]
        for score in done[0]["scores"] if done else ():
            found.append((method, score, done))
    return found


def values(line: Line, column: Column) -> list[float]:
    """A column's numbers, one a seed."""
    _, score, rows = line
    found = [column.value(row, score) for row in rows]
    return [value for value in found if value is not None]


def mean(line: Line, column: Column) -> float | None:
    """Their mean to the digits that are shown, so that what reads the same is the same."""
    found = values(line, column)
    return round(statistics.mean(found), column.digits) if found else None


def best(lines: Sequence[Line], column: Column) -> float | None:
    """The highest mean of a column; None where there is nothing to compare."""
    means = [value for line in lines if (value := mean(line, column)) is not None]
    return max(means) if len(means) > 1 else None
