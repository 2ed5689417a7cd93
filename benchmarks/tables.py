"""The tables of the READMEs, from rows of the result files; nobody types a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rows import OK, OUT_OF_MEMORY, on_gpu
from rows import sizes as sizes_of

Row = dict[str, Any]
SELECT, CORRECT, COPY = "select_prototypes", "correct_labels", "copy"
PRODUCTS = ("S = X X^T", "chunk @ folded.T")


def newest(rows: Sequence[Row]) -> dict[str, list[list[Row]]]:
    """The rows that count: for each device its cases in order of size, each from the newest run that has it.

    A case's rows all come from one run, since only variants of one run are comparable.
    """
    latest: dict[tuple[Any, ...], str] = {}
    for row in rows:
        key = (row["device"], *row["case"].items())
        latest[key] = max(row["date"], latest.get(key, ""))
    found: dict[str, list[list[Row]]] = {}
    for key in sorted(latest, key=lambda key: (key[0], [(isinstance(v, str), v) for _, v in key[1:]])):
        device, *case = key
        same = [r for r in rows if r["device"] == device and r["case"] == dict(case) and r["date"] == latest[key]]
        found.setdefault(device, []).append(same)
    return found


def pick(rows: Sequence[Row], variant: str, task: str) -> Row | None:
    """The row of a variant with the most threads, or None."""
    fitting = [row for row in rows if row["variant"] == variant and row["task"] == task]
    return max(fitting, key=lambda row: row["threads"], default=None)


def product_of(rows: Sequence[Row]) -> Row | None:
    """The roofline: the fastest way to the bare product, other than NumPy's symmetric one."""
    done = [row for row in rows if row["task"] in PRODUCTS and row["outcome"] == OK]
    done = [row for row in done if row["task"] != PRODUCTS[0] or row["variant"] == "torch.mm"]
    most = max((row["threads"] for row in done), default=0)
    return min((r for r in done if r["threads"] == most), key=lambda row: row["median_s"], default=None)


def ratio(above: Row | None, below: Row | None) -> float | None:
    """Of two medians; None where one of them was not measured."""
    if above is None or below is None or above["outcome"] != OK or below["outcome"] != OK:
        return None
    return above["median_s"] / below["median_s"]


def host_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that were not measured on a GPU."""
    return [row for row in rows if not on_gpu(row)]


def density_summary(rows: Sequence[Row]) -> str:
    """One line a case: the product, the engine's backends, plain torch."""
    columns = [("torch.mm", PRODUCTS[0], "`torch.mm(X, X.T, out=S)` alone")]
    columns += [(name, SELECT, f"`{name}`") for name in ("cpu", "numba", "torch")]
    columns += [(name, SELECT, name) for name in ("torch dense", "torch chunked")]
    ratios = [
        ("cpu / product", ("cpu", SELECT), ("torch.mm", PRODUCTS[0])),
        ("torch dense / cpu", ("torch dense", SELECT), ("cpu", SELECT)),
    ]
    about = (
        "Cutoff, density and 8 prototypes of one class of m rows, D dimensions, float32, as `select_prototypes` finds "
        "them: median time, and how far the memory grew. The first column only multiplies."
    )
    table = _summary(host_rows(rows), about, "m x D", columns, ratios, "memory_growth_bytes")
    return _with_plot(table, "Time and memory of a class over its size", "bench_density")


def score_summary(rows: Sequence[Row]) -> str:
    """One line a case: the product, the engine's backends, plain torch."""
    columns = [("product", "", "bare chunked product")]
    columns += [(name, CORRECT, f"`{name}`") for name in ("cpu", "faiss", "numba")]
    columns += [("torch chunked", CORRECT, "torch chunked")]
    ratios = [("cpu / product", ("cpu", CORRECT), ("product", ""))]
    about = (
        "Corrected labels of N rows of D float32 in a memory-mapped file against C classes, as `correct_labels` finds "
        "them: median time, and peak memory of the whole process, mapped pages included. The first column only "
        "multiplies."
    )
    table = _summary(host_rows(rows), about, "N x D x C", columns, ratios, "memory_peak_bytes")
    return _with_plot(table, "Rows a second over the number of classes", "bench_score")


def full_table(rows: Sequence[Row]) -> str:
    """Every row of a host that counts, with its spread, its rates and its memory."""
    parts = []
    for device, cases in newest(host_rows(rows)).items():
        lines = [caption(device, cases), "", line(*_HEADS), RULE * len(_HEADS) + "|"]
        for case in cases:
            lines += [_full_line(row) for row in case]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def seconds(value: float) -> str:
    """Three digits, in the unit that suits."""
    for unit, size in (("us", 1e-6), ("ms", 1e-3)):
        if float(f"{value / size:.3g}") < 1000:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} s"


def outcome(row: Row, needs: str = "") -> str:
    """Why there is no time."""
    if row["outcome"] == OUT_OF_MEMORY and row.get("needs_bytes"):
        return f"{OUT_OF_MEMORY} ({needs}{megabytes(row['needs_bytes'])})"
    return str(row["outcome"])


def megabytes(value: float | None) -> str:
    """Whole MB, or GB with one digit from 1 GB on."""
    if value is None:
        return "unknown"
    return f"{value / 1e9:,.1f} GB" if value >= 1e9 else f"{value / 1e6:,.0f} MB"


RULE = "|---"
_HEADS = ("size", "variant", "task", "threads", "median", "p10 to p90", "rate", "memory growth", "peak memory")


def _summary(
    rows: Sequence[Row],
    about: str,
    size: str,
    columns: list[tuple[str, str, str]],
    ratios: list[tuple[str, tuple[str, str], tuple[str, str]]],
    memory: str,
) -> str:
    parts = [about] if rows else []
    for device, cases in newest(rows).items():
        present = [c for c in columns if any(_find(case, *c[:2]) for case in cases)]
        heads = [size, *(title for _, _, title in present), *(title for title, _, _ in ratios)]
        lines = [caption(device, cases), "", line(*heads), RULE * len(heads) + "|"]
        for case in cases:
            cells = [_cell(_find(case, *c[:2]), memory) for c in present]
            for _, above, below in ratios:
                value = ratio(_find(case, *above), _find(case, *below))
                cells.append("" if value is None else f"{value:.2f}")
            lines.append(line(sizes_of(case[0]["case"]), *cells))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _with_plot(table: str, about: str, name: str) -> str:
    return f"{table}\n\n![{about}](docs/images/{name}.png)" if table else ""


def _find(case: Sequence[Row], variant: str, task: str) -> Row | None:
    return product_of(case) if variant == "product" else pick(case, variant, task)


def _cell(row: Row | None, memory: str) -> str:
    if row is None:
        return ""
    if row["outcome"] != OK:
        return outcome(row)
    return f"{seconds(row['median_s'])}, {megabytes(row[memory])}"


def _full_line(row: Row) -> str:
    head = [sizes_of(row["case"]), row["variant"], row["task"], row["threads"]]
    if row["outcome"] != OK:
        return line(*head, outcome(row, needs="needs "), "", "", "", "")
    rates = [(row["gflop_per_s"], "GFLOP/s"), (row["gb_per_s"], "GB/s")]
    if row["task"] == COPY:
        rates = rates[1:]
    rate = ", ".join(f"{value:.3g} {unit}" for value, unit in rates if value is not None)
    spread = f"{seconds(row['p10_s'])} to {seconds(row['p90_s'])}"
    growth, peak = megabytes(row["memory_growth_bytes"]), megabytes(row["memory_peak_bytes"])
    return line(*head, seconds(row["median_s"]), spread, rate, growth, peak)


def caption(device: str, cases: Sequence[Sequence[Row]]) -> str:
    """The machine, and for every run that took part its day, commit, versions and command."""
    runs: dict[str, Row] = {}
    for case in cases:
        runs.setdefault(case[0]["date"], case[0])
    told = []
    for date, row in sorted(runs.items()):
        versions = ", ".join(
            f"{name} {row['versions'][name]}" for name in ("torch", "numpy") if name in row["versions"]
        )
        commit = f"commit {row['commit']}" + (" with changes" if row["dirty"] else "")
        told.append(f"{date[:10]}, {commit}, {versions}, `{row['command']}`")
    repeats = sorted({row["repeats"] for case in cases for row in case if row["outcome"] == OK})
    times = " or ".join(map(str, repeats))
    return f"{device}; medians of {times} interleaved calls. Measured {'; '.join(told)}."


def line(*cells: Any) -> str:
    """A line of a table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
