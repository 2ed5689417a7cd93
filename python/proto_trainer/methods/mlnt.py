"""Meta-learning: a network that a step on wrong labels does not lead astray, and the teacher that it becomes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..correction import CorrectionPhase
from ..data import LabeledImages
from ..features import model_features
from ..seeding import derive_seed
from .base import Network
from .ce import CrossEntropy

_SYNTHETIC_BATCHES = 10
_NEIGHBORS = 10
_STEP = 0.02


class MetaLearning(CrossEntropy):
    """Li et al., "Learning to Learn From Noisy Labeled Data" (MLNT), CVPR 2019.

    A teacher, whose weights are a running average of the student's, is what gets tested. From `start_epoch`
    on, each batch gets ten synthetic copies: half the labels are swapped for the label of one of the ten
    nearest neighbors within the batch. The student takes one gradient step of 0.02 on each copy, apart from
    the others, and the mean divergence of the teacher's prediction from that of the stepped student is added
    to the loss. Gradients are of first order, as in the authors' code: they are taken at the stepped weights.

    Counted in epochs instead of steps: before `start_epoch` the student trains with cross-entropy alone. The
    teacher's average forgets at 0.99 up to and in epoch `start_epoch`, at 0.999 afterwards. Neighbors are
    found by the teacher's features, where the original has a third network, trained beforehand. The network
    must consist of ``features`` and ``head``, as those of `proto_trainer.models` do.

    Parameters
    ----------
    start_epoch : int
        The first epoch, counted from 0, with synthetic batches.
    seed : int
        With the epoch number it decides the swaps.
    batch_size, workers : int
        For the pass over the training images at the end.
    """

    def __init__(self, *, start_epoch: int, seed: int, batch_size: int, workers: int = 0) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        self.start_epoch = start_epoch
        self.seed = seed
        self._epoch = 0
        self._swaps = torch.Generator()
        self._teacher: Any = None  # of the student's class, once there is one
        self._saved: dict[str, Tensor] = {}  # a teacher from a checkpoint, before there is a network to give it to

    def before_epoch(self, model: nn.Module, dataset: LabeledImages, epoch: int) -> CorrectionPhase | None:
        """Make the teacher, once, and start the epoch's stream of swaps."""
        self._epoch = epoch
        self._swaps.manual_seed(derive_seed(self.seed, epoch))
        self.evaluated(model).train()
        return None

    def evaluated(self, model: Network) -> Network:
        """The teacher; at first a copy of the student."""
        if self._teacher is None:
            self._teacher = copy.deepcopy(model).requires_grad_(False)
            if self._saved:
                self._teacher.load_state_dict(self._saved)
        return self._teacher

    def batch_loss(self, model: nn.Module, images: Tensor, given: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """See `Method.batch_loss`."""
        logits = model(images)
        loss = F.cross_entropy(logits, given)
        # The teacher sees every batch in training mode: normalization layers follow its weights, not the student's.
        teacher: Any = self.evaluated(model)  # with a `head`
        self._average(teacher, model)
        with torch.no_grad():
            features = model_features(teacher, images)  # [B, D]
            wanted = teacher.head(features).softmax(dim=1)  # [B, C]
        if self._epoch >= self.start_epoch:
            loss = loss + self._consistency(model, images, given, logits, nearest_neighbors(features), wanted)
        return loss, logits

    def _average(self, teacher: nn.Module, student: nn.Module) -> None:
        keep = 0.99 if self._epoch <= self.start_epoch else 0.999
        with torch.no_grad():
            for mean, weight in zip(teacher.parameters(), student.parameters(), strict=True):
                mean.lerp_(weight, 1 - keep)

    def _consistency(
        self, model: nn.Module, images: Tensor, given: Tensor, logits: Tensor, neighbors: Tensor, wanted: Tensor
    ) -> Tensor:
        """The mean divergence of the stepped students from the teacher, float [], with its gradient.

        Each copy's gradient is taken at once, so that one copy's activations are in memory, not ten.
        """
        weights = dict(model.named_parameters())
        total = torch.zeros((), device=logits.device)
        gradients = [torch.zeros_like(weight) for weight in weights.values()]
        for _ in range(_SYNTHETIC_BATCHES):
            swapped = swap_labels(given, neighbors, self._swaps)
            steps = torch.autograd.grad(F.cross_entropy(logits, swapped), list(weights.values()), retain_graph=True)
            stepped = {
                name: (weight.detach() - _STEP * step).requires_grad_()
                for (name, weight), step in zip(weights.items(), steps, strict=True)
            }
            buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # its statistics stay its own
            answers = torch.func.functional_call(model, {**stepped, **buffers}, (images,))
            divergence = F.kl_div(F.log_softmax(answers, dim=1), wanted, reduction="batchmean")
            divergence = divergence / _SYNTHETIC_BATCHES
            for gradient, part in zip(gradients, torch.autograd.grad(divergence, list(stepped.values())), strict=True):
                gradient.add_(part)
            total = total + divergence.detach()
        return _WithGradient.apply(total, gradients, *weights.values())

    def state_dict(self) -> dict[str, Tensor]:
        """The teacher."""
        teacher = self._saved if self._teacher is None else self._teacher.state_dict()
        return {f"teacher.{name}": tensor for name, tensor in teacher.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See `Method.load_state_dict`."""
        self._teacher = None
        self._saved = {name.removeprefix("teacher."): tensor for name, tensor in state.items()}


class _WithGradient(torch.autograd.Function):
    """A value whose gradient by some weights is known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *weights: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(grad * gradient for gradient in ctx.gradients)


def nearest_neighbors(features: Tensor) -> Tensor:
    """The ten rows nearest to each row, itself left out; fewer if there are fewer. Ties go to the lowest row.

    Parameters
    ----------
    features : Tensor, float [B, D]

    Returns
    -------
    Tensor, int64 [B, min(10, B - 1)]
    """
    distances = torch.cdist(features.float(), features.float())  # [B, B]
    distances.fill_diagonal_(float("inf"))
    return distances.sort(dim=1, stable=True).indices[:, : min(_NEIGHBORS, len(features) - 1)]


def swap_labels(given: Tensor, neighbors: Tensor, generator: torch.Generator) -> Tensor:
    """A copy of the labels in which half, rounded down, are those of a random neighbor.

    Parameters
    ----------
    given : Tensor, int64 [B]
    neighbors : Tensor, int64 [B, K]
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    Tensor, int64 [B]
    """
    swapped = given.clone()
    if neighbors.shape[1]:
        rows = torch.randperm(len(given), generator=generator)[: len(given) // 2]
        columns = torch.randint(neighbors.shape[1], (len(rows),), generator=generator)
        rows, columns = rows.to(given.device), columns.to(given.device)
        swapped[rows] = given[neighbors[rows, columns]]
    return swapped
