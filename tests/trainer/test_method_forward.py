"""Forward loss correction against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from proto_trainer import ConfigError, NoiseSpec, cli, make_config, train
from proto_trainer.losses import forward_loss
from proto_trainer.methods import ForwardCorrection
from proto_trainer.methods.forward import estimate_transition
from test_resume import Interrupted, assert_same_outcome, last_tensors, stop_after
from torch.nn import functional as F


def test_forward_loss_equals_hand_computed():
    """Softmax rows (1/2, 1/2) and (3/4, 1/4), T = ((0.9, 0.1), (0.4, 0.6)), labels 0 and 1."""
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    transition = torch.tensor([[0.9, 0.1], [0.4, 0.6]])
    wanted = -(math.log(0.5 * 0.9 + 0.5 * 0.4) + math.log(0.75 * 0.1 + 0.25 * 0.6)) / 2
    assert forward_loss(logits, torch.tensor([0, 1]), transition).item() == pytest.approx(wanted, rel=1e-6)


def test_forward_loss_with_the_identity_is_cross_entropy():
    logits, given = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 5
    torch.testing.assert_close(forward_loss(logits, given, torch.eye(5)), F.cross_entropy(logits, given))


def test_forward_loss_stays_finite():
    """A network that is sure of a class which, by T, never carries this label."""
    logits = torch.tensor([[500.0, -500.0]], requires_grad=True)
    loss = forward_loss(logits, torch.tensor([1]), torch.eye(2))
    loss.backward()
    assert math.isfinite(loss.item()) and torch.isfinite(logits.grad).all()


def test_transition_skips_the_outliers_of_each_column():
    """100 images of two classes: the three or so largest values of a column are skipped.

    Column 0 holds 0.00 to 0.99 in mixed order: its 97th percentile, taken upward, is 0.97, the surest image
    below it has 0.96. Column 1 is 1 minus column 0, so 0.01 to 1.00: percentile 0.98, surest image below 0.97.
    """
    first = (np.arange(100) * 37 % 100) / 100
    probabilities = np.stack([first, 1 - first], axis=1)
    before = probabilities.copy()
    np.testing.assert_allclose(estimate_transition(probabilities), [[0.96, 0.04], [0.03, 0.97]], atol=1e-12)
    assert (probabilities == before).all()


def test_transition_of_a_network_that_knows_nothing_is_uniform():
    np.testing.assert_allclose(estimate_transition(np.full((7, 4), 0.25)), np.full((4, 4), 0.25))


def test_transition_rows_sum_to_one():
    rows = np.random.default_rng(0).dirichlet(np.ones(4), size=50).astype(np.float32)
    np.testing.assert_allclose(estimate_transition(rows).sum(axis=1), 1, atol=1e-12)


def test_method_changes_its_loss_at_the_start_epoch(clusters):
    dataset, model = clusters
    method = ForwardCorrection(start_epoch=1, batch_size=50)
    images, given, index = dataset[list(range(12))]
    method.before_epoch(model, dataset, 0)
    loss, logits = method.batch_loss(model, images, given, index)
    assert loss.item() == F.cross_entropy(logits, given).item()
    assert method.state_dict() == {}
    method.before_epoch(model, dataset, 1)
    transition = method.state_dict()["transition"]
    loss, logits = method.batch_loss(model, images, given, index)
    chances = (logits.softmax(dim=1) @ transition).detach().numpy()
    wanted = -np.log(chances[np.arange(12), given.numpy()]).mean()
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    with torch.no_grad():
        model.head.weight.mul_(-1)  # T is estimated once, whatever becomes of the network
    method.before_epoch(model, dataset, 2)
    assert torch.equal(method.state_dict()["transition"], transition)


@pytest.mark.parametrize("stop", [0, 1])
def test_forward_resumes_to_the_same_bits_on_digits(digits_config, tmp_path, stop):
    settings = {"method": "forward", "epochs": 3, "noise": NoiseSpec("symmetric", 0.4)}
    train(digits_config(out=tmp_path / "straight", **settings))
    config = digits_config(out=tmp_path / "broken", **settings)
    with pytest.raises(Interrupted):
        train(config, on_epoch=stop_after(stop))
    train(config, resume=True)
    assert_same_outcome(tmp_path / "straight", tmp_path / "broken")
    assert last_tensors(config.out)["method/transition"].shape == (10, 10)


def test_forward_runs_from_the_command_line(tmp_path):
    """Two epochs: by default one plain, one corrected."""
    command = ["--data", "digits", "--device", "cpu", "--epochs", "2", "--method", "forward", "--out", str(tmp_path)]
    assert cli.main(command) == 0
    assert "method/transition" in last_tensors(tmp_path)


def test_forward_needs_a_trained_network(tmp_path):
    with pytest.raises(ConfigError, match="start_epoch must be 1 or more with method forward"):
        make_config("digits", tmp_path, method="forward", start_epoch=0)
