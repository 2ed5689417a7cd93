"""The README's tables of GPU rows; there are none as long as there are no such rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rows import OK, on_gpu
from rows import sizes as sizes_of
from tables import RULE, Row, caption, line, megabytes, newest, outcome, pick, seconds

Find = Callable[[Sequence[Row]], "Row | None"]
_HEADS = ("size", "variant", "task", "median", "p10 to p90", "rate", "memory growth", "note")


@dataclass(frozen=True)
class Summary:
    """A table of one benchmark: what it shows, of which cases, its columns, and quotients of two of their rows."""

    bench: str
    about: str
    shown: Callable[[dict[str, Any]], bool]
    columns: Sequence[tuple[str, Find]]
    quotients: Sequence[tuple[str, Find, Find]]  # how many times as fast as the first is the second


def of(variant: str, task: str) -> Find:
    """Finds the row of a variant in a case."""
    return lambda rows: pick(rows, variant, task)


def fastest(task: str, *, role: str) -> Find:
    """Finds the fastest row of a role in a case."""

    def find(rows: Sequence[Row]) -> Row | None:
        done = [r for r in rows if r["task"] == task and r["role"] == role and r["outcome"] == OK]
        return min(done, key=lambda row: row["median_s"], default=None)

    return find


_PRODUCT, _DENSITY, _SELECT, _WHOLE = "S = X X^T", "density_peaks", "select_prototypes", "select and correct"
_ALL, _CORRECT, _PINNED = "S = X X^T, all classes", "correct_labels", "correct_labels, pinned bank"
_product, _products = of("torch.mm", _PRODUCT), fastest(_ALL, role="roofline")
_copy, _to_device = of("torch copy", "copy"), of("torch copy", "copy to the device")

SUMMARIES = (
    Summary(
        "bench_density",
        "Cutoff and density of one class of m rows, D dimensions. The first column only multiplies (cuBLAS); rates are "
        "those of the whole product for all columns.",
        lambda case: case["dim"] == 2048 or case["m"] >= 10**6,  # the chart shows the other dimensions
        [
            ("`torch.mm` alone", _product),
            *((f"`{name}`", of(name, _DENSITY)) for name in ("cuda", "cupy", "torch")),
            *((name, of(name, _DENSITY)) for name in ("torch dense", "torch chunked", "torch.compile", "cupy dense")),
        ],
        [("product / cuda", of("cuda", _DENSITY), _product)],
    ),
    Summary(
        "bench_engine",
        "All prototypes of C classes of m rows, D dimensions, from call to picks, and with the corrected labels of all "
        "rows; the bank lies on the device. The first column only multiplies.",
        lambda case: case["dim"] == 2048 or case["m"] >= 10**6,
        [
            ("product alone", _products),
            *((f"`{name}`", of(name, _SELECT)) for name in ("cuda", "cupy", "torch")),
            ("fastest plain torch", fastest(_SELECT, role="baseline")),
            ("`cuda`, labels as well", of("cuda", _WHOLE)),
        ],
        [
            ("product / cuda", of("cuda", _SELECT), _products),
            ("plain torch / cuda", of("cuda", _SELECT), fastest(_SELECT, role="baseline")),
        ],
    ),
    Summary(
        "bench_score",
        "Corrected labels of N rows of D dimensions against C classes, from a bank on the device and from one in "
        "pinned host memory. Rates of ours count each row once, those of the copy what it reads and writes.",
        lambda case: case["num_classes"] == 14,
        [
            ("copy", _copy),
            *((f"`{name}`", of(name, _CORRECT)) for name in ("cuda", "cupy", "faiss", "torch")),
            *((f"`cuda`, {name}", of(f"cuda {name}", _CORRECT)) for name in ("blocks", "clusters")),
            ("`cuda`, scores only", of("cuda", "score_samples")),
            *((name, of(name, _CORRECT)) for name in ("torch chunked", "cupy chunked", "faiss index")),
            ("copy to the device", _to_device),
            ("`cuda`, pinned bank", of("cuda", _PINNED)),
        ],
        [],
    ),
)
# Rates over the rate of a copy, by benchmark.
SHARES: dict[str, Sequence[tuple[str, Find, Find]]] = {
    "bench_score": (
        ("cuda / copy", of("cuda", _CORRECT), _copy),
        ("scores only: cuda / copy", of("cuda", "score_samples"), _copy),
        ("pinned: cuda / copy", of("cuda", _PINNED), _to_device),
    )
}


def gpu_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that were measured on a GPU."""
    return [row for row in rows if on_gpu(row)]


def gpu_status(rows: Sequence[Row]) -> str:
    """One sentence on where the GPU's side of the benchmarks has run."""
    devices = sorted({row["device"] for row in gpu_rows(rows)})
    if devices:
        return f"Rows of GPUs: {', '.join(devices)}."
    return (
        "**No benchmark has run on a GPU yet.** The tests run the GPU's side of each on tensors in host memory, and "
        "its clocks and memory counters on stand-ins."
    )


def gpu_summary(rows: Sequence[Row]) -> str:
    """The README's section: a table for each benchmark and device, and the charts."""
    parts = []
    for summary in SUMMARIES:
        there = [row for row in gpu_rows(rows) if row["bench"] == summary.bench and summary.shown(row["case"])]
        if there:
            parts += [summary.about, *(_table(summary, device, cases) for device, cases in newest(there).items())]
            if summary.bench == "bench_density":
                parts.append("![Rate over that of the product, by dimension](docs/images/gpu_roofline.png)")
                parts.append("![Time over the size of the class](docs/images/gpu_time.png)")
    return "\n\n".join(parts)


def gpu_full_table(rows: Sequence[Row]) -> str:
    """Every row of a GPU that counts, with its spread, its rate and its memory."""
    parts = []
    for device, cases in newest(gpu_rows(rows)).items():
        lines = [gpu_caption(device, cases), "", line(*_HEADS), RULE * len(_HEADS) + "|"]
        parts.append("\n".join([*lines, *(_full_line(row) for case in cases for row in case)]))
    return "\n\n".join(parts)


def gpu_caption(device: str, cases: Sequence[Sequence[Row]]) -> str:
    """`tables.caption`, with the driver and the CUDA version."""
    row = max((case[0] for case in cases), key=lambda row: row["date"])
    return caption(f"{device}, driver {row['driver']}, CUDA {row['cuda']}", cases)


def _table(summary: Summary, device: str, cases: Sequence[Sequence[Row]]) -> str:
    columns = [(title, find) for title, find in summary.columns if any(find(case) for case in cases)]
    numbers = [(title, _times_as_fast, *pair) for title, *pair in summary.quotients]
    numbers += [(title, _share, *pair) for title, *pair in SHARES.get(summary.bench, ())]
    heads = ["size", *(title for title, _ in columns), *(title for title, *_ in numbers)]
    lines = [gpu_caption(device, cases), "", line(*heads), RULE * len(heads) + "|"]
    for case in cases:
        cells = [_cell(find(case)) for _, find in columns]
        for _, quotient, first, second in numbers:
            a, b = first(case), second(case)
            both = a is not None and b is not None and a["outcome"] == b["outcome"] == OK
            cells.append(f"{quotient(a, b):.2f}" if both else "")
        lines.append(line(sizes_of(case[0]["case"]), *cells))
    return "\n".join(lines)


def _times_as_fast(row: Row, than: Row) -> float:
    return float(than["median_s"] / row["median_s"])


def _share(row: Row, of_row: Row) -> float:
    return float(row["gb_per_s"] / of_row["gb_per_s"])


def rate(row: Row) -> str:
    """What a GPU is measured in: TFLOP/s, GB/s."""
    found = [(row["gflop_per_s"], 1e3, "TFLOP/s"), (row["gb_per_s"], 1.0, "GB/s")]
    return ", ".join(f"{three_digits(value / unit)} {name}" for value, unit, name in found if value is not None)


def three_digits(value: float) -> str:
    """Three digits or more, without an exponent for what is large."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if row["outcome"] != OK:
        return outcome(row)
    told = row["gb_per_s"] if row["bench"] == "bench_score" else None
    shown = f"{three_digits(told)} GB/s" if told is not None else rate(row)
    return f"{seconds(row['median_s'])}, {shown}, {megabytes(row['memory_growth_bytes'])}"


def _full_line(row: Row) -> str:
    head = [sizes_of(row["case"]), row["variant"], row["task"]]
    if row["outcome"] != OK:
        return line(*head, outcome(row, needs="needs "), "", "", "", row["reason"] or "")
    spread = f"{seconds(row['p10_s'])} to {seconds(row['p90_s'])}"
    note = "to the result on the host" if row["clock"] == "wall" else ""
    return line(*head, seconds(row["median_s"]), spread, rate(row), megabytes(row["memory_growth_bytes"]), note)
