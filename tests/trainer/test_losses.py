"""The self-learning loss against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from proto_trainer import self_learning_loss

# Softmax of the rows: (1/2, 1/2) and (3/4, 1/4).
LOGITS = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
GIVEN = torch.tensor([0, 1])  # cross-entropies ln 2 and ln 4
CORRECTED = torch.tensor([1, 0])  # cross-entropies ln 2 and ln 4/3


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_self_learning_loss_equals_hand_computed(alpha):
    given = (math.log(2) + math.log(4)) / 2
    corrected = (math.log(2) + math.log(4 / 3)) / 2
    loss = self_learning_loss(LOGITS, GIVEN, CORRECTED, alpha)
    assert loss.item() == pytest.approx((1 - alpha) * given + alpha * corrected, rel=1e-6)


def test_self_learning_loss_gradient_pulls_to_the_mixed_target():
    """d loss / d logits is (softmax - target) / B, the target being the mix of both one-hot labels."""
    logits = LOGITS.clone().requires_grad_()
    self_learning_loss(logits, GIVEN, CORRECTED, 0.25).backward()
    target = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    torch.testing.assert_close(logits.grad, (LOGITS.softmax(dim=1) - target) / 2)
