"""What the project promises, and whether the newest rows bear it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gpu_tables import fastest, gpu_rows
from rows import OK
from tables import CORRECT, SELECT, Row, host_rows, newest, pick, product_of, ratio

_DENSITY, _PINNED = "density_peaks", "correct_labels, pinned bank"


def claims(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """A line about each promise that was measured; ``rows`` are those of each benchmark."""
    told = []
    for case in _cases(host_rows(rows.get("bench_density", ()))):
        told += _host_density(case)
    for case in _cases(host_rows(rows.get("bench_score", ()))):
        told += _host_score(case)
    for case in _cases(rows.get("bench_correction", ())):
        told += _correction(case)
    for case in _cases(gpu_rows(rows.get("bench_density", ()))):
        told += _gpu_density(case)
    for case in _cases(gpu_rows(rows.get("bench_engine", ()))):
        told += _gpu_engine(case)
    for case in _cases(gpu_rows(rows.get("bench_score", ()))):
        told += _gpu_score(case)
    return told


def _cases(rows: Sequence[Row]) -> Iterator[list[Row]]:
    for cases in newest(rows).values():
        yield from cases


def _host_density(case: list[Row]) -> list[str]:
    ours, dense, sizes = pick(case, "cpu", SELECT), pick(case, "torch dense", SELECT), case[0]["case"]
    told = []
    if sizes == {"m": 16384, "dim": 512}:
        told += _claim(case, "cpu / torch.mm(X, X.T, out=S)", ratio(ours, product_of(case)), at_most=0.8)
        told += _claim(case, "cpu / torch dense", ratio(ours, dense), at_most=0.25)
    if sizes == {"m": 60000, "dim": 256}:
        told += _claim(case, "memory growth of cpu, MB", _megabytes(ours, "memory_growth_bytes"), at_most=250)
    return told


def _host_score(case: list[Row]) -> list[str]:
    ours = pick(case, "cpu", CORRECT)
    if case[0]["case"] != {"num_samples": 1_000_000, "dim": 512, "num_classes": 100}:
        return []
    peak = _megabytes(ours, "memory_peak_bytes")
    told = _claim(case, "cpu / bare chunked product", ratio(ours, product_of(case)), at_most=1.3)
    return told + _claim(case, "peak memory of the process, MB", peak, at_most=1000)


def _correction(case: list[Row]) -> list[str]:
    share = ratio(pick(case, "LabelCorrector", "correction phase"), pick(case, "accuracy", "evaluation pass"))
    return _claim(case, "correction phase / evaluation pass", share, at_most=1.05)


def _gpu_density(case: list[Row]) -> list[str]:
    ours = pick(case, "cuda", _DENSITY)
    if case[0]["case"] != {"m": 71000, "dim": 2048, "dtype": "float16"}:
        return []
    faster = ratio(pick(case, "torch.mm", "S = X X^T"), ours)
    told = _claim(case, "density and cutoff: torch.mm(X, X.T, out=S) / cuda", faster, at_least=1.5)
    growth = _megabytes(ours, "memory_growth_bytes")
    return told + _claim(case, "density and cutoff: workspace of cuda, MB", growth, at_most=100)


def _gpu_engine(case: list[Row]) -> list[str]:
    ours, sizes = pick(case, "cuda", SELECT), dict(case[0]["case"])
    took = ours["median_s"] if ours and ours["outcome"] == OK else None
    if sizes.pop("dtype") != "float16":
        return []
    classes, m, dim = sizes.values()
    told = []
    if (classes, m, dim) == (14, 71000, 2048):
        told += _claim(case, "prototypes of 14 whole classes of 71,000 x 2,048, s", took, at_most=0.6)
    if (classes, m, dim) == (1, 10**6, 1024):
        told += _claim(case, "prototypes of one class of 1,000,000 x 1,024, s", took, at_most=6.0)
    if (classes, m, dim) == (14, 1280, 2048):
        took = None if took is None else took * 1e3
        told += _claim(case, "prototypes at the paper's size, ms", took, at_most=1.5)
        faster = ratio(fastest(SELECT, role="baseline")(case), ours)
        told += _claim(case, "at the paper's size: fastest plain torch / cuda", faster, at_least=8.0)
    return told


def _gpu_score(case: list[Row]) -> list[str]:
    wanted = {"num_samples": 1_000_000, "dim": 2048, "num_classes": 14, "dtype": "float16"}
    if case[0]["case"] != wanted:
        return []
    told = []
    for what, task, copy in (
        ("corrected labels, bank on the device: rate / rate of a copy", CORRECT, "copy"),
        ("scores alone, bank on the device: rate / rate of a copy", "score_samples", "copy"),
        ("corrected labels, pinned bank: rate / rate of the copy to the device", _PINNED, "copy to the device"),
    ):
        ours, roofline = pick(case, "cuda", task), pick(case, "torch copy", copy)
        done = ours and roofline and ours["outcome"] == roofline["outcome"] == OK
        share = ours["gb_per_s"] / roofline["gb_per_s"] if ours and roofline and done else None
        told += _claim(case, what, share, at_least=0.8)
    return told


def _megabytes(row: Row | None, field: str) -> float | None:
    return row[field] / 1e6 if row and row["outcome"] == OK and row[field] is not None else None


def _claim(
    case: list[Row], what: str, value: float | None, *, at_most: float | None = None, at_least: float | None = None
) -> list[str]:
    if value is None:
        return []
    holds = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
    limit = f"at most {at_most:g}" if at_most is not None else f"at least {at_least:g}"
    return [f"{'holds' if holds else 'DOES NOT HOLD'}: {what} {limit}, measured {value:.3g} ({case[0]['device']})"]
