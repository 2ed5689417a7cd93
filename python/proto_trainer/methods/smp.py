"""Self-learning with multi-prototypes: train, correct the labels, train on both, correct again."""

from __future__ import annotations

from torch import Tensor, nn

from ..correction import CorrectionPhase, LabelCorrector
from ..data import LabeledImages
from .base import Method


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
