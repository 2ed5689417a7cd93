"""What a training method is: a few hooks that the loop calls."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

import proto_engine as pe

from ..config import TrainConfig
from ..correction import CorrectionPhase
from ..data import LabeledImages

Network = TypeVar("Network", bound=nn.Module)


class Method:
    """One way to learn from noisy labels. A subclass overrides the hooks it needs.

    The loop calls, in this order: `takes_over`; `before_epoch`; `begins_afresh`, `images` and `lr_at`;
    `batch_loss` for every batch; `after_epoch`; and once, after the last epoch, `suggestions`. What must
    survive an interruption goes into `state_dict`.
    """

    def takes_over(self, epoch: int) -> bool:
        """Whether this epoch goes on with the network of `evaluated`, and an optimizer that knows nothing."""
        return False

    def before_epoch(self, model: nn.Module, dataset: LabeledImages, epoch: int) -> CorrectionPhase | None:
        """Prepare an epoch. A method that corrects labels returns the phase that it ran."""
        return None

    def begins_afresh(self, epoch: int) -> bool:
        """Whether this epoch trains a new network, with weights and an optimizer that know nothing."""
        return False

    def images(self, dataset: LabeledImages) -> LabeledImages:
        """What this epoch trains on; `dataset` is the training set."""
        return dataset

    def lr_at(self, config: TrainConfig, epoch: int) -> float:
        """The learning rate of an epoch: a function of its arguments alone."""
        return config.lr_at(epoch)

    def batch_loss(self, model: nn.Module, images: Tensor, given: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The loss to take the gradient of, float [], and the class logits, float [B, C].

        Parameters
        ----------
        model : nn.Module
            In training mode.
        images : Tensor, float [B, K, H, W]
        given : Tensor, int64 [B]
        index : Tensor, int64 [B]
            Positions in the data set that `images` gives.
        """
        raise NotImplementedError

    def after_epoch(self, model: nn.Module, dataset: LabeledImages, epoch: int) -> None:
        """Finish an epoch, before the network is tested."""

    def evaluated(self, model: Network) -> Network:
        """The network that is tested and that a user gets: the one that is trained, or one made from it."""
        return model

    def training_labels(self, dataset: LabeledImages) -> Tensor:
        """The method's present opinion of all labels, int64 [N]; the given ones if it has no other."""
        return dataset.given

    def suggestions(self, model: nn.Module, dataset: LabeledImages) -> pe.Corrections | None:
        """What the method suggests after training; None if it has reported its labels as phases.

        `model` is the network that `evaluated` gives.
        """
        return None

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run needs to go on."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up a `state_dict`; tensors are already on the device of the model."""
