"""The README's table of training runs, from rows of fashion_mnist.jsonl."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
NAMES = {"ce": "cross-entropy", "smp": "self-correction"}
NOISES = {"symmetric": "symmetric", "pairflip": "pair-flip"}


def training_summary(rows: Sequence[Row]) -> str:
    """One line for each noise and method: mean and spread over the seeds, whoever wins."""
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
    for (noise, method), group in sorted(groups.items(), key=lambda item: (item[0][0] != "symmetric:0.4", item[0])):
        kind, rate = noise.split(":")
        cells = [f"{NOISES[kind]} {float(rate):.0%}", NAMES[method]]
        cells += [_mean(group, f"test_accuracy{part}") for part in ("", "_best")]
        cells += [_mean(group, f"label_accuracy_{part}") for part in ("given", "first", "last")]
        lines.append("| " + " | ".join(cells) + " |")
    commands = sorted({row["command"] for row in rows})
    return "\n".join([*lines, "", "Regenerate with " + " and ".join(f"`{command}`" for command in commands) + "."])


def _mean(group: Sequence[Row], name: str) -> str:
    values = [row[name] for row in group if row[name] is not None]
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))
