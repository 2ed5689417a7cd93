"""Training methods by name."""

from __future__ import annotations

from typing import Any

from ..config import VERIFIED_METHODS, TrainConfig
from ..correction import LabelCorrector
from ..errors import ConfigError
from ..seeding import derive_seed
from .base import Method
from .ce import CrossEntropy
from .clean import CleanFineTuning, CleanImages, find_clean, read_clean
from .cleannet import CleanNet
from .forward import ForwardCorrection
from .joint import JointOptimization
from .mlnt import MetaLearning
from .smp import SelfLearning, VerifiedCorrector
from .verified import VerifiedLabels, find_verified, known_labels, read_verified

METHODS = ("ce", "forward", "joint", "mlnt", "cleannet-hard", "cleannet-soft", "smp")

__all__ = [
    "METHODS", "CleanFineTuning", "CleanImages", "CleanNet", "CrossEntropy", "ForwardCorrection", "JointOptimization",
    "MetaLearning", "Method", "SelfLearning", "VerifiedCorrector", "VerifiedLabels", "build_method", "find_clean",
    "find_verified", "read_clean", "read_verified",
]  # fmt: skip


def build_method(
    config: TrainConfig,
    num_classes: int,
    verified: VerifiedLabels | None = None,
    clean: CleanImages | None = None,
) -> Method:
    """The method that `config` names, set up for `num_classes`, with fine-tuning if there are clean images.

    `verified` and `clean` as `find_verified` and `find_clean` give them.

    Raises
    ------
    ConfigError
        Unknown name, or a method that needs verified labels has none.
    """
    method = _build_method(config, num_classes, verified, clean)
    if clean is None:
        return method
    return CleanFineTuning(method, clean.images, first_epoch=config.epochs, epochs=config.all_epochs - config.epochs)


def _build_method(
    config: TrainConfig, num_classes: int, verified: VerifiedLabels | None, clean: CleanImages | None
) -> Method:
    passes: dict[str, Any] = {"batch_size": config.eval_batch_size, "workers": config.workers}
    if config.method == "ce":
        return CrossEntropy(**passes)
    if config.method == "forward":
        known = known_labels(verified, None if clean is None else clean.verified)
        return ForwardCorrection(start_epoch=config.start_epoch, verified=known, **passes)
    if config.method == "joint":
        return JointOptimization(
            num_classes=num_classes,
            start_epoch=config.start_epoch,
            epochs=config.epochs,
            prior_weight=config.prior_weight,
            entropy_weight=config.entropy_weight,
        )
    if config.method == "mlnt":
        return MetaLearning(start_epoch=config.start_epoch, seed=derive_seed(config.seed, "meta-learning"), **passes)
    if config.method in VERIFIED_METHODS:
        if verified is None:
            raise ConfigError(f"verified must be given with method {config.method}")
        return CleanNet(
            num_classes=num_classes,
            start_epoch=config.start_epoch,
            verified=verified,
            hard=config.method == "cleannet-hard",
            samples_per_class=config.samples_per_class,
            seed=derive_seed(config.seed, "cleannet"),
            **passes,
        )
    if config.method == "smp":
        settings: dict[str, Any] = {
            "num_classes": num_classes,
            "start_epoch": config.start_epoch,
            "alpha": config.alpha,
            "prototypes_per_class": config.prototypes_per_class,
            "samples_per_class": config.samples_per_class,
            "selector": config.selector,
            "min_margin": config.min_margin,
            "correct_every": config.correct_every,
            "folder": config.out,
            "seed": derive_seed(config.seed, "correction"),
            **passes,
        }
        if verified is not None:
            return SelfLearning(VerifiedCorrector(verified=verified, **settings))
        return SelfLearning(LabelCorrector(**settings))
    raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {config.method!r}")
