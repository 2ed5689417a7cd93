"""How well wrong labels are found and put right, against the tools that people use, where the truth is known.

    python benchmarks/bench_quality.py --data fashion-mnist --root DIR
    python benchmarks/bench_quality.py --name cifar10n --features FILE.npy --labels FILE.parquet \
        --truth-column clean_label --label-columns clean_label aggre_label random_label1

Every method sees features and given labels, in a process of its own; quality, time and memory come from the same run.
Runs that have a row are skipped, so an interrupted series goes on where it stopped. report.py shows the rows in
docs/quality.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from machine import num_processors, provenance
from proto_trainer import ConfigError
from quality_methods import METHODS, OURS
from quality_problems import BANKS, Problem, from_files, from_images
from quality_runs import Row, do, finished, identity, key, write_inputs
from rows import OK, RESULTS, append_rows, read_rows

OUT = RESULTS / "bench_quality.jsonl"
NOISES = ("none", *(f"{kind}:{rate}" for kind in ("symmetric", "pairflip", "instance") for rate in (0.1, 0.2, 0.4)))
CODE = ("csrc", "proto_engine", "python/proto_trainer", "benchmarks/*quality*.py", "benchmarks/image_banks.py")


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit status: 1 where our own method did not finish."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if (args.data is None) == (args.features is None):
        parser.error("wanted either --data, or --features with --labels, --truth-column and --label-columns")
    if args.features and not (args.labels and args.truth_column and args.label_columns):
        parser.error("--features: wanted --labels, --truth-column and --label-columns beside it")
    about = provenance(arguments, code=CODE)
    about["versions"] |= _version_of("cleanlab")
    status, fresh = 0, set()
    try:
        for problem, seed in _problems(args):
            status |= _series(problem, seed, args, about, fresh)
    except ConfigError as error:
        print(f"bench_quality: error: {error}", file=sys.stderr)
        return 2
    return status


def _problems(args: argparse.Namespace) -> Iterator[tuple[Problem, int]]:
    """Seed by seed, so that an interrupted series has whole tables of fewer seeds."""
    for seed in args.seeds:
        if args.features:
            name = args.name or args.features.stem
            columns = args.label_columns
            found = from_files(name, args.features, args.labels, args.truth_column, columns, args.images)
        else:
            found = from_images(args.data, args.root, args.bank, args.noise, seed, args.cache, args.images)
        for problem in found:
            yield problem, seed


def _series(problem: Problem, seed: int, args: argparse.Namespace, about: Row, fresh: set[str]) -> int:
    """All methods on one problem; the exit status. `fresh`: keys of what this series has run, which grows."""
    status = 0
    names = args.methods or [name for name in METHODS if name != "network" or args.network]
    with tempfile.TemporaryDirectory(prefix="proto_engine_quality_") as folder:
        for name in names:
            if METHODS[name].needs_pixels and problem.pixels is None:
                print(f"{problem}: {name} needs images, left out", flush=True)
                continue
            this = key(identity(problem, name, seed, args.threads))
            if this in (fresh if name in (args.again or ()) else finished(read_rows(args.out))):
                print(f"{problem}: {name}, seed {seed}: done before", flush=True)
                continue
            if not any(Path(folder).iterdir()):
                write_inputs(problem, Path(folder))
            row = do(problem, name, seed, args.threads, Path(folder))
            append_rows(args.out, [{**about, **row}])
            fresh.add(this)
            print(f"{problem}: {name}, seed {seed}: {told(row)}", flush=True)
            status |= name == OURS and row["outcome"] != OK
    return status


def told(row: Row) -> str:
    """A row in one line, for the terminal."""
    if row["outcome"] != OK:
        return f"{row['outcome']}: {row['reason']}"
    auroc = next(iter(row["scores"].values()))["auroc"]
    found = "" if auroc is None else f"AUROC {auroc:.4f}, "
    labels = f"labels {row['given_accuracy']:.4f} -> {row['default']['accuracy']:.4f}"
    return f"{found}{labels}, all suggestions {row['all']['accuracy']:.4f} ({row['seconds']:.1f} s)"


def _version_of(package: str) -> dict[str, str]:
    try:
        return {package: version(package)}
    except PackageNotFoundError:  # its rows say that it failed
        return {}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", metavar="NAME", help="a data set of proto-train whose images are small, such as fashion-mnist")
    add("--root", type=Path, metavar="DIR", help="where its files are")
    add("--noise", nargs="+", default=NOISES, metavar="KIND:RATE", help=f"with --data (default {' '.join(NOISES)})")
    add("--bank", choices=BANKS, default=BANKS[0], help="features: fixed filters, or a network trained for 2 epochs")
    add("--network", action="store_true", help="with --data: the margin of a trained network, too; slow")
    add("--cache", type=Path, default=Path(tempfile.gettempdir()) / "proto_engine_banks", help="where banks are kept")
    add("--features", type=Path, metavar="FILE.npy", help="a bank of your own")
    add("--labels", type=Path, metavar="FILE.parquet", help="its labels, rows in the same order")
    add("--truth-column", metavar="NAME", help="the true labels among them")
    add("--label-columns", nargs="+", metavar="NAME", help="the given labels, a setting each")
    add("--name", help="what the tables call it (default: name of the features' file)")
    add("--images", type=int, metavar="N", help="only so many rows")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="of noise and methods (default 0 1 2)")
    add("--methods", nargs="+", choices=METHODS, metavar="NAME", help=f"of {', '.join(METHODS)}")
    add("--again", nargs="+", choices=METHODS, metavar="NAME", help="run these though they have rows")
    add("--threads", type=int, default=num_processors(), metavar="N", help="of every method (default: all)")
    add("--out", type=Path, default=OUT, help="JSONL file that rows are added to")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
