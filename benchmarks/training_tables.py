"""The README's table of training runs: self-correction beside cross-entropy, on all of Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paper_report import command_of, listed, mean_and_spread
from paper_runs import row_key
from paper_variants import TABLES, Variant
from proto_trainer.config import RECIPES
from rows import OK, newest_runs

Row = dict[str, Any]
DATA = "fashion-mnist"
NOISES = {"symmetric:0.4": "symmetric 40%", "pairflip:0.4": "pair-flip 40%"}
# What the table calls a line: the table of paper_tables.py that it is from, and its name there.
LINES = {
    "cross-entropy": ("methods", "ce"),
    "self-correction": ("methods", "smp"),
    "self-correction, density contrast": ("selectors", "density contrast"),
}


def training_summary(rows: Sequence[Row]) -> str:
    """One line for each noise and each way to train: mean and spread over the seeds, whoever wins."""
    whole = [row for row in newest_runs(rows, row_key) if _is_whole(row)]
    shown = [
        (noise, line, found)
        for noise in NOISES
        for line, (table, name) in LINES.items()
        if (found := [row for row in whole if row["noise"] == noise and _variant(table, name).has(row)])
    ]
    if not shown:
        return ""
    used = [row for _, _, found in shown for row in found]
    seeds, epochs, starts = ({row[name] for row in used} for name in ("seed", "epochs", "start_epoch"))
    lines = [
        f"Mean ± standard deviation over seeds {listed(seeds)}; {listed(epochs)} epochs, correction from epoch "
        f'{listed(starts)} on (counted from 0). "Labels": share of the training labels that are right, as given '
        "and as corrected in the first and the last phase.",
        "",
        "| noise | method | test accuracy, last epoch | best epoch | labels given | first phase | last phase |",
        "|---|---|---|---|---|---|---|",
    ]
    for noise, line, found in shown:
        name = line if len(found) == len(seeds) else f"{line} ({len(found)} of {len(seeds)} seeds)"
        cells = [NOISES[noise], name, *(_mean(found, f"test_accuracy{part}") for part in ("", "_best"))]
        cells += [_mean(found, f"label_accuracy_{part}") for part in ("given", "first", "last")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Regenerate with {' and '.join(_commands(shown))}."])


def _commands(shown: Sequence[tuple[str, str, list[Row]]]) -> list[str]:
    """One for each table of paper_tables.py that lines are from."""
    commands = []
    for table in dict.fromkeys(table for table, _ in LINES.values()):
        names = [name for of, name in LINES.values() if of == table]
        found = [row for _, line, rows in shown if LINES[line][0] == table for row in rows]
        if found:
            quoted = " ".join(f'"{name}"' if " " in name else name for name in names)
            commands.append(f"`{command_of(table, found)} --methods {quoted}`")
    return commands


def _variant(table: str, name: str) -> Variant:
    return next(variant for variant in TABLES[table].variants if variant.line == name)


def _is_whole(row: Row) -> bool:
    """A finished run on all images, as long as the recipe has it."""
    settings = row["settings"]
    as_is = settings["images"] is None and settings["epochs"] == RECIPES[DATA]["epochs"]
    return row["data"] == DATA and row["outcome"] == OK and as_is


def _mean(found: Sequence[Row], name: str) -> str:
    values = [row[name] for row in found if row[name] is not None]
    return mean_and_spread(values) if values else ""
