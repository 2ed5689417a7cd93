"""The charts of GPU rows: rates over that of the bare product, and times over the size of a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gpu_tables import gpu_rows
from plots import STYLES, figure_of, finish, largest, ticks
from rows import OK
from tables import Row, pick

_TASK, _PRODUCT = "density_peaks", "S = X X^T"
_NAMES = ("cuda", "cuda simt", "cuda mma", "cuda wgmma", "cuda wgmma-cluster", "cupy", "numba-cuda", "torch")
_PLAIN = ("torch dense", "torch chunked", "torch.compile", "cupy dense", "keops")


def plot_roofline(rows: Sequence[Row], path: Path) -> None:
    """Rate over that of the product in the same run, by dimension, at the size that has the most of those."""
    device, cases, dtype = _of_one_dtype(rows)
    m = _most_common(cases, "m")
    cases = sorted((c for c in cases if c[0]["case"]["m"] == m), key=lambda case: case[0]["case"]["dim"])
    figure, (axes,) = figure_of(1)
    for name in (*_NAMES, *_PLAIN):
        points = [(c[0]["case"]["dim"], _over_product(c, name)) for c in cases]
        known = [(dim, value) for dim, value in points if value is not None]
        axes.plot([dim for dim, _ in known], [value for _, value in known], label=name, **STYLES[name])
    dims = [case[0]["case"]["dim"] for case in cases]
    axes.plot(dims, [1.0] * len(dims), label="torch.mm(X, X.T, out=S) alone", **STYLES["product"])
    axes.set(xlabel="D, dimensions", ylabel="rate / rate of the product", xscale="log", yscale="log")
    ticks(axes, dims)
    finish(figure, axes, f"Cutoff and density of one class, m = {m:,}, {dtype} ({device})", gpu_rows(rows), path)


def plot_time(rows: Sequence[Row], path: Path) -> None:
    """Time and memory over m, at the dimension with the most sizes."""
    device, cases, dtype = _of_one_dtype(rows)
    dim = _most_common(cases, "dim")
    cases = [case for case in cases if case[0]["case"]["dim"] == dim]
    figure, (time_axes, memory_axes) = figure_of(2)
    for name in ("product", *_NAMES, *_PLAIN):
        found = [pick(c, "torch.mm", _PRODUCT) if name == "product" else pick(c, name, _TASK) for c in cases]
        points = [row for row in found if row is not None and row["outcome"] == OK]
        label = "torch.mm(X, X.T, out=S) alone" if name == "product" else name
        time_axes.plot(
            [r["case"]["m"] for r in points], [r["median_s"] * 1e3 for r in points], label=label, **STYLES[name]
        )
        known = [row for row in points if row["memory_growth_bytes"]]
        memory = [row["memory_growth_bytes"] / 1e6 for row in known]
        memory_axes.plot([row["case"]["m"] for row in known], memory, label=label, **STYLES[name])
    time_axes.set(title="Time", ylabel="milliseconds (median)")
    memory_axes.set(title="Peak memory beyond the features", ylabel="MB")
    for axes in (time_axes, memory_axes):
        axes.set(xlabel="m, rows of the class", xscale="log", yscale="log")
        ticks(axes, [case[0]["case"]["m"] for case in cases])
    title = f"Cutoff and density of one class, D = {dim:,}, {dtype} ({device})"
    finish(figure, time_axes, title, gpu_rows(rows), path)


def _of_one_dtype(rows: Sequence[Row]) -> tuple[str, list[list[Row]], str]:
    """The device with the most cases, its cases of the dtype that has the most, and that dtype."""
    device, cases = largest(gpu_rows(rows))
    dtype = Counter(case[0]["case"]["dtype"] for case in cases).most_common(1)[0][0]
    return device, [case for case in cases if case[0]["case"]["dtype"] == dtype], dtype


def _most_common(cases: Sequence[Sequence[Row]], size: str) -> int:
    """The size that most cases have; the largest of equals."""
    counts = Counter(case[0]["case"][size] for case in cases)
    return int(max(counts, key=lambda value: (counts[value], value)))


def _over_product(case: Sequence[Row], name: str) -> float | None:
    product, row = pick(case, "torch.mm", _PRODUCT), pick(case, name, _TASK)
    if product is None or row is None or product["outcome"] != OK or row["outcome"] != OK:
        return None
    return float(row["gflop_per_s"] / product["gflop_per_s"])
