"""Rows of results: lines of JSON, appended whole, read back, and told in one line."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
OK = "ok"
OUT_OF_MEMORY = "out of memory"
UNAVAILABLE = "unavailable"  # cannot run here, such as a compiler that does not know this GPU
WRONG = "wrong"  # ran, and its result is not right
FAILED = "failed"  # stopped with an error


def append_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Add whole lines to a JSONL file: one write at its end, then fsync; other processes may do so meanwhile.

    A line that an interrupted writer left unfinished is closed first; `read_rows` then names it.
    """
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # nobody writes between the look at the end and the write
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            lines = b"\n" + lines
        written = os.write(descriptor, lines)
        if written != len(lines):
            raise OSError(f"{path.name}: wrote {written} of {len(lines)} bytes")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file; none when there is no file.

    Raises
    ------
    ValueError
        A line is no JSON object; the message says which.
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path.name}: line {number} is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path.name}: line {number}: wanted an object, got {type(row).__name__}")
        rows.append(row)
    return rows


def on_gpu(row: dict[str, Any]) -> bool:
    """Whether a row was measured on a GPU."""
    return row.get("on") == "cuda"


def sizes(case: dict[str, Any]) -> str:
    """A case in words, such as "16,384 x 512" or "71,000 x 2,048 float16"."""
    numbers = [f"{value:,}" for value in case.values() if not isinstance(value, str)]
    return " ".join([" x ".join(numbers), *(value for value in case.values() if isinstance(value, str))])


def describe(row: dict[str, Any]) -> str:
    """A row in one line, for the terminal."""
    what = f"{sizes(row['case'])}  {row['variant']:<14} {row['task']:<18} "
    what += "" if on_gpu(row) else f"{row['threads']} thr  "
    if row["outcome"] != OK:
        return what + row["outcome"] + (f": {row['reason']}" if row.get("reason") else "")
    growth = row["memory_growth_bytes"]
    memory = "" if growth is None else f"  +{growth / 1e6:,.0f} MB"
    rates = [(row["gflop_per_s"], 1e3, "TFLOP/s"), (row["gb_per_s"], 1, "GB/s")] if on_gpu(row) else []
    rate = "".join(f"  {value / unit:.4g} {name}" for value, unit, name in rates if value is not None)
    return what + f"{row['median_s']:.4g} s ({row['p10_s']:.4g} to {row['p90_s']:.4g}){rate}{memory}"


def newest_runs(rows: Iterable[dict[str, Any]], key: Callable[[dict[str, Any]], str]) -> list[dict[str, Any]]:
    """The row with the latest date of every run; rows of equal key are of the same run."""
    return list({key(row): row for row in sorted(rows, key=lambda row: row["date"])}.values())
