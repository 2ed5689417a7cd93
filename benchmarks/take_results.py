"""Take over what `gpu_check` has left in a folder on another machine: its rows, and its record.

    python benchmarks/take_results.py DIR

Rows are added to benchmarks/results, those that are there already are not added again. The record is taken only where
it is about the sources that are here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rows import append_rows, read_rows
from verified import PLACES, ROOT, sources_hash, write_whole


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Take rows and record; 1 where the record is refused, 2 for bad arguments."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: take_results.py DIR, a folder that gpu_check has written", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    for bench, number in take_rows(folder, root).items():
        print(f"{bench}: {number} rows")
    refusal = take_record(folder, root)
    print(refusal or "the record was taken", file=sys.stderr if refusal else sys.stdout)
    return 1 if refusal else 0


def take_rows(folder: Path, root: Path) -> dict[str, int]:
    """Add the rows to the files of their benchmarks; how many are new."""
    taken: dict[str, int] = {}
    for row in read_rows(folder / "results.jsonl"):
        bench = str(row["bench"])
        path = root / "benchmarks" / "results" / f"{bench}.jsonl"
        if bench.startswith("bench_") and row not in read_rows(path):
            append_rows(path, [row])
            taken[bench] = taken.get(bench, 0) + 1
    return taken


def take_record(folder: Path, root: Path) -> str | None:
    """Copy the record into both of its places; otherwise the reason why not."""
    path = folder / "gpu_verified.json"
    if not path.exists():
        return "there is no record: not every step before it has passed"
    text = path.read_text()
    run = json.loads(text)["runs"][-1]
    if run["sources"] != sources_hash(root):
        return f"the record is refused: it is about other sources (commit {run['commit']}) than those that are here"
    for place in PLACES:
        write_whole(root / place, text)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
