"""Clean images: after the last epoch of any method, fine-tuning on labels that are known to be right."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import proto_engine as pe

from ..config import TrainConfig, tenth_each_third
from ..correction import CorrectionPhase
from ..data import LabeledImages, Splits
from ..errors import ConfigError
from .base import Method, Network
from .label_files import class_number, read_image_lines
from .verified import VerifiedLabels, from_data_set

logger = logging.getLogger(__name__)

_FINE_TUNES = "fine_tunes"


@dataclass(frozen=True)
class CleanImages:
    """Images whose labels are right.

    Attributes
    ----------
    images : LabeledImages
        With the right labels as given ones.
    verified : VerifiedLabels or None
        What they tell about the labels that the training set gives to such images.
    """

    images: LabeledImages
    verified: VerifiedLabels | None

    def sha256(self) -> str:
        """Of the labels and of what is known about which images they belong to."""
        content = hashlib.sha256(self.images.given.numpy().tobytes())
        if self.verified is not None and self.verified.rows is not None:
            content.update(self.verified.rows.numpy().tobytes())
        return content.hexdigest()


def find_clean(config: TrainConfig, splits: Splits, train_set: LabeledImages) -> CleanImages | None:
    """The clean images of a run: from the file `config.clean`, or those that the data set comes with.

    Raises
    ------
    ConfigError
        The data set has none; from `read_clean`.
    """
    if config.clean is None:
        return None
    if isinstance(config.clean, Path):
        clean = read_clean(config.clean, train_set)
    elif splits.clean is None:
        raise ConfigError(f"clean must be a file: {config.data} comes without clean training images")
    else:  # verified labels of the data set know nothing of noise that was added to it
        checked = splits.verified if config.noise is None else None
        clean = CleanImages(splits.clean, None if checked is None else from_data_set(checked))
    counts = torch.bincount(clean.images.given, minlength=train_set.num_classes)
    if missing := [name for name, count in zip(train_set.class_names, counts.tolist(), strict=True) if count == 0]:
        logger.warning("clean has no image of the classes %s: fine-tuning may unlearn them", ", ".join(missing))
    return clean


def read_clean(path: Path, dataset: LabeledImages) -> CleanImages:
    """Read a CSV file with the columns ``index,label`` or ``path,label``: the right label, by name or by number.

    Raises
    ------
    ConfigError
        From `read_image_lines`; a label outside the classes; no line at all.
    """
    lines = read_image_lines(path, dataset, argument="clean", column="label")
    if not lines:
        raise ConfigError(f"clean must name at least one image, {path} names none")
    rows = torch.tensor([line.row for line in lines], dtype=torch.int64)
    labels = [class_number(line.columns["label"], dataset, argument="clean", where=line.where) for line in lines]
    truth = torch.tensor(labels, dtype=torch.int64)
    images = dataset.subset(rows).with_noise(truth)
    images.truth = truth
    return CleanImages(images, VerifiedLabels(truth == dataset.given[rows], rows=rows, truth=truth))


class CleanFineTuning(Method):
    """Another method, and after its last epoch cross-entropy on clean images.

    What is fine-tuned is the network that the method would have given to a user: for meta-learning the
    teacher, whose weights the student takes over. It starts at a tenth of the learning rate, divided by 10
    after each third of the epochs, with the optimizer's momentum forgotten. The labels that the method has
    found stay.

    Parameters
    ----------
    method : Method
    clean : LabeledImages
        Given labels are the right ones.
    first_epoch : int
        The first epoch of fine-tuning, counted from 0.
    epochs : int
        So many epochs of fine-tuning.
    """

    def __init__(self, method: Method, clean: LabeledImages, *, first_epoch: int, epochs: int) -> None:
        self.method = method
        self.clean = clean
        self.first_epoch = first_epoch
        self.epochs = epochs
        self._fine_tunes = False

    def before_epoch(self, model: nn.Module, dataset: LabeledImages, epoch: int) -> CorrectionPhase | None:
        """See `Method.before_epoch`."""
        self._fine_tunes = epoch >= self.first_epoch
        if epoch == self.first_epoch:
            logger.info("epoch %d: fine-tuning on %d clean images begins", epoch, len(self.clean))
        return None if self._fine_tunes else self.method.before_epoch(model, dataset, epoch)

    def begins_afresh(self, epoch: int) -> bool:
        """See `Method.begins_afresh`."""
        return epoch < self.first_epoch and self.method.begins_afresh(epoch)

    def takes_over(self, epoch: int) -> bool:
        """In the first epoch of fine-tuning."""
        return epoch == self.first_epoch

    def lr_at(self, config: TrainConfig, epoch: int) -> float:
        """That of the method, then a tenth of the first one, and less after each third."""
        if epoch < self.first_epoch:
            return self.method.lr_at(config, epoch)
        return tenth_each_third(config.lr / 10, epoch - self.first_epoch, self.epochs)

    def images(self, dataset: LabeledImages) -> LabeledImages:
        """The clean images while fine-tuning."""
        return self.clean if self._fine_tunes else self.method.images(dataset)

    def batch_loss(self, model: nn.Module, images: Tensor, given: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """See `Method.batch_loss`."""
        if not self._fine_tunes:
            return self.method.batch_loss(model, images, given, index)
        logits = model(images)
        return F.cross_entropy(logits, given), logits

    def after_epoch(self, model: nn.Module, dataset: LabeledImages, epoch: int) -> None:
        """See `Method.after_epoch`."""
        if not self._fine_tunes:
            self.method.after_epoch(model, dataset, epoch)

    def evaluated(self, model: Network) -> Network:
        """The fine-tuned network, once there is one."""
        return model if self._fine_tunes else self.method.evaluated(model)

    def training_labels(self, dataset: LabeledImages) -> Tensor:
        """Of the method."""
        return self.method.training_labels(dataset)

    def suggestions(self, model: nn.Module, dataset: LabeledImages) -> pe.Corrections | None:
        """Of the method."""
        return self.method.suggestions(model, dataset)

    def state_dict(self) -> dict[str, Tensor]:
        """The method's, and whether fine-tuning has begun."""
        return {**self.method.state_dict(), _FINE_TUNES: torch.tensor(self._fine_tunes)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See `Method.load_state_dict`."""
        self._fine_tunes = bool(state[_FINE_TUNES])
        self.method.load_state_dict({name: tensor for name, tensor in state.items() if name != _FINE_TUNES})
