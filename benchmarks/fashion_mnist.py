"""Cross-entropy and self-correction on Fashion-MNIST with wrong labels: a row for each run.

    python benchmarks/fashion_mnist.py --root DIR

DIR holds the data set as torchvision keeps it, or the four idx files themselves. Every method sees the same
noise, the same first weights and the same batches under the same seed. Runs that have a row already are
skipped, so an interrupted series goes on where it stopped; report.py makes the README's table of the rows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from machine import provenance
from proto_trainer import NoiseSpec, make_config, train
from rows import append_rows, read_rows

RESULTS = Path(__file__).parent / "results" / "fashion_mnist.jsonl"
METHODS = ("ce", "smp")
NOISES = ("symmetric:0.4", "pairflip:0.4")


def run(method: str, noise: str, seed: int, root: Path) -> dict[str, object]:
    """Train once; accuracies of the last epoch, and of the best for those who would have stopped there."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(
            "fashion-mnist", Path(folder) / "run", root=root, method=method, noise=NoiseSpec.parse(noise), seed=seed
        )
        rows = train(config).rows
    labels = [row["label_accuracy"] for row in rows]
    corrected = labels[config.start_epoch :] if method != "ce" else []
    return {
        "method": method,
        "noise": noise,
        "seed": seed,
        "epochs": config.epochs,
        "start_epoch": config.start_epoch,
        "test_accuracy": rows[-1]["test_accuracy"],
        "test_accuracy_best": max(row["test_accuracy"] for row in rows),
        "label_accuracy_given": labels[0],
        "label_accuracy_first": corrected[0] if corrected else None,
        "label_accuracy_last": corrected[-1] if corrected else None,
        "label_accuracy_least": min(corrected) if corrected else None,
        "seconds": round(time.perf_counter() - start, 1),
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder with the data set")
    parser.add_argument("--noise", nargs="+", default=NOISES, help=f"default: {' '.join(NOISES)}")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSONL file that rows are added to")
    args = parser.parse_args(arguments)
    done = {(row["method"], row["noise"], row["seed"]) for row in read_rows(args.out)}
    about = provenance(arguments)
    for seed in args.seeds:
        for noise in args.noise:
            for method in args.methods:
                if (method, noise, seed) in done:
                    print(f"{method} {noise} seed {seed}: done before", flush=True)
                    continue
                row = run(method, noise, seed, args.root)
                append_rows(args.out, [{**about, **row}])
                print(f"{method} {noise} seed {seed}: test accuracy {row['test_accuracy']:.4f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
