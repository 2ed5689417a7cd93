"""The picture of docs/quality.md: right labels before and after, for every setting and method."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plots import figure_of, finish
from quality_lines import LABELS, groups, lines_of, setting_name, settings_of, values
from quality_methods import METHODS, OURS
from quality_runs import Row, key

# Okabe and Ito's colors, as in the other pictures; ours is the strong one.
STYLES: dict[str, dict[str, Any]] = {
    OURS: {"color": "#D55E00", "marker": "o", "markersize": 9, "zorder": 5},
    "published": {"color": "#E69F00", "marker": "s"},
    "density-contrast": {"color": "#CC79A7", "marker": "^"},
    "cleanlab-logistic": {"color": "#0072B2", "marker": "D"},
    "cleanlab-neighbors": {"color": "#56B4E9", "marker": "P"},
    "neighbor-vote": {"color": "#009E73", "marker": "v"},
    "network": {"color": "#999999", "marker": "h"},
}


def shown(rows: Sequence[Row]) -> list[Row]:
    """The rows that the picture shows, in an order of their own."""
    return sorted((row for group in _whole(rows) for row in group), key=key)


def _whole(rows: Sequence[Row]) -> list[list[Row]]:
    """The groups with the most rows of features of their data set: parts of it have tables only."""
    found = groups(rows)
    most: dict[str, int] = {}
    for group in found:
        most[group[0]["data"]] = max(most.get(group[0]["data"], 0), group[0]["num_samples"])
    return [group for group in found if group[0]["num_samples"] == most[group[0]["data"]]]


def plot_quality(rows: Sequence[Row], path: Path) -> None:
    """A panel for each data set: the labels as given, and after each method's default changes."""
    found = _whole(rows)
    figure, panels = figure_of(len(found))
    figure.set_size_inches(max(9.5, 5.6 * len(found)), 5.4)  # the legend has three columns
    for axes, group in zip(panels, found, strict=True):
        settings = settings_of(group)
        ticks = range(len(settings))
        given = [statistics.mean(row["given_accuracy"] for row in setting) for setting in settings]
        axes.plot(ticks, given, color="#000000", marker="_", markersize=18, linestyle="none", label="as given")
        for method, style in STYLES.items():
            points = []
            for position, setting in enumerate(settings):
                line = next((line for line in lines_of(setting) if line[0] == method), None)
                if line:
                    points.append((position, statistics.mean(values(line, LABELS))))
            axes.plot(*zip(*points, strict=True) if points else ((), ()), linestyle="none", **_labeled(method, style))
        names = [setting_name(setting[0]) for setting in settings]
        axes.set_xticks(list(ticks), names, rotation=40, ha="right", fontsize=8)
        title = f"{group[0]['data']} ({group[0]['bank']}), {group[0]['num_samples']:,} rows"
        axes.set(title=title, ylabel="share of right labels")
        axes.grid(True, axis="y", color="#DDDDDD", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    fullest = max(panels, key=lambda axes: sum(len(line.get_xdata()) > 0 for line in axes.get_lines()))
    finish(figure, fullest, "Right labels before and after each method's default changes", rows, path)


def _labeled(method: str, style: dict[str, Any]) -> dict[str, Any]:
    return {"markersize": 6, **style, "label": METHODS[method].title}
