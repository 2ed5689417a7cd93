"""The losses of the methods, each a function of logits and labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def self_learning_loss(logits: Tensor, given: Tensor, corrected: Tensor, alpha: float) -> Tensor:
    """Mean over the batch of ``(1 - alpha) * CE(logits, given) + alpha * CE(logits, corrected)``.

    Parameters
    ----------
    logits : Tensor, float [B, C]
    given : Tensor, int64 [B]
        The labels that came with the data.
    corrected : Tensor, int64 [B]
        The labels of the last correction phase.
    alpha : float in [0, 1]
        Weight of the corrected labels.

    Returns
    -------
    Tensor, float []
    """
    return (1 - alpha) * F.cross_entropy(logits, given) + alpha * F.cross_entropy(logits, corrected)


def forward_loss(logits: Tensor, given: Tensor, transition: Tensor) -> Tensor:
    """Mean over the batch of ``-log((softmax(logits) @ transition)[given])``.

    Computed from logarithms, so that neither a sure network nor a zero in the matrix gives an infinite loss.

    Parameters
    ----------
    logits : Tensor, float [B, C]
    given : Tensor, int64 [B]
    transition : Tensor, float [C, C]
        Row i, column j: the probability that an image of class i carries label j.

    Returns
    -------
    Tensor, float []
    """
    log_transition = transition.clamp_min(torch.finfo(transition.dtype).tiny).log()
    joint = F.log_softmax(logits, dim=1) + log_transition.T[given]  # [B, C]: true class i and the given label
    return -torch.logsumexp(joint, dim=1).mean()
