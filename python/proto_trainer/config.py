"""Everything that decides the outcome of a run, in one frozen object, and a recipe for each data set."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from .data.cifar_n import CIFAR_DATASETS
from .data.noise import NoiseSpec
from .errors import ConfigError

# Settings that do not change the outcome, or (the device) only its last bits: they may differ on resuming.
# What the verified and clean labels are goes into a checkpoint as the hash of their content.
_PLACES = ("out", "root", "device", "workers", "verified", "clean", "weights")

# Methods whose first epochs must be plain ones: they learn something about the labels from them.
_WARM_UP_METHODS = ("forward", "joint")

VERIFIED_METHODS = ("cleannet-hard", "cleannet-soft")

# In place of a file: what the data set comes with.
FROM_DATA_SET = "dataset"

# Options that mean nothing to the other methods: giving them is an error, not a wish that goes unheard.
OPTION_METHODS = {
    "alpha": ("smp",),
    "prototypes_per_class": ("smp",),
    "samples_per_class": ("smp", *VERIFIED_METHODS),
    "selector": ("smp",),
    "min_margin": ("smp",),
    "correct_every": ("smp",),
    "prior_weight": ("joint",),
    "entropy_weight": ("joint",),
    "verified": (*VERIFIED_METHODS, "smp", "forward"),
}

SELECTORS = ("density-peaks", "density-contrast", "kmeans++", "density-peaks-euclidean")


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one run; `make_config` fills in what a data set's recipe knows.

    Attributes
    ----------
    data, model, method : str
        See `proto_trainer.data.DATASETS`, `proto_trainer.models.MODELS`, `proto_trainer.methods.METHODS`.
    out : Path
        Where the run writes.
    root : Path or None
        Where the data lies.
    noise : NoiseSpec or None
        Noise to add to the labels of the training set.
    images : int or None
        Train on so many images only, see `train_on_part`.
    epochs, start_epoch : int
        Epochs are counted from 0; `start_epoch` is the first that begins with a correction phase,
        or the first in which another method does more than cross-entropy.
    seed : int
    batch_size : int
    lr, momentum, weight_decay : float
        Of SGD; the rate is divided by 10 after each third of the epochs, as in the paper.
    alpha, prototypes_per_class, samples_per_class, selector, min_margin, correct_every
        See `LabelCorrector`; `selector` is one of `SELECTORS`.
    prior_weight, entropy_weight : float
        See `JointOptimization`.
    verified : Path, "dataset" or None
        Labels that somebody has looked at: a file, see `proto_trainer.methods.read_verified`, or those that
        the data set comes with. `VERIFIED_METHODS` use the latter when it is None.
    clean : Path, "dataset" or None
        Images with right labels to fine-tune on: a file, see `proto_trainer.methods.read_clean`, or those
        that the data set comes with.
    clean_epochs : int or None
        So many epochs of fine-tuning follow the `epochs`; given if and only if `clean` is.
    image_size : int
        Side of the images of an ``imagefolder``.
    workers : int
        Processes that load images; 0 for data sets in memory.
    device : str
        ``auto`` (a GPU if there is one), or what `torch.device` takes.
    weights : Path or None
        A safetensors file with weights of the backbone to begin with, see `read_weights`.
    amp : bool
        Compute in bfloat16 where that is safe.
    compile : bool
        Compile the network.
    """

    data: str
    out: Path
    model: str
    epochs: int
    start_epoch: int
    batch_size: int
    lr: float
    weight_decay: float
    method: str = "smp"
    root: Path | None = None
    noise: NoiseSpec | None = None
    images: int | None = None
    seed: int = 0
    momentum: float = 0.9
    alpha: float = 0.5
    prototypes_per_class: int = 8
    samples_per_class: int | None = 1280
    selector: str = "density-peaks"
    min_margin: float = 0.0
    correct_every: int = 1
    prior_weight: float = 1.2
    entropy_weight: float = 0.8
    verified: Path | str | None = None
    clean: Path | str | None = None
    clean_epochs: int | None = None
    image_size: int = 224
    workers: int = 0
    device: str = "auto"
    weights: Path | None = None
    amp: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():  # the numbers of numpy as Python's: they go into JSON
            if isinstance(value, np.generic):
                object.__setattr__(self, name, value.item())
        for name, least in (
            ("epochs", 1), ("start_epoch", 0), ("batch_size", 1), ("seed", 0), ("prototypes_per_class", 1),
            ("correct_every", 1), ("image_size", 8), ("workers", 0), ("images", 1), ("clean_epochs", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is None and name in ("images", "clean_epochs"):
                continue
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise ConfigError(f"{name} must be a whole number, got {value!r}")
            if value < least:
                raise ConfigError(f"{name} must be {least} or more, got {value}")
        if not isinstance(self.noise, NoiseSpec | None):
            raise ConfigError(f"noise must be a NoiseSpec or None, got {self.noise!r}; NoiseSpec.parse reads KIND:RATE")
        samples = self.samples_per_class
        if samples is not None and (not isinstance(samples, Integral) or samples < 1):
            raise ConfigError(f"samples_per_class must be 1 or more, or all, got {samples!r}")
        if self.start_epoch >= self.epochs:
            raise ConfigError(
                f"start_epoch must be smaller than epochs ({self.epochs}), or no epoch corrects; got {self.start_epoch}"
            )
        if self.method in _WARM_UP_METHODS and self.start_epoch == 0:
            raise ConfigError(f"start_epoch must be 1 or more with method {self.method}, which needs a trained network")
        if self.verified is not None:
            need_method_with("verified", self.method)
        if (self.clean is None) != (self.clean_epochs is None):
            raise ConfigError(f"clean_epochs goes with clean, got {self.clean_epochs} with clean {self.clean}")
        if self.selector not in SELECTORS:
            raise ConfigError(f"selector must be one of {', '.join(SELECTORS)}, got {self.selector!r}")
        if self.weights is not None and self.weights.suffix != ".safetensors":
            raise ConfigError(f"weights must be a .safetensors file, for nothing is unpickled; got {self.weights}")
        if self.compile and self.method == "mlnt":
            raise ConfigError("compile does not go with method mlnt, which takes several gradients of one pass")
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha must lie in 0..1, got {self.alpha}")
        if self.method == "joint" and self.epochs < self.start_epoch + 2:
            raise ConfigError(
                f"epochs must be at least start_epoch + 2 with method joint: {self.start_epoch + 2}, got {self.epochs}"
            )
        for name in ("lr", "weight_decay", "prior_weight", "entropy_weight", "min_margin"):
            value = getattr(self, name)
            if not (isinstance(value, Real) and math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} must be a finite number, 0 or more, got {value!r}")

    @property
    def all_epochs(self) -> int:
        """Those of the method, and those of fine-tuning on clean images."""
        return self.epochs + (self.clean_epochs or 0)

    @property
    def eval_batch_size(self) -> int:
        """Batches without gradients fit four times as many images."""
        return 4 * self.batch_size

    def lr_at(self, epoch: int) -> float:
        """The learning rate of an epoch: a pure function, so that a resumed run has nothing to restore."""
        return tenth_each_third(self.lr, epoch, self.epochs)

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must share with the run that resumes it, ready for JSON."""
        settings = {name: value for name, value in asdict(self).items() if name not in _PLACES}
        settings["noise"] = "none" if self.noise is None else str(self.noise)
        return settings


def need_method_with(option: str, method: str) -> None:
    """Refuse an option that `method` does not know, see `OPTION_METHODS`."""
    methods = OPTION_METHODS.get(option)
    if methods is not None and method not in methods:
        raise ConfigError(
            f"{option} is for the method{'s' if len(methods) > 1 else ''} {', '.join(methods)}, got method {method}"
        )


def tenth_each_third(lr: float, epoch: int, epochs: int) -> float:
    """The learning rate of epoch `epoch` of `epochs`: divided by 10 after each third of them."""
    return lr * 0.1 ** (3 * epoch // epochs)


# Processes that load images. Of a larger machine some processors are left to others.
_WORKERS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

RECIPES: dict[str, dict[str, Any]] = {
    "digits": {
        "model": "small-cnn", "epochs": 15, "batch_size": 32, "lr": 0.01, "weight_decay": 5e-4,
    },
    "fashion-mnist": {
        "model": "small-cnn", "epochs": 10, "batch_size": 128, "lr": 0.02, "weight_decay": 5e-4,
    },
    "imagefolder": {
        "model": "resnet18", "epochs": 30, "batch_size": 64, "lr": 0.02, "weight_decay": 5e-4, "workers": _WORKERS,
    },
    "clothing1m": {
        "model": "resnet50", "epochs": 15, "batch_size": 128, "lr": 0.002, "weight_decay": 5e-3, "workers": _WORKERS,
    },
    "food101n": {
        "model": "resnet50", "epochs": 30, "batch_size": 128, "lr": 0.001, "weight_decay": 5e-3, "workers": _WORKERS,
    },
    **{
        name: {"model": "small-cnn", "epochs": 30, "batch_size": 128, "lr": 0.02, "weight_decay": 5e-4}
        for name in CIFAR_DATASETS
    },
}  # fmt: skip


def make_config(data: str, out: str | Path, **settings: Any) -> TrainConfig:
    """The recipe of a data set, overruled by `settings` (those that are None count as not given).

    Without a `start_epoch` correction starts after a third of the epochs, the paper's proportion (5 of 15).
    Without `clean_epochs` a third as many epochs of fine-tuning follow when there is `clean`.

    Raises
    ------
    ConfigError
        Unknown data set, or a value that cannot work.
    """
    if data not in RECIPES:
        raise ConfigError(f"data must be one of {', '.join(RECIPES)}, got {data!r}")
    merged = {**RECIPES[data], **{name: value for name, value in settings.items() if value is not None}}
    for name, value in settings.items():
        if value is not None:
            need_method_with(name, merged.get("method", TrainConfig.method))
    if merged.get("samples_per_class") == "all":
        merged["samples_per_class"] = None
    least = 1 if merged.get("method") in _WARM_UP_METHODS else 0
    merged.setdefault("start_epoch", max(merged["epochs"] // 3, least))
    if merged.get("clean") is not None:
        merged.setdefault("clean_epochs", max(merged["epochs"] // 3, 1))
    for name in ("root", "verified", "clean", "weights"):
        if merged.get(name) is not None and (name in ("root", "weights") or merged[name] != FROM_DATA_SET):
            merged[name] = Path(merged[name])
    return TrainConfig(data=data, out=Path(out), **merged)
