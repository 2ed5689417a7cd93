"""Training methods by name."""

from __future__ import annotations

from typing import Any

from ..config import VERIFIED_METHODS, TrainConfig
from ..correction import LabelCorrector
from ..errors import ConfigError
from ..seeding import derive_seed
from .base import Method
from .ce import CrossEntropy
from .cleannet import CleanNet
from .forward import ForwardCorrection
from .joint import JointOptimization
from .mlnt import MetaLearning
from .smp import SelfLearning
from .verified import VerifiedLabels, find_verified, read_verified

METHODS = ("ce", "forward", "joint", "mlnt", "cleannet-hard", "cleannet-soft", "smp")

__all__ = [
    "METHODS", "CleanNet", "CrossEntropy", "ForwardCorrection", "JointOptimization", "MetaLearning", "Method",
    "SelfLearning", "VerifiedLabels", "build_method", "find_verified", "read_verified",
]  # fmt: skip


def build_method(config: TrainConfig, num_classes: int, verified: VerifiedLabels | None = None) -> Method:
    """The method that `config` names, set up for `num_classes`; `verified` as `find_verified` gives it.

    Raises
    ------
    ConfigError
        Unknown name, or a method that needs verified labels has none.
    """
    passes: dict[str, Any] = {"batch_size": config.eval_batch_size, "workers": config.workers}
    if config.method == "ce":
        return CrossEntropy(**passes)
    if config.method == "forward":
        return ForwardCorrection(start_epoch=config.start_epoch, **passes)
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
        corrector = LabelCorrector(
            num_classes=num_classes,
            start_epoch=config.start_epoch,
            alpha=config.alpha,
            prototypes_per_class=config.prototypes_per_class,
            samples_per_class=config.samples_per_class,
            selector=config.selector,
            min_margin=config.min_margin,
            correct_every=config.correct_every,
            folder=config.out,
            seed=derive_seed(config.seed, "correction"),
            **passes,
        )
        return SelfLearning(corrector)
    raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {config.method!r}")
