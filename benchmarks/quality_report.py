"""Markdown of docs/quality.md from rows of bench_quality.jsonl: mean and spread over seeds, whoever wins."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quality_methods import METHODS, OURS
from quality_runs import Row, key
from rows import OK, newest_runs

NOISES = {"symmetric": "symmetric", "pairflip": "pair-flip", "instance": "instance-dependent"}
BANK_NAMES = {"filters": "fixed filters", "network": "features of a network trained on the given labels"}
PICTURE = "![Right labels before and after](images/quality.png)"
_ORDER = {option: n for n, option in enumerate(("name", "data", "features", "root", "labels"))}
APART = 0.05  # expected and really right changes are told when they are further apart


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


def quality_tables(rows: Sequence[Row]) -> str:
    """A table for each data set and bank, with what stands out below it."""
    parts = []
    for group in groups(rows):
        lines = [_head()]
        for found in settings_of(group):
            lines += _setting_lines(found)
        parts += [_caption(group), "\n".join(lines), *_remarks(group), *_failures(group)]
    return "\n\n".join([*parts, PICTURE] if parts else [])


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


def _remarks(group: Sequence[Row]) -> list[str]:
    """Where another is ahead, where expectation and truth part, where labels got worse, and where none changed."""
    ahead: dict[Column, list[str]] = {AUROC: [], LABELS: []}
    compared = dict.fromkeys(ahead, 0)
    apart, worse, kept = [], [], []
    for rows in settings_of(group):
        lines, name = lines_of(rows), setting_name(rows[0])
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
                told.append(f"{name} ({METHODS[winner[0]].title}: {highest:.4f}, ours {own:.4f})")
        for row in ours[2]:
            seed, found = f"{name}, seed {row['seed']}", row["default"]
            if found["expected"] is not None and abs(found["expected"] - found["right"]) > APART:
                apart.append(f"{seed} ({found['expected']:.3f} expected, {found['right']:.3f} right)")
            if row["note"]:
                kept.append(f"{seed} ({row['note']})")
            if found["accuracy"] < row["given_accuracy"]:
                worse.append(f"{seed} ({row['given_accuracy']:.4f} to {found['accuracy']:.4f})")
    if not any(compared.values()):
        return []
    auroc, labels = (_told(ahead[column], f"of {compared[column]} settings") for column in (AUROC, LABELS))
    return [
        f"Another method is ahead of ours in AUROC in {auroc} "
        f"Another method has more right labels by default in {labels}",
        f"Expected and really right changes differ by more than {100 * APART:.0f} points in {_told(apart)} "
        f"The default made labels worse in {_told(worse)} It left all labels alone, with a reason, in {_told(kept)}",
    ]


def _told(found: Sequence[str], of: str = "") -> str:
    if not found:
        return "none." if not of else f"none {of}."
    return (f"{len(found)} {of}: " if of else f"{len(found)} run{'s' * (len(found) > 1)}: ") + "; ".join(found) + "."


def _failures(group: Sequence[Row]) -> list[str]:
    found = {f"{METHODS[row['method']].title}: {row['reason']}": None for row in group if row["outcome"] != OK}
    return [f"Not finished: {'; '.join(found)}.".replace("|", "/")] if found else []


def _caption(group: Sequence[Row]) -> str:
    first = group[0]
    seeds = _listed({row["seed"] for row in group if row["seed"] is not None})
    days = _listed({row["date"][:10] for row in group})
    commits = _listed({row["commit"] for row in group if row["commit"]})
    commands = "; ".join(f"`{text}`" for text in sorted({_plain(row["command"]) for row in group}))
    return (
        f"**{_title(first)}**: {first['num_samples']:,} x {first['dim']:,} {first['dtype']}, {first['num_classes']} "
        f"classes. Mean ± standard deviation over seeds {seeds}; the best mean of a column is bold, whoever has it. "
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
