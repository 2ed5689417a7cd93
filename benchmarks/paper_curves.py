"""Pictures of the methods table: test accuracy and label accuracy over the epochs, one picture a noise."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plots
from paper_report import NAMES, noise_name, noises_of, settings_groups
from paper_variants import NOISY, TABLES, Row
from rows import OK

COLORS = {
    "ce": "#000000",
    "forward": "#0072B2",
    "joint": "#009E73",
    "mlnt": "#CC79A7",
    "smp": "#D55E00",
    "cleannet-hard": "#56B4E9",
    "cleannet-soft": "#E69F00",
}


def pictures(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """File names and the rows that they show: one for each noise and group of settings of the methods table."""
    found: dict[str, list[Row]] = {}
    for group in settings_groups("methods", rows):
        for noise in noises_of(group):
            shown = [row for row in group if row["noise"] == noise and row["outcome"] == OK]
            if shown:
                found[_file(shown[0], found)] = shown
    return found


def picture_of(rows: Sequence[Row], all_rows: Sequence[Row]) -> str | None:
    """The file among `pictures` that shows the finished ones of these rows."""
    done = [row for row in rows if row["outcome"] == OK]
    return next((file for file, shown in pictures(all_rows).items() if shown == done), None)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Mean over the seeds as a line, their range as a band."""
    figure, (test_axes, label_axes) = plots.figure_of(2)
    for variant in TABLES["methods"].variants:
        mine = [row for row in rows if variant.has(row)]
        if not mine:
            continue
        label = NAMES[variant.method] + ("" if variant.supervision == NOISY else " (verified labels)")
        style = {"color": COLORS[variant.method], "linestyle": "-" if variant.supervision == NOISY else "--"}
        _curve(test_axes, [row["test_accuracy_by_epoch"] for row in mine], label=label, **style)
        if any(row["label_accuracy_last"] is not None for row in mine):
            _curve(label_axes, [row["label_accuracy_by_epoch"] for row in mine], label=label, **style)
    given = [row["label_accuracy_given"] for row in rows if row["label_accuracy_given"] is not None]
    if given:
        level = statistics.mean(given)
        label_axes.axhline(level, color="#777777", linestyle=":")
        place = {"xy": (1, level), "xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
        label_axes.annotate("as given", **place, color="#777777", fontsize=9)
    first = rows[0]
    for axes, title in ((test_axes, "Test accuracy"), (label_axes, "Share of training labels that are right")):
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(True, color="#DDDDDD", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    title = f"{first['data']}, {first['num_images']:,} training images, {noise_name(first['noise'])}"
    plots.finish(figure, test_axes, title, rows, path)


def _curve(axes: Any, curves: Sequence[Sequence[float]], **style: Any) -> None:
    epochs = range(len(curves[0]))
    at_epoch = list(zip(*curves, strict=True))
    axes.plot(
        epochs, [statistics.mean(values) for values in at_epoch], linewidth=1.8, marker="o", markersize=3, **style
    )
    low, high = [min(values) for values in at_epoch], [max(values) for values in at_epoch]
    axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _file(row: Row, taken: dict[str, list[Row]]) -> str:
    parts = [row["data"], *([str(row["num_images"])] if row["settings"]["images"] else []), row["noise"]]
    stem = "curves_" + "_".join(parts).replace(":", "-")
    number = sum(name.startswith(stem) for name in taken)  # the same data and noise with other settings
    return f"{stem}{f'_{number + 1}' if number else ''}.png"
