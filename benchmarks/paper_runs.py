"""One training run of the paper's tables: its settings, what makes it the same run as another, and its row."""

from __future__ import annotations

import csv
import datetime
import json
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from paper_variants import CLEAN, DEFAULTS, NOISY, VERIFIED, Row, Variant, rival_settings
from proto_trainer import (
    ConfigError,
    NoiseSpec,
    TrainConfig,
    TrainingDiverged,
    TrainResult,
    add_noise,
    label_accuracy,
    make_config,
    train,
)
from proto_trainer.data import Splits
from proto_trainer.seeding import derive_seed
from rows import FAILED, OK

DIVERGED = "diverged"  # for good: the same run diverges again
_CORRECTING = ("smp", "joint")  # methods that train on other labels than the given ones
_SHARE = 10  # a tenth of the images is verified where the data set has no verified labels of its own


@dataclass(frozen=True)
class Run:
    """What is trained, on what: a variant with a data set, a noise and a seed."""

    variant: Variant
    data: str
    noise: str
    seed: int
    root: Path | None = None
    images: int | None = None
    epochs: int | None = None

    def config(self, out: Path = Path("unused"), **files: Path | None) -> TrainConfig:
        """The settings of the run; `files`: verified and clean labels.

        Raises
        ------
        ConfigError
            They cannot work together.
        """
        method = self.variant.method
        settings = rival_settings(method, self.data, self.noise) | dict(self.variant.settings)
        return make_config(
            self.data, out, method=method, root=self.root, noise=NoiseSpec.parse(self.noise), seed=self.seed,
            images=self.images, epochs=self.epochs, **settings, **files,
        )  # fmt: skip

    def key(self) -> str:
        """The same for all runs with the same outcome, whichever table asks for them."""
        return _key(self.config().identity(), self.variant.supervision)

    def __str__(self) -> str:
        return f"{self.variant.line}, {self.noise}, seed {self.seed}"


def finished(rows: Iterable[Row]) -> set[str]:
    """The keys of runs that need not be done again; one that failed for outer reasons is not among them."""
    return {row_key(row) for row in rows if row["outcome"] in (OK, DIVERGED)}


def row_key(row: Row) -> str:
    """`Run.key` of the run that left a row."""
    return _key(row["settings"], row["supervision"])


def _key(identity: dict[str, Any], supervision: str) -> str:
    """A setting that a row does not know, because it came later, had its default."""
    settings = {name: value for name, value in (DEFAULTS | identity).items() if name not in (VERIFIED, CLEAN)}
    return json.dumps([settings, supervision], sort_keys=True)


def do(run: Run, splits: Splits) -> Row:
    """Train once, in a temporary folder.

    Parameters
    ----------
    run : Run
    splits : Splits
        The data set as `load_dataset` gives it, from which labels are verified.

    Returns
    -------
    dict
        The row, also of a run that could not be finished: its `outcome` is not ``ok`` then, and has a `reason`.
    """
    start = time.perf_counter()
    row = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "load_before": round(os.getloadavg()[0], 2),
        "threads": torch.get_num_threads(),
        "data": run.data,
        "method": run.variant.method,
        "noise": run.noise,
        "seed": run.seed,
        "supervision": run.variant.supervision,
        "num_images": len(splits.train),
        "settings": run.config().identity(),
    }
    row["settings"].pop("clean", None)
    with tempfile.TemporaryDirectory() as folder:
        try:
            files, told = _supervision(run, splits, Path(folder))
            config = run.config(Path(folder) / "run", **files)
            row |= {"verified": told, **_results(config, train(config)), "outcome": OK}
        except TrainingDiverged as error:
            row |= {"outcome": DIVERGED, "reason": f"{error}"}
        except Exception as error:  # the series goes on with the next run
            reason = " ".join(f"{error}".split()).replace(folder, "DIR").replace(f"{run.root}", "DIR")
            row |= {"outcome": FAILED, "reason": f"{type(error).__name__}: {reason}"}
    return {**row, "seconds": round(time.perf_counter() - start, 1)}


def _results(config: TrainConfig, result: TrainResult) -> Row:
    """The numbers of a finished run: of the last epoch, of the best, and of all of them."""
    test = [epoch["test_accuracy"] for epoch in result.rows]
    labels = [epoch["label_accuracy"] for epoch in result.rows]
    known = config.method in _CORRECTING and None not in labels
    corrected = labels[config.start_epoch :] if known else []
    return {
        "epochs": len(test),
        "start_epoch": config.start_epoch,
        "test_accuracy": test[-1],
        "test_accuracy_best": max(test),
        "test_accuracy_first": test[config.start_epoch],
        "label_accuracy_given": label_accuracy(result.train_set.given, result.train_set.truth),
        "label_accuracy_first": corrected[0] if corrected else None,
        "label_accuracy_last": corrected[-1] if corrected else None,
        "label_accuracy_least": min(corrected) if corrected else None,
        "test_accuracy_by_epoch": test,
        "label_accuracy_by_epoch": labels,
    }


def _supervision(run: Run, splits: Splits, folder: Path) -> tuple[dict[str, Path], str | None]:
    """The files of verified and clean labels that a run is given, and what the row says about them.

    A data set's own come with it. For others, a seeded tenth of the training images is compared with the truth.
    """
    if run.variant.supervision == NOISY:
        return {}, None
    if splits.verified is not None:
        return {}, f"{len(splits.verified.right)} images, from the data set"
    config = run.config()
    train_set = add_noise(splits.train, config.noise, derive_seed(run.seed, "noise"))
    if train_set.truth is None:
        raise ConfigError(f"{run.data} has neither verified labels nor the truth to make some from")
    rng = np.random.default_rng(derive_seed(run.seed, "verified"))
    rows = np.sort(rng.choice(len(train_set), len(train_set) // _SHARE, replace=False))
    right = (train_set.given == train_set.truth).numpy()[rows]
    files = {VERIFIED: _csv(folder / "verified.csv", "correct", rows, right.astype(int))}
    if run.variant.supervision == CLEAN:
        files[CLEAN] = _csv(folder / "clean.csv", "label", rows, train_set.truth.numpy()[rows])
    return files, f"{len(rows)} images, a seeded tenth, {right.sum()} right"


def _csv(path: Path, column: str, rows: np.ndarray, values: np.ndarray) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", column])
        writer.writerows(zip(rows.tolist(), values.tolist(), strict=True))
    return path
