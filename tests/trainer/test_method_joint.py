"""Joint optimization of network and labels against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from proto_trainer import ConfigError, NoiseSpec, cli, make_config, train
from proto_trainer.losses import joint_loss, soft_cross_entropy
from proto_trainer.methods import JointOptimization
from test_resume import Interrupted, assert_same_outcome, last_tensors, stop_after

# Softmax of the rows: (1/2, 1/2) and (3/4, 1/4).
LOGITS = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
SOFT = torch.tensor([[0.2, 0.8], [1.0, 0.0]])
CROSS_ENTROPY = (math.log(2) + math.log(4 / 3)) / 2


def test_soft_cross_entropy_equals_hand_computed():
    assert soft_cross_entropy(LOGITS, SOFT).item() == pytest.approx(CROSS_ENTROPY, rel=1e-6)


def test_joint_loss_equals_hand_computed():
    """The mean softmax is (5/8, 3/8), the prior (1/4, 3/4)."""
    divergence = 0.25 * math.log(0.25 / 0.625) + 0.75 * math.log(0.75 / 0.375)
    entropy = (math.log(2) + 0.75 * math.log(4 / 3) + 0.25 * math.log(4)) / 2
    loss = joint_loss(LOGITS, SOFT, torch.tensor([0.25, 0.75]), 1.2, 0.8)
    assert loss.item() == pytest.approx(CROSS_ENTROPY + 1.2 * divergence + 0.8 * entropy, rel=1e-6)


def test_joint_loss_stays_finite():
    """A class without images, and a network that gives another one to nobody."""
    logits = torch.tensor([[300.0, -300.0, 0.0]], requires_grad=True)
    loss = joint_loss(logits, torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([0.5, 0.5, 0.0]), 1.2, 0.8)
    loss.backward()
    assert math.isfinite(loss.item()) and torch.isfinite(logits.grad).all()


def run_epoch(method, model, dataset, epoch):
    """One epoch without a step of the optimizer, in shuffled order; the softmax of all images, [N, C]."""
    method.before_epoch(model, dataset, epoch)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(epoch))
    with torch.no_grad():
        model.head.bias.copy_(torch.arange(4.0) * epoch)  # another softmax each time
        losses = [method.batch_loss(model, *dataset[rows.tolist()])[0].item() for rows in order.split(50)]
        method.after_epoch(model, dataset, epoch)
        chances = torch.softmax(model(dataset[list(range(len(dataset)))][0]), dim=1).numpy()
    return chances, losses


def test_soft_labels_are_the_mean_of_the_last_ten_epochs(clusters):
    dataset, model = clusters
    method = JointOptimization(num_classes=4, start_epoch=3, epochs=25)  # the second step begins with epoch 14
    seen = []
    for epoch in range(14):
        chances, _ = run_epoch(method, model, dataset, epoch)
        if epoch < 3:
            assert (method.training_labels(dataset) == dataset.given).all() and "soft" not in method.state_dict()
        else:
            wanted = np.mean(seen[-10:], axis=0)  # of the epochs before this one, in data set order
            np.testing.assert_allclose(method.state_dict()["soft"].numpy(), wanted, atol=1e-6)
            assert (method.training_labels(dataset).numpy() == wanted.argmax(axis=1)).all()
        seen.append(chances)
    chances, losses = run_epoch(method, model, dataset, 14)
    wanted = np.mean(seen[-10:], axis=0)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(14)).numpy()[:50]
    plain = -(wanted[order] * np.log(chances[order])).sum(axis=1).mean()
    assert losses[0] == pytest.approx(plain, rel=1e-4)  # cross-entropy alone
    assert method.state_dict().keys() == {"soft"}
    frozen = method.state_dict()["soft"].clone()
    run_epoch(method, model, dataset, 15)
    assert torch.equal(method.state_dict()["soft"], frozen)
    suggested = method.suggestions(model, dataset)
    best = np.sort(wanted, axis=1)[:, ::-1]
    assert (suggested.labels == wanted.argmax(axis=1)).all() and (suggested.given == dataset.given.numpy()).all()
    np.testing.assert_allclose(suggested.score, best[:, 0], atol=1e-6)
    np.testing.assert_allclose(suggested.margin, best[:, 0] - best[:, 1], atol=1e-6)
    assert (suggested.changed == (suggested.labels != dataset.given.numpy())).all()


def test_second_step_begins_afresh_with_a_rate_of_its_own(tmp_path):
    config = make_config("digits", tmp_path, method="joint", epochs=16, start_epoch=4, lr=0.5)
    method = JointOptimization(num_classes=10, start_epoch=4, epochs=16)
    assert [epoch for epoch in range(16) if method.begins_afresh(epoch)] == [10]
    rates = [method.lr_at(config, epoch) for epoch in range(16)]
    assert rates == pytest.approx([0.5] * 10 + [0.5, 0.5, 0.05, 0.05, 0.005, 0.005])


def test_second_step_forgets_the_first_network(digits_config, tmp_path, monkeypatch):
    """Training without steps leaves the second network as it was made: other weights than the first one's."""
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: None)
    second = train(digits_config(method="joint", epochs=3)).model.head.weight.detach()
    first = train(digits_config(method="ce", epochs=3, out=tmp_path / "other")).model.head.weight.detach()
    assert not torch.equal(first, second)
    assert second.std().item() == pytest.approx(first.std().item(), rel=0.2)


@pytest.mark.parametrize("stops", [[0], [1], [2, 3]])
def test_joint_resumes_to_the_same_bits_on_digits(digits_config, tmp_path, stops):
    """Stops before the soft labels, between the steps (the second begins with epoch 3), and within the second."""
    settings = {"method": "joint", "epochs": 5, "noise": NoiseSpec("symmetric", 0.4)}
    train(digits_config(out=tmp_path / "straight", **settings))
    config = digits_config(out=tmp_path / "broken", **settings)
    for stop in stops:
        with pytest.raises(Interrupted):
            train(config, resume=stop != stops[0], on_epoch=stop_after(stop))
    train(config, resume=True)
    assert_same_outcome(tmp_path / "straight", tmp_path / "broken")
    assert last_tensors(config.out)["method/soft"].shape == (1347, 10)


def test_finished_joint_run_gives_its_labels_again(digits_config):
    config = digits_config(method="joint", epochs=3, noise=NoiseSpec("symmetric", 0.4))
    train(config)
    before = pd.read_parquet(config.out / "corrected.parquet")
    (config.out / "corrected.parquet").unlink()
    train(config, resume=True)
    pd.testing.assert_frame_equal(pd.read_parquet(config.out / "corrected.parquet"), before)


def test_joint_runs_from_the_command_line(tmp_path):
    command = ["--data", "digits", "--device", "cpu", "--epochs", "3", "--method", "joint", "--out", str(tmp_path)]
    assert cli.main(command) == 0
    assert len(pd.read_csv(tmp_path / "epochs.csv")) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start_epoch": 0}, "start_epoch must be 1 or more with method joint"),
        ({"epochs": 2}, r"epochs must be at least start_epoch \+ 2 with method joint: 3, got 2"),
        ({"prior_weight": -1.0}, "prior_weight must be a finite number"),
        ({"entropy_weight": math.nan}, "entropy_weight must be a finite number"),
    ],
)
def test_joint_refuses_settings_that_cannot_work(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_config("digits", tmp_path, method="joint", **settings)
