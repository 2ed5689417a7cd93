"""Watch a network learn from wrong labels and correct them: `ce` and `smp` side by side.

Trains both methods with several seeds on the same noisy labels, prints a table, and writes to --out

    demo.png            accuracy per epoch, and the noise matrix before and after correction
    corrected.parquet   every training image with its given and its suggested label (smp, first seed)
    runs/               everything that proto-train writes, for each run
"""

from __future__ import annotations

import argparse
import logging
import shutil
import time
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from proto_trainer import ConfigError, NoiseSpec, TrainResult, make_config, noise_matrix, train

import proto_engine as pe

matplotlib.use("Agg")
from matplotlib import pyplot as plt

METHODS = ("ce", "smp")
COLORS = {"ce": "#8a8a8a", "smp": "#1662a8"}
NAMES = {"ce": "cross-entropy", "smp": "self-learning"}


def run_all(args: argparse.Namespace) -> dict[str, list[TrainResult]]:
    """Each method with each seed; a seed means the same noise, weights and batches for both methods."""
    for method in METHODS:
        for earlier in (args.out / "runs").glob(f"{method}-seed*"):  # a demo starts afresh
            shutil.rmtree(earlier)
    results: dict[str, list[TrainResult]] = {method: [] for method in METHODS}
    for seed in range(args.seeds):
        for method in METHODS:
            config = make_config(
                args.data,
                args.out / "runs" / f"{method}-seed{seed}",
                root=args.root,
                method=method,
                noise=NoiseSpec.parse(args.noise),
                seed=seed,
                epochs=args.epochs,
            )
            started = time.perf_counter()
            result = train(config, download=args.download)
            last = result.rows[-1]
            print(
                f"{method:4s} seed {seed}: test accuracy {last['test_accuracy']:.3f}, "
                f"label accuracy {last['label_accuracy']:.3f}  ({time.perf_counter() - started:.0f} s)",
                flush=True,
            )
            results[method].append(result)
    return results


def curves(results: list[TrainResult], column: str) -> np.ndarray:
    """One column of all epochs and seeds, [seeds, epochs]."""
    return np.array([[row[column] for row in result.rows] for result in results])


def table(results: dict[str, list[TrainResult]]) -> str:
    """The comparison as text: mean over the seeds, and standard deviation where there are two or more."""

    def cell(values: np.ndarray) -> str:
        spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
        return f"{values.mean():.3f}{spread}"

    lines = [f"{'':32s}{'ce':>16s}{'smp':>16s}"]
    for title, column, pick in (
        ("test accuracy, last epoch", "test_accuracy", lambda runs: runs[:, -1]),
        ("test accuracy, best epoch", "test_accuracy", lambda runs: runs.max(axis=1)),
        ("label accuracy, as given", "label_accuracy", lambda runs: runs[:, 0]),
        ("label accuracy, as trained on", "label_accuracy", lambda runs: runs[:, -1]),
    ):
        cells = [cell(pick(curves(results[method], column))) for method in METHODS]
        lines.append(f"{title:32s}{cells[0]:>16s}{cells[1]:>16s}")
    return "\n".join(lines)


def matrices(results: list[TrainResult], runs: Path) -> tuple[np.ndarray, np.ndarray]:
    """The noise matrix of the given and of the corrected labels, mean over the seeds, each [C, C]."""
    before, after = [], []
    for seed, result in enumerate(results):
        dataset = result.train_set
        frame = pd.read_parquet(runs / f"smp-seed{seed}" / "corrected.parquet")
        truth = dataset.truth.numpy()
        before.append(noise_matrix(truth, frame["given_label"].to_numpy(), dataset.num_classes))
        after.append(noise_matrix(truth, frame["suggested_label"].to_numpy(), dataset.num_classes))
    return np.mean(before, axis=0), np.mean(after, axis=0)


def plot(results: dict[str, list[TrainResult]], runs: Path, title: str, path: Path) -> None:
    """Left: both accuracies per epoch, mean and range over the seeds. Right: the two noise matrices."""
    figure = plt.figure(figsize=(14, 4.9), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.55))
    figure.suptitle(title, fontsize=13)
    plot_curves(left.subplots(), results)
    class_names = results["smp"][0].train_set.class_names
    grids = right.subplots(1, 2)
    for axis, matrix, name in zip(grids, matrices(results["smp"], runs), ("given", "corrected"), strict=True):
        image = plot_matrix(axis, matrix, class_names, f"{name} labels: {np.diag(matrix).mean():.0%} right")
    grids[0].set_ylabel("true class")
    grids[1].tick_params(labelleft=False)
    right.colorbar(image, ax=grids, shrink=0.8, label="share of the true class (in the cells: %)")
    with pe.atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)


def plot_curves(axis: plt.Axes, results: dict[str, list[TrainResult]]) -> None:
    """Solid: test accuracy. Dashed: share of the labels trained on that are right."""
    for method in METHODS:
        for column, style in (("test_accuracy", "-"), ("label_accuracy", "--")):
            runs = curves(results[method], column)
            epochs = np.arange(runs.shape[1])
            what = column.replace("_", " ")
            axis.plot(epochs, runs.mean(axis=0), style, color=COLORS[method], label=f"{NAMES[method]}: {what}")
            axis.fill_between(epochs, runs.min(axis=0), runs.max(axis=0), color=COLORS[method], alpha=0.15, lw=0)
    phases = [row["epoch"] for row in results["smp"][0].rows if row["extract_seconds"] is not None]
    axis.axvline(phases[0], color="black", lw=0.8, ls=":")
    axis.annotate(
        "first correction", (phases[0], 0.2), xycoords=("data", "axes fraction"), xytext=(4, 0),
        textcoords="offset points", fontsize=9,
    )  # fmt: skip
    axis.set(xlabel="epoch", ylabel="accuracy", title="Test accuracy, and share of training labels that are right")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=9, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)


def plot_matrix(axis: plt.Axes, matrix: np.ndarray, class_names: tuple[str, ...], title: str):
    """Shares of 5 % and more are written into their cell."""
    image = axis.imshow(matrix, vmin=0, vmax=1, cmap="Blues")
    for (i, j), share in np.ndenumerate(matrix):
        if share >= 0.05:
            color = "white" if share > 0.5 else "black"
            axis.text(j, i, f"{share * 100:.0f}", ha="center", va="center", fontsize=8, color=color)
    ticks = range(len(class_names))
    axis.set_xticks(ticks, class_names, rotation=0 if max(map(len, class_names)) < 3 else 90)
    axis.set_yticks(ticks, class_names)
    axis.tick_params(length=0, labelsize=9)
    axis.set_title(title, fontsize=11)
    axis.set_xlabel("label")
    return image


def main(argv: list[str] | None = None) -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", choices=("digits", "fashion-mnist"))
    parser.add_argument("--root", type=Path, help="where Fashion-MNIST lies")
    parser.add_argument("--download", action="store_true", help="fetch Fashion-MNIST if it is missing")
    parser.add_argument("--noise", default="symmetric:0.4", help="KIND:RATE (symmetric, pairflip, instance)")
    parser.add_argument("--seeds", type=int, default=3, help="runs per method")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error(f"--seeds must be 1 or more, got {args.seeds}")
    if args.noise == "none":
        parser.error("--noise must be KIND:RATE: without noise there is no truth to measure labels against")
    logging.getLogger("proto_trainer").setLevel(logging.ERROR)  # proto-train shows the remarks on single phases

    started = time.perf_counter()
    print(f"{args.data} with {args.noise} label noise, {args.seeds} seeds")
    try:
        results = run_all(args)
    except ConfigError as error:  # unknown noise, missing files
        parser.error(str(error))
    runs = args.out / "runs"
    title = f"{args.data}, {args.noise} label noise, {args.seeds} seeds"
    plot(results, runs, title, args.out / "demo.png")
    shutil.copyfile(runs / "smp-seed0" / "corrected.parquet", args.out / "corrected.parquet")
    print(f"\n{table(results)}\n")
    print(
        f"{args.out / 'demo.png'} and {args.out / 'corrected.parquet'} written, {time.perf_counter() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
