"""The README's table of training runs, from rows of paper_tables.jsonl, or of fashion_mnist.jsonl until there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paper_report import command_of, mean_and_spread
from paper_runs import row_key
from paper_variants import NOISY, TABLES
from proto_trainer.config import RECIPES
from rows import OK

Row = dict[str, Any]
NAMES = {"ce": "cross-entropy", "smp": "self-correction"}
NOISES = {"symmetric": "symmetric", "pairflip": "pair-flip"}
WANTED = ("symmetric:0.4", "pairflip:0.4")


def training_summary(rows: Sequence[Row]) -> str:
    """One line for each noise and method: mean and spread over the seeds, whoever wins."""
    rows = _shown(rows)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["noise"], row["method"]), []).append(row)
    if not groups:
        return ""
    seeds = sorted({row["seed"] for row in rows})
    epochs = sorted({row["epochs"] for row in rows})
    starts = sorted({row["start_epoch"] for row in rows})
    lines = [
        f"Mean ± standard deviation over seeds {_listed(seeds)}; {_listed(epochs)} epochs, correction from epoch "
        f'{_listed(starts)} on (counted from 0). "Labels": share of the training labels that are right, as given '
        "and as corrected in the first and the last phase.",
        "",
        "| noise | method | test accuracy, last epoch | best epoch | labels given | first phase | last phase |",
        "|---|---|---|---|---|---|---|",
    ]
    for (noise, method), group in sorted(groups.items(), key=lambda item: (WANTED.index(item[0][0]), item[0])):
        kind, rate = noise.split(":")
        cells = [f"{NOISES[kind]} {float(rate):.0%}", NAMES[method]]
        cells += [_mean(group, f"test_accuracy{part}") for part in ("", "_best")]
        cells += [_mean(group, f"label_accuracy_{part}") for part in ("given", "first", "last")]
        lines.append("| " + " | ".join(cells) + " |")
    newer = [row for row in rows if "settings" in row]
    commands = sorted({row["command"] for row in rows if "settings" not in row})
    commands += [f"{command_of('methods', newer)} --methods {' '.join(NAMES)}"] if newer else []
    return "\n".join([*lines, "", "Regenerate with " + " and ".join(f"`{command}`" for command in commands) + "."])


def _shown(rows: Sequence[Row]) -> list[Row]:
    """For each noise the newest runs of paper_tables.jsonl, once they have every seed of the older series."""
    older = [row for row in rows if "settings" not in row]
    newer = list({row_key(row): row for row in rows if "settings" in row and _is_wanted(row)}.values())
    shown = []
    for noise in WANTED:
        seeds = {seed for _, seed in _runs(older, noise) or _runs(newer, noise)}
        whole = _runs(newer, noise) >= {(method, seed) for method in NAMES for seed in seeds}
        shown += [row for row in (newer if whole else older) if row["noise"] == noise]
    return shown


def _is_wanted(row: Row) -> bool:
    """Cross-entropy or self-correction, as the recipe has it, on all of Fashion-MNIST."""
    settings = row["settings"]
    if row["data"] != "fashion-mnist" or settings["images"] is not None or row["outcome"] != OK:
        return False
    variants = [v for v in TABLES["methods"].variants if v.method in NAMES and v.supervision == NOISY]
    return settings["epochs"] == RECIPES["fashion-mnist"]["epochs"] and any(v.has(row) for v in variants)


def _runs(rows: Sequence[Row], noise: str) -> set[tuple[str, int]]:
    return {(row["method"], row["seed"]) for row in rows if row["noise"] == noise}


def _mean(group: Sequence[Row], name: str) -> str:
    values = [row[name] for row in group if row[name] is not None]
    return mean_and_spread(values) if values else ""


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))
