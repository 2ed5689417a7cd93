"""Self-learning with multi-prototypes: train, correct the labels, train on both, correct again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import proto_engine as pe

from ..correction import CorrectionPhase, LabelCorrector
from ..data import LabeledImages
from .base import Method
from .verified import VerifiedLabels


class SelfLearning(Method):
    """A `LabelCorrector` in the loop: Han et al., "Deep Self-Learning From Noisy Labels", ICCV 2019."""

    def __init__(self, corrector: LabelCorrector) -> None:
        self.corrector = corrector

    def before_epoch(self, model: nn.Module, dataset: LabeledImages, epoch: int) -> CorrectionPhase | None:
        """The correction phase, from the corrector's start epoch on."""
        return self.corrector.update(model, dataset, epoch)

    def batch_loss(self, model: nn.Module, images: Tensor, given: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """See `Method.batch_loss`."""
        logits = model(images)
        return self.corrector.loss(logits, given, index), logits

    def training_labels(self, dataset: LabeledImages) -> Tensor:
        """The corrected labels, once there are any."""
        return self.corrector.state_dict().get("corrected", dataset.given).cpu()

    def state_dict(self) -> dict[str, Tensor]:
        """See `Method.state_dict`."""
        return self.corrector.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See `Method.load_state_dict`."""
        self.corrector.load_state_dict(state)


class VerifiedCorrector(LabelCorrector):
    """A `LabelCorrector` that knows which of some images' given labels are right.

    Prototypes are picked among images whose right label is known, whether it is the given one or another, in
    the training set or beside it; other images of the class top its pool up to `samples_per_class`. Images
    whose label is known to be wrong are in no pool but that of their right label. In the training set images
    with a known label are corrected to it, whatever they resemble.

    Parameters
    ----------
    verified : VerifiedLabels
    **settings
        Of `LabelCorrector`. The features of the pools are in memory, whatever `memory_limit` says: with
        ``samples_per_class=None`` those of all images.
    """

    def __init__(self, *, verified: VerifiedLabels, **settings: Any) -> None:
        known = verified.known().numpy()
        certain = known >= 0
        self._beside: LabeledImages | None = None  # images outside the training set whose right label is known
        self._doubtful = np.empty(0, dtype=np.int64)  # rows that are in no pool, or in that of another label
        if verified.rows is not None:
            rows = verified.rows.numpy()
            settings["fixed"] = rows[certain], known[certain]
            self._doubtful = rows
        elif verified.images is not None and certain.any():
            self._beside = verified.images.subset(torch.from_numpy(np.flatnonzero(certain)))
        self._known = known[certain]
        super().__init__(**settings)

    def _select(self, model: nn.Module, bank: pe.FeatureBank, given: np.ndarray, seed: int) -> pe.Prototypes:
        """The pools are drawn here and put together as a small bank, in which the known rows are candidates."""
        others = np.setdiff1d(np.arange(len(given)), self._doubtful)
        known_rows = self.fixed[0] if self.fixed is not None else len(given) + np.arange(len(self._known))
        rows, labels, is_known = draw_pools(
            known_rows, self._known, others, given[others], self.num_classes, self.selection["samples_per_class"], seed
        )
        inside = rows < len(given)
        pool = np.empty((len(rows), bank.shape[1]), dtype=bank.dtype)
        pool[inside] = bank.rows(rows[inside])
        if self._beside is not None:
            beside = self._beside.subset(torch.from_numpy(rows[~inside] - len(given)))
            if len(beside):
                pool[~inside] = self._extract(model, beside, "extracting features of verified images")[0].array
        candidates = is_known if is_known.any() else None  # only wrong ones are known: the others are all alike
        prototypes = self._pick(pool, labels, seed, candidates=candidates, samples_per_class=None)
        return replace(prototypes, indices=np.where(prototypes.indices < 0, -1, rows[prototypes.indices]))


def draw_pools(
    known_rows: np.ndarray,
    known_labels: np.ndarray,
    other_rows: np.ndarray,
    other_labels: np.ndarray,
    num_classes: int,
    samples_per_class: int | None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pool of each class: rows whose label is known first, others to top it up, without replacement.

    Parameters
    ----------
    known_rows, known_labels : ndarray, int64 [K]
    other_rows, other_labels : ndarray, int64 [M]
    num_classes : int
    samples_per_class : int or None
        None takes all.
    seed : int

    Returns
    -------
    rows, labels : ndarray, int64 [P]
        Of all pools together, those of class 0 first.
    is_known : ndarray, bool [P]
    """
    pools = []
    for c in range(num_classes):
        rng = np.random.default_rng([seed, c])
        first = _at_most(known_rows[known_labels == c], samples_per_class, rng)
        left = None if samples_per_class is None else samples_per_class - len(first)
        pools.append((first, _at_most(other_rows[other_labels == c], left, rng)))
    rows = np.concatenate([part for pool in pools for part in pool])
    labels = np.repeat(np.arange(num_classes), [len(first) + len(rest) for first, rest in pools])
    is_known = np.concatenate([np.arange(len(first) + len(rest)) < len(first) for first, rest in pools])
    return rows, labels, is_known


def _at_most(rows: np.ndarray, count: int | None, rng: np.random.Generator) -> np.ndarray:
    return rows if count is None or count >= len(rows) else np.sort(rng.choice(rows, count, replace=False))
