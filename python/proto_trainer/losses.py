"""The loss of self-learning: one part listens to the given label, the other to the corrected one."""

from __future__ import annotations

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
