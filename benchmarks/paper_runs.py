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
from proto_trainer.config import FROM_DATA_SET, OPTION_METHODS
from proto_trainer.data import Splits
from proto_trainer.seeding import derive_seed
from rows import FAILED, OK

DIVERGED = "diverged"  # for good: the same run diverges again
_CORRECTING = ("smp", "joint")  # methods that train on other labels than the given ones
_OPTIONS = {NOISY: (), VERIFIED: (VERIFIED,), CLEAN: (VERIFIED, CLEAN)}  # clean images are verified, too
_DECIDING = tuple(make_config("digits", "unused").identity())
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

    def config(self, out: Path = Path("unused"), **files: Path | str) -> TrainConfig:
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
    return json.dumps([deciding(identity), supervision], sort_keys=True)


def deciding(identity: dict[str, Any]) -> dict[str, Any]:
    """Of the settings of a run those that decide the outcome today.

    One that the run does not know, because it came later, had its default.
    """
    return {name: identity.get(name, DEFAULTS.get(name)) for name in _DECIDING}


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
    start, settings = time.perf_counter(), run.config().identity()
    row = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "load_before": round(os.getloadavg()[0], 2),
        "threads": torch.get_num_threads(),
        "data": run.data,
        "method": run.variant.method,
        "noise": settings["noise"],
        "seed": run.seed,
        "supervision": run.variant.supervision,
        "num_images": len(splits.train),
        "settings": settings,
    }
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
        "epochs": config.epochs,
        "clean_epochs": len(test) - config.epochs,
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


def _supervision(run: Run, splits: Splits, folder: Path) -> tuple[dict[str, Path | str], str | None]:
    """The verified and clean labels that a run is given, as options, and what the row says about them.

    A data set's own are used as long as its labels are. Otherwise a seeded tenth of the training images is
    compared with the truth, the same images for both.
    """
    wanted = [option for option in _OPTIONS[run.variant.supervision] if _takes(run.variant.method, option)]
    if not wanted:
        return {}, None
    config = run.config()
    if config.noise is None and splits.verified is not None:
        return dict.fromkeys(wanted, FROM_DATA_SET), f"{len(splits.verified.right)} images, from the data set"
    train_set = add_noise(splits.train, config.noise, derive_seed(run.seed, "noise"))
    if train_set.truth is None:
        raise ConfigError(f"{run.data} has neither verified labels nor the truth to make some from")
    rng = np.random.default_rng(derive_seed(run.seed, "verified"))
    rows = np.sort(rng.choice(len(train_set), len(train_set) // _SHARE, replace=False))
    truth = train_set.truth.numpy()[rows]
    right = truth == train_set.given.numpy()[rows]
    columns = {VERIFIED: ("correct", right.astype(int)), CLEAN: ("label", truth)}
    files: dict[str, Path | str] = {
        option: _csv(folder / f"{option}.csv", columns[option][0], rows, columns[option][1]) for option in wanted
    }
    return files, f"{len(rows)} images, a seeded tenth, {right.sum()} right"


def _takes(method: str, option: str) -> bool:
    return method in OPTION_METHODS.get(option, (method,))


def _csv(path: Path, column: str, rows: np.ndarray, values: np.ndarray) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", column])
        writer.writerows(zip(rows.tolist(), values.tolist(), strict=True))
    return path
