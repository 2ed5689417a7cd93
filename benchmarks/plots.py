"""The plots of the README, from the same rows as its tables."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tables import CORRECT, SELECT, Row, host_rows, newest, pick, product_of

from proto_engine import atomic_write

# Okabe and Ito's colors, which readers with any color vision tell apart; the engine's own is the strong one.
STYLES: dict[str, dict[str, Any]] = {
    "cpu": {"color": "#D55E00", "linewidth": 2.6, "marker": "o", "zorder": 5},
    "numba": {"color": "#E69F00", "marker": "s"},
    "torch": {"color": "#CC79A7", "marker": "^"},
    "faiss": {"color": "#009E73", "marker": "v"},
    "torch dense": {"color": "#0072B2", "marker": "D"},
    "torch chunked": {"color": "#56B4E9", "marker": "P"},
    "cuda": {"color": "#D55E00", "linewidth": 2.6, "marker": "o", "zorder": 5},
    "cuda simt": {"color": "#D55E00", "linestyle": ":", "marker": "<"},
    "cuda mma": {"color": "#D55E00", "linestyle": "--", "marker": ">"},
    "cuda wgmma": {"color": "#D55E00", "linestyle": "-.", "marker": "*"},
    "cuda wgmma-cluster": {"color": "#D55E00", "linestyle": "-", "marker": "P"},
    "cupy": {"color": "#E69F00", "marker": "s"},
    "numba-cuda": {"color": "#009E73", "marker": "v"},
    "torch.compile": {"color": "#0072B2", "linestyle": "--", "marker": "d"},
    "cupy dense": {"color": "#F0E442", "marker": "p"},
    "keops": {"color": "#999999", "marker": "h"},
    "product": {"color": "#000000", "linestyle": "--", "marker": "x"},
}
_KEY = "Rows"


def digest(rows: Sequence[Row]) -> str:
    """Stands in a picture's metadata for the rows that it shows, so that a stale one is noticed."""
    shown = newest(rows) if all("case" in row for row in rows) else list(rows)  # training runs have no case
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def shown_digest(path: Path) -> str | None:
    """The digest that a picture carries; None for no picture or a foreign one."""
    from PIL import Image

    if not path.exists():
        return None
    with Image.open(path) as image:
        return image.info.get(_KEY)


def plot_density(rows: Sequence[Row], path: Path) -> None:
    """Time and memory over m, at the dimension with the most sizes."""
    figure, (time_axes, memory_axes) = figure_of(2)
    rows = host_rows(rows)
    device, cases = largest(rows)
    dim = Counter(case[0]["case"]["dim"] for case in cases).most_common(1)[0][0]
    cases = [case for case in cases if case[0]["case"]["dim"] == dim]
    for name in ("product", "cpu", "numba", "torch", "torch dense", "torch chunked"):
        label = "torch.mm(X, X.T, out=S) alone" if name == "product" else _label(name)
        found = [product_of(case) if name == "product" else pick(case, name, SELECT) for case in cases]
        points = [row for row in found if row is not None and row["outcome"] == "ok"]
        m = [row["case"]["m"] for row in points]
        time_axes.plot(m, [row["median_s"] for row in points], label=label, **STYLES[name])
        known = [row for row in points if row["memory_growth_bytes"]]
        memory = [row["memory_growth_bytes"] / 1e6 for row in known]
        memory_axes.plot([row["case"]["m"] for row in known], memory, label=label, **STYLES[name])
    time_axes.set(title="Time", ylabel="seconds (median)")
    memory_axes.set(title="Peak memory beyond the features", ylabel="MB")
    for axes in (time_axes, memory_axes):
        axes.set(xlabel="m, rows of the class", xscale="log", yscale="log")
        ticks(axes, [case[0]["case"]["m"] for case in cases])
    finish(figure, time_axes, f"Cutoff, density and prototypes of one class, D = {dim}, float32 ({device})", rows, path)


def plot_score(rows: Sequence[Row], path: Path) -> None:
    """Rows a second over the number of classes, at the dimension with the most of those."""
    figure, (axes,) = figure_of(1)
    rows = host_rows(rows)
    device, cases = largest(rows)
    dim = Counter(case[0]["case"]["dim"] for case in cases).most_common(1)[0][0]
    cases = sorted(
        (case for case in cases if case[0]["case"]["dim"] == dim), key=lambda case: case[0]["case"]["num_classes"]
    )
    for name in ("product", "cpu", "faiss", "numba", "torch chunked"):
        label = "bare chunked product" if name == "product" else _label(name)
        found = [product_of(case) if name == "product" else pick(case, name, CORRECT) for case in cases]
        points = [row for row in found if row is not None and row["outcome"] == "ok"]
        speed = [row["case"]["num_samples"] / row["median_s"] / 1e6 for row in points]
        axes.plot([row["case"]["num_classes"] for row in points], speed, label=label, **STYLES[name])
    axes.set(xlabel="C, classes", ylabel="million rows a second (median)", xscale="log", yscale="log")
    ticks(axes, [case[0]["case"]["num_classes"] for case in cases])
    finish(figure, axes, f"Corrected labels of a file, D = {dim}, float32 ({device})", rows, path)


def _label(name: str) -> str:
    return f'backend="{name}"' if " " not in name else f"plain {name.replace(' ', ', ')}"


def largest(rows: Sequence[Row]) -> tuple[str, list[list[Row]]]:
    """The device with the most cases, and its cases."""
    found = newest(rows)
    device = max(found, key=lambda device: len(found[device]))
    return device, found[device]


def figure_of(panels: int) -> tuple[Any, Any]:
    """A figure and its axes, side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * panels + 0.4, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def ticks(axes: Any, values: Sequence[int]) -> None:
    """The sizes themselves along x, plain numbers along y."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xticks(values, [f"{value:,}" for value in values], minor=False)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(True, which="major", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def finish(figure: Any, axes: Any, title: str, rows: Sequence[Row], path: Path) -> None:
    """Title and legend, and the file, which carries the digest of the rows that it shows."""
    figure.suptitle(title, fontsize=11)
    handles, labels = axes.get_legend_handles_labels()
    with_points = [(h, label) for h, label in zip(handles, labels, strict=True) if len(h.get_xdata())]
    figure.legend(*zip(*with_points, strict=True), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=130, metadata={_KEY: digest(rows), "Software": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(data.getvalue())
