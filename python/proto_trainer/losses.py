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


def soft_cross_entropy(logits: Tensor, soft: Tensor) -> Tensor:
    """Mean over the batch of ``-sum_c soft_c log softmax(logits)_c``.

    Parameters
    ----------
    logits : Tensor, float [B, C]
    soft : Tensor, float [B, C]
        A distribution over the classes for each image.

    Returns
    -------
    Tensor, float []
    """
    return -(soft * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def joint_loss(logits: Tensor, soft: Tensor, prior: Tensor, prior_weight: float, entropy_weight: float) -> Tensor:
    """``soft_cross_entropy + prior_weight * KL(prior, mean softmax) + entropy_weight * mean entropy``.

    The second term keeps the network from giving all images the same class, the third makes it decide.

    Parameters
    ----------
    logits : Tensor, float [B, C]
    soft : Tensor, float [B, C]
    prior : Tensor, float [C]
        The share of each class; a class with share 0 adds nothing.
    prior_weight, entropy_weight : float

    Returns
    -------
    Tensor, float []
    """
    log_chances = F.log_softmax(logits, dim=1)
    chances = log_chances.exp()
    mean = chances.mean(dim=0).clamp_min(torch.finfo(chances.dtype).tiny)  # [C]
    divergence = (torch.xlogy(prior, prior) - prior * mean.log()).sum()
    entropy = -(chances * log_chances).sum(dim=1).mean()
    return soft_cross_entropy(logits, soft) + prior_weight * divergence + entropy_weight * entropy


def weighted_cross_entropy(logits: Tensor, given: Tensor, weights: Tensor) -> Tensor:
    """Mean over the batch of ``weights * CE(logits, given)``; the weights are not normalized.

    Parameters
    ----------
    logits : Tensor, float [B, C]
    given : Tensor, int64 [B]
    weights : Tensor, float [B]

    Returns
    -------
    Tensor, float []
    """
    return (weights * F.cross_entropy(logits, given, reduction="none")).mean()


def cleannet_loss(cosine: Tensor, right: Tensor, unit: Tensor, restored: Tensor) -> Tensor:
    """Mean of ``1 - cosine`` for right labels, ``5 max(0, cosine - 0.1)`` for wrong ones, and 0.1 times the
    squared error of the auto-encoder.

    Parameters
    ----------
    cosine : Tensor, float [B]
        Of an image's embedding with that of the class of its label.
    right : Tensor, bool [B]
    unit, restored : Tensor, float [B, D]
        What went into the auto-encoder, and what came out.

    Returns
    -------
    Tensor, float []
    """
    fit = torch.where(right, 1 - cosine, 5 * (cosine - 0.1).clamp_min(0))
    return (fit + 0.1 * (unit - restored).square().sum(dim=1)).mean()
