"""Joint optimization: the network and the labels learn from each other, then a second network from the labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import proto_engine as pe

from ..config import TrainConfig, tenth_each_third
from ..correction import CorrectionPhase
from ..data import LabeledImages
from ..losses import joint_loss, soft_cross_entropy
from .base import Method

# A soft label is the mean of what the network gave for the image in so many epochs.
_EPOCHS_REMEMBERED = 10


class JointOptimization(Method):
    """Tanaka et al., "Joint Optimization Framework for Learning with Noisy Labels", CVPR 2018.

    Both steps of the original are one run of `epochs` epochs. Step 1: up to `start_epoch` the network trains
    on the given labels; from then on on soft labels, renewed at the start of each epoch as the mean softmax
    of the last 10 epochs, as seen while training. Its learning rate stays as high as it starts, which keeps
    the network from memorizing. Step 2 takes the second half of the epochs after `start_epoch`: a fresh
    network learns the final soft labels with plain cross-entropy, its learning rate divided by 10 after each
    third of its epochs. (The original's proportions, 70 of 200 epochs and then 120, are nearly these.)

    Parameters
    ----------
    num_classes : int
    start_epoch : int
        The first epoch, counted from 0, with soft labels; 1 or more.
    epochs : int
        At least `start_epoch` + 2.
    prior_weight, entropy_weight : float
        Weights in `joint_loss`. The paper has 1.2 and 0.8 for symmetric noise, 0.8 and 0.4 for asymmetric
        noise, 2.4 and 0.8 for Clothing1M. The prior is the share of each class among the given labels.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        start_epoch: int,
        epochs: int,
        prior_weight: float = 1.2,
        entropy_weight: float = 0.8,
    ) -> None:
        self.num_classes = num_classes
        self.start_epoch = start_epoch
        self.second_step = (start_epoch + epochs) // 2
        self.epochs = epochs
        self.prior_weight = prior_weight
        self.entropy_weight = entropy_weight
        self._prior = torch.empty(0)  # [C]
        self._epoch = 0
        # On the CPU: the memory is ten times as large as the soft labels, and each batch needs a few rows.
        self._seen = torch.empty(0)  # [N, C], softmax of the epoch that is going on
        self._memory = torch.empty(0)  # [up to 10, N, C], of the epochs before, the oldest first
        self._soft: Tensor | None = None  # [N, C]

    def before_epoch(self, model: nn.Module, dataset: LabeledImages, epoch: int) -> CorrectionPhase | None:
        """Renew the soft labels; forget what they were made from when the second step begins."""
        self._epoch = epoch
        self._prior = torch.bincount(dataset.given, minlength=self.num_classes) / len(dataset)
        if self.start_epoch <= epoch <= self.second_step:
            self._soft = self._memory.mean(dim=0)
        if epoch < self.second_step:
            self._seen = torch.zeros(len(dataset), self.num_classes)
        else:
            self._seen, self._memory = torch.empty(0), torch.empty(0)
        return None

    def begins_afresh(self, epoch: int) -> bool:
        """At the second step."""
        return epoch == self.second_step

    def lr_at(self, config: TrainConfig, epoch: int) -> float:
        """Constant in the first step; divided by 10 after each third of the second."""
        if epoch < self.second_step:
            return config.lr
        return tenth_each_third(config.lr, epoch - self.second_step, self.epochs - self.second_step)

    def batch_loss(self, model: nn.Module, images: Tensor, given: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """See `Method.batch_loss`."""
        logits = model(images)
        rows = index.cpu()
        if self._soft is None:
            soft = F.one_hot(given, self.num_classes).to(logits.dtype)
        else:
            soft = self._soft[rows].to(logits.device, logits.dtype)
        if self._epoch >= self.second_step:
            return soft_cross_entropy(logits, soft), logits
        self._seen[rows] = logits.detach().float().softmax(dim=1).cpu()
        prior = self._prior.to(logits.device, logits.dtype)
        return joint_loss(logits, soft, prior, self.prior_weight, self.entropy_weight), logits

    def after_epoch(self, model: nn.Module, dataset: LabeledImages, epoch: int) -> None:
        """Remember the epoch's softmax."""
        if epoch < self.second_step:
            memory = self._memory.reshape(-1, len(dataset), self.num_classes)
            self._memory = torch.cat([memory, self._seen[None]])[-_EPOCHS_REMEMBERED:]

    def training_labels(self, dataset: LabeledImages) -> Tensor:
        """The most likely class of each soft label, once there are any."""
        return dataset.given if self._soft is None else self._soft.argmax(dim=1)

    def suggestions(self, model: nn.Module, dataset: LabeledImages) -> pe.Corrections | None:
        """The final soft labels; score is the share of the most likely class, margin its lead over the second."""
        assert self._soft is not None  # the second step has run
        top = self._soft.topk(2, dim=1)
        labels, given = self._soft.argmax(dim=1).numpy(), dataset.given.numpy()
        score, second = top.values.numpy().T
        return pe.Corrections(labels=labels, given=given, score=score, margin=score - second, changed=labels != given)

    def state_dict(self) -> dict[str, Tensor]:
        """The soft labels, and in the first step what the next ones are made from."""
        state = {} if self._soft is None else {"soft": self._soft}
        return {**state, "memory": self._memory} if len(self._memory) else state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See `Method.load_state_dict`."""
        self._soft = state["soft"].cpu() if "soft" in state else None
        self._memory = state["memory"].cpu() if "memory" in state else torch.empty(0)
