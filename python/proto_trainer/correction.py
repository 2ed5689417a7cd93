"""Label correction as one object that any training loop can hold."""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

import proto_engine as pe

from .errors import ConfigError
from .features import FeatureFunction, extract_bank, model_device, model_features
from .losses import self_learning_loss
from .seeding import derive_seed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CorrectionPhase:
    """One correction phase: what it suggests, and what it cost.

    Attributes
    ----------
    epoch : int
    corrections : proto_engine.Corrections
        ``labels``, ``given``, ``score``, ``margin``, ``changed``, each [N] in data set order; ``to_frame()``.
    extract_seconds, select_seconds, score_seconds : float
    """

    epoch: int
    corrections: pe.Corrections
    extract_seconds: float
    select_seconds: float
    score_seconds: float


class LabelCorrector:
    """Corrects the labels of a data set from the features of the network that is being trained on it.

    Call `update` at the start of every epoch and use `loss` in place of cross-entropy. Before `start_epoch`
    nothing is corrected and `loss` is plain cross-entropy. Every phase starts afresh from the given labels:
    corrected labels never become the pool that prototypes are drawn from.

    Parameters
    ----------
    num_classes : int
    start_epoch : int
        The first epoch, counted from 0, that begins with a correction phase; so many epochs train without
        one.
    alpha : float in [0, 1]
        Weight of the corrected labels in the loss.
    prototypes_per_class : int
    samples_per_class : int or None
        Images drawn per class to pick prototypes from, anew in each phase; None takes the whole class.
    cutoff_quantile, eta_max, selector, backend
        Passed on to `proto_engine.select_prototypes` (`selector` as its ``method``).
    min_margin : float
        An image keeps its given label where the best class leads the second by less than this cosine.
    correct_every : int
        Epochs from one phase to the next; those between train on the labels of the last phase.
    candidates : array of int, [K], or None
        Positions of images whose given label is known to be right: prototypes are picked among them first.
    fixed : tuple (positions, labels), int64 [V] each, or None
        Images whose corrected label is known, whatever they resemble; no position twice.
    seed : int
        With the epoch number it decides which images are drawn.
    features : callable
        ``(model, images) -> Tensor [B, D]``; by default ``model.features(images)``.
    batch_size, workers : int
        For the pass that extracts the features.
    memory_limit : int
        Bytes; a larger feature bank is memory-mapped from an unnamed file in `folder`, see `extract_bank`.
    folder : path or None
        None: the system's folder for temporary files.

    Attributes
    ----------
    corrections : proto_engine.Corrections or None
        The outcome of the last phase; None before the first one, and after a restart until the next one.

    Examples
    --------
    >>> corrector = LabelCorrector(num_classes=10, start_epoch=5)            # doctest: +SKIP
    >>> for epoch in range(15):                                              # doctest: +SKIP
    ...     corrector.update(model, dataset, epoch)
    ...     for images, given, index in loader:
    ...         loss = corrector.loss(model(images), given, index)
    """

    def __init__(
        self,
        *,
        num_classes: int,
        start_epoch: int,
        alpha: float = 0.5,
        prototypes_per_class: int = 8,
        samples_per_class: int | None = 1280,
        cutoff_quantile: float = 0.6,
        eta_max: float = 0.95,
        selector: str = "density-peaks",
        backend: str = "auto",
        min_margin: float = 0.0,
        correct_every: int = 1,
        candidates: np.ndarray | None = None,
        fixed: tuple[np.ndarray, np.ndarray] | None = None,
        seed: int = 0,
        features: FeatureFunction = model_features,
        batch_size: int = 256,
        workers: int = 0,
        memory_limit: int = 4 * 2**30,
        folder: str | Path | None = None,
    ) -> None:
        if num_classes < 2:
            raise ConfigError(f"num_classes must be at least 2, got {num_classes}")
        if start_epoch < 0:
            raise ConfigError(f"start_epoch must be 0 or more, got {start_epoch}")
        if not 0 <= alpha <= 1:
            raise ConfigError(f"alpha must lie in 0..1, got {alpha}")
        if correct_every < 1:
            raise ConfigError(f"correct_every must be 1 or more, got {correct_every}")
        if not min_margin >= 0:
            raise ConfigError(f"min_margin must be 0 or more, got {min_margin}")
        self.num_classes = num_classes
        self.start_epoch = start_epoch
        self.alpha = alpha
        self.selection = {
            "prototypes_per_class": prototypes_per_class,
            "samples_per_class": samples_per_class,
            "cutoff_quantile": cutoff_quantile,
            "eta_max": eta_max,
            "method": selector,
        }
        self.with_lengths = selector == "density-peaks-euclidean"  # the one that compares more than directions
        self.backend = backend
        self.min_margin = min_margin
        self.correct_every = correct_every
        self.candidates = candidates
        self.fixed = None if fixed is None else _checked_fixed(fixed, num_classes)
        self.seed = seed
        self.features = features
        self.batch_size = batch_size
        self.workers = workers
        self.memory_limit = memory_limit
        self.folder = folder
        self.corrections: pe.Corrections | None = None
        self._corrected: Tensor | None = None  # int64 [N], in data set order, on the device of the model

    def update(self, model: nn.Module, dataset: Dataset, epoch: int) -> CorrectionPhase | None:
        """Run the correction phase of an epoch: extract, select, score.

        Parameters
        ----------
        model : nn.Module
            Is put into eval mode for the extraction, and back.
        dataset : Dataset
            The training set; items ``(image, given label[, index])``, see `extract_features`.
        epoch : int
            Counted from 0.

        Images whose feature is zero or not finite keep their given label, and a warning counts them.

        Returns
        -------
        CorrectionPhase or None
            None where nothing was done: before `start_epoch`, and between two phases.

        Raises
        ------
        TypeError, ValueError
            From `extract_bank` or the engine: wrong items or shapes, labels out of range; `fixed` has a position that
            the data set does not have.
        OSError
            From `extract_bank`: no room for the feature bank.
        """
        if not self._is_due(epoch):
            return None
        started = time.perf_counter()
        bank, given = self._extract(model, dataset, f"epoch {epoch}: extracting features")
        if self.fixed is not None and self.fixed[0].max(initial=-1) >= len(given):
            raise ValueError(f"fixed: wanted positions from 0 to {len(given) - 1}, got {self.fixed[0].max()}")
        extracted = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:  # once per phase, with its epoch, into the log
            warnings.simplefilter("always")
            prototypes = self._select(model, bank, given, derive_seed(self.seed, "pools", epoch))
        for warning in caught:
            logger.warning("epoch %d: %s", epoch, warning.message)
        selected = time.perf_counter()
        if (prototypes.indices < 0).all():  # a network that has died: no image has a usable feature
            unknown = np.full(len(given), np.nan)
            corrections = pe.Corrections(given.copy(), given, unknown, unknown.copy(), np.zeros(len(given), dtype=bool))
        else:
            corrections = pe.correct_labels(
                bank,
                given,
                prototypes,
                backend=self.backend,
                min_margin=self.min_margin,
                on_bad_rows="keep-label",
                progress=False,
            )
        if self.fixed is not None:
            corrections = _with_known_labels(corrections, *self.fixed)
        scored = time.perf_counter()
        unusable = int(np.isnan(corrections.score).sum())
        if unusable:  # a dead network gives many of these; one strange image must not end a long run
            logger.warning(
                "epoch %d: %d of %d images have no usable feature and keep their label", epoch, unusable, len(given)
            )
        self.corrections = corrections
        self._corrected = torch.from_numpy(corrections.labels.astype(np.int64)).to(model_device(model))
        return CorrectionPhase(epoch, corrections, extracted - started, selected - extracted, scored - selected)

    def _extract(self, model: nn.Module, dataset: Dataset, title: str) -> tuple[pe.FeatureBank, np.ndarray]:
        """`extract_bank` with the settings of this corrector."""
        return extract_bank(
            model,
            dataset,
            features=self.features,
            batch_size=self.batch_size,
            workers=self.workers,
            with_lengths=self.with_lengths,
            memory_limit=self.memory_limit,
            folder=self.folder,
            title=title,
        )

    def _select(self, model: nn.Module, bank: pe.FeatureBank, given: np.ndarray, seed: int) -> pe.Prototypes:
        """Prototypes of each class; a subclass may know more about the images than their given labels."""
        return self._pick(bank, given, seed, candidates=self.candidates)

    def _pick(self, features: Any, labels: np.ndarray, seed: int, **more: Any) -> pe.Prototypes:
        """`proto_engine.select_prototypes` with the settings of this corrector, of which `more` overrules some."""
        return pe.select_prototypes(
            features,
            labels,
            num_classes=self.num_classes,
            seed=seed,
            backend=self.backend,
            on_bad_rows="keep-label",
            **{**self.selection, **more},
        )

    def _is_due(self, epoch: int) -> bool:
        """A corrector that has no labels yet does not wait for the next multiple."""
        late = epoch - self.start_epoch
        return late >= 0 and (self._corrected is None or late % self.correct_every == 0)

    def targets(self, index: Tensor) -> Tensor:
        """The corrected labels of these positions in the data set.

        Parameters
        ----------
        index : Tensor, int64 [B]
            From 0 to N - 1.

        Returns
        -------
        Tensor, int64 [B]
            On the device of the model.

        Raises
        ------
        RuntimeError
            No phase has run yet.
        TypeError, ValueError
            Positions that are no whole numbers, or that the data set does not have.
        """
        if self._corrected is None:
            raise RuntimeError(f"no labels are corrected yet: update() has not reached epoch {self.start_epoch}")
        _check_positions(index, len(self._corrected))
        return self._corrected[index.to(self._corrected.device)]

    def loss(self, logits: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """``(1 - alpha) * CE(labels) + alpha * CE(corrected)``; plain ``CE(labels)`` before the first phase.

        Parameters
        ----------
        logits : Tensor, float [B, C]
        labels : Tensor, int64 [B]
            The given labels of the batch.
        index : Tensor, int64 [B]
            Where in the data set the batch comes from.

        Raises
        ------
        TypeError, ValueError
            See `targets`.
        """
        if self._corrected is None:
            return F.cross_entropy(logits, labels)
        return self_learning_loss(logits, labels, self.targets(index).to(logits.device), self.alpha)

    def state_dict(self) -> dict[str, Tensor]:
        """The corrected labels; empty while there are none."""
        return {} if self._corrected is None else {"corrected": self._corrected}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up the corrected labels of an earlier `state_dict`."""
        self._corrected = state.get("corrected")
        self.corrections = None


def _checked_fixed(fixed: tuple[Any, Any], num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Numpy would count negative positions from the end, cut numbers off and give one label to all."""
    try:
        rows, labels = (np.asarray(part, dtype=None if len(part) else np.int64) for part in fixed)
    except (TypeError, ValueError):
        raise ConfigError(f"fixed must be a pair of arrays, positions and labels, got {fixed!r:.80}") from None
    if rows.dtype.kind not in "iu" or labels.dtype.kind not in "iu":
        raise ConfigError(f"fixed must be positions and labels as whole numbers, got {rows.dtype} and {labels.dtype}")
    if rows.ndim != 1 or rows.shape != labels.shape:
        raise ConfigError(
            f"fixed must have a label for each position, [V] and [V], got {[*rows.shape]} and {[*labels.shape]}"
        )
    if rows.min(initial=0) < 0 or len(np.unique(rows)) < len(rows):
        raise ConfigError("fixed must be positions, none of them twice and none negative")
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= num_classes:
        raise ConfigError(f"fixed must have labels 0..{num_classes - 1}, got {labels.min()}..{labels.max()}")
    return rows.astype(np.int64), labels.astype(np.int64)


def _check_positions(index: Tensor, num_samples: int) -> None:
    """A negative position would count from the end, and train on the label of another image."""
    if index.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"index: wanted positions in the data set as int64, got {index.dtype}")
    if bool(((index < 0) | (index >= num_samples)).any()):
        low, high = index.min().item(), index.max().item()
        raise ValueError(f"index: wanted positions from 0 to {num_samples - 1}, got {low} to {high}")


def _with_known_labels(corrections: pe.Corrections, rows: np.ndarray, labels: np.ndarray) -> pe.Corrections:
    """Corrections whose `rows` have the `labels` that are known, [V] each."""
    corrected = corrections.labels.copy()
    corrected[rows] = labels
    return replace(corrections, labels=corrected, changed=corrected != corrections.given)
