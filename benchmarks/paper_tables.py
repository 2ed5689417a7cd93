"""The paper's tables on any data set of the trainer: a row for each run, the table at the end.

    python benchmarks/paper_tables.py methods --data fashion-mnist --root DIR --noise symmetric:0.4 pairflip:0.4

A run that two tables share is done once. Runs that have a row are skipped, so an interrupted series goes on
where it stopped, and several processes may work on one file: each looks before every run what the others have
done. report.py shows the rows in docs/results.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from gpu import driver_version
from machine import provenance, thread_limit
from paper_report import table_of
from paper_runs import Run, do, finished
from paper_variants import CLEAN, NOISY, TABLES, VERIFIED, Row
from proto_trainer import ConfigError, load_dataset
from proto_trainer.config import RECIPES
from rows import OK, append_rows, read_rows

RESULTS = Path(__file__).parent / "results" / "paper_tables.jsonl"
CODE = ("csrc", "proto_engine", "python/proto_trainer", "benchmarks/paper_*.py")


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    args = _parser().parse_args(arguments)
    try:
        runs = _runs(args)
        for run in runs:
            run.config()  # settings that cannot work are found before the first run
        splits = load_dataset(args.data, args.root, image_size=runs[0].config().image_size, images=args.images)
    except ConfigError as error:
        print(f"paper_tables: error: {error}", file=sys.stderr)
        return 2
    about = provenance(arguments, _gpu() if torch.cuda.is_available() else None, code=CODE)
    with thread_limit(args.threads) if args.threads else nullcontext():
        for run in runs:
            if run.key() in finished(read_rows(args.out)):
                print(f"{run}: done before", flush=True)
                continue
            row = do(run, splits)
            append_rows(args.out, [{**about, **row}])
            print(f"{run}: {_told(row)}", flush=True)
    print("\n" + table_of(args.table, [row for row in read_rows(args.out) if row["data"] == args.data]))
    return 0


def _runs(args: argparse.Namespace) -> list[Run]:
    """Seed by seed, so that an interrupted series has whole tables of fewer seeds."""
    variants = [variant for variant in TABLES[args.table].variants if variant.supervision in args.supervision]
    if args.methods is not None:
        known = {name for variant in variants for name in (variant.method, variant.line)}
        if unknown := [name for name in args.methods if name not in known]:
            raise ConfigError(f"methods: wanted names of {', '.join(sorted(known))}, got {', '.join(unknown)}")
        variants = [variant for variant in variants if {variant.method, variant.line} & set(args.methods)]
    if not variants:
        raise ConfigError(f"methods and supervision leave no line of the table {args.table}")
    return [
        Run(variant, args.data, noise, seed, args.root, args.images, args.epochs)
        for seed in args.seeds
        for noise in args.noise
        for variant in variants
    ]


def _told(row: Row) -> str:
    result = (
        f"test accuracy {row['test_accuracy']:.4f}" if row["outcome"] == OK else f"{row['outcome']}: {row['reason']}"
    )
    return f"{result} ({row['seconds']:.0f} s)"


def _gpu() -> dict[str, Any]:
    name = torch.cuda.get_device_name()
    return {"on": "cuda", "device": name, "driver": driver_version(), "cuda": torch.version.cuda}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("table", choices=TABLES, help="; ".join(f"{name}: {table.title}" for name, table in TABLES.items()))
    add("--data", required=True, choices=RECIPES, metavar="NAME", help="a data set of proto-train")
    add("--root", type=Path, metavar="DIR", help="where its files are")
    add("--noise", nargs="+", default=["none"], metavar="KIND:RATE", help="noise to add, one table each (default none)")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="(default 0 1 2)")
    add("--images", type=int, metavar="N", help="train on so many images, the same share of every class")
    add("--epochs", type=int, metavar="E", help="(default: the recipe's)")
    add("--threads", type=int, metavar="N", help="(default: torch's own)")
    add("--methods", nargs="+", metavar="NAME", help="only these methods, or lines by name, to share the work")
    kinds = (NOISY, VERIFIED, CLEAN)
    add("--supervision", nargs="+", default=kinds, choices=kinds, help="only lines with these labels")
    add("--out", type=Path, default=RESULTS, help="JSONL file that rows are added to")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
