"""Meta-learning with synthetic label noise: each part against a computation of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from proto_trainer import NoiseSpec, accuracy, cli, load_dataset, train
from proto_trainer.methods import MetaLearning, mlnt
from proto_trainer.methods.mlnt import nearest_neighbors, swap_labels
from proto_trainer.seeding import derive_seed
from test_resume import Interrupted, assert_same_outcome, last_tensors, stop_after
from torch.nn import functional as F


def test_neighbors_are_the_nearest_without_oneself():
    """Points 0, 1, 3, 7 on a line; the last two are the same point twice."""
    points = torch.tensor([[0.0], [1.0], [3.0], [7.0], [7.0]])
    neighbors = nearest_neighbors(points)
    assert neighbors[:3].tolist() == [[1, 2, 3, 4], [0, 2, 3, 4], [1, 0, 3, 4]]
    assert neighbors[3].tolist() == [4, 2, 1, 0] and neighbors[4].tolist() == [3, 2, 1, 0]
    assert nearest_neighbors(torch.randn(30, 3)).shape == (30, 10)
    assert nearest_neighbors(points[:1]).shape == (1, 0)


def test_half_the_labels_come_from_a_neighbor():
    given, neighbors = torch.arange(9), (torch.arange(9)[:, None] + torch.tensor([1, 2])) % 9
    seen = set()
    for seed in range(50):
        swapped = swap_labels(given, neighbors, torch.Generator().manual_seed(seed))
        steps = (swapped - given) % 9
        assert (steps > 0).sum() == 4 and steps.max() <= 2
        seen |= set(torch.nonzero(steps).flatten().tolist())
    assert seen == set(range(9)) and given.tolist() == list(range(9))
    assert swap_labels(given[:1], neighbors[:1, :0], torch.Generator()).tolist() == [0]


def softmax(scores):
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def test_loss_and_gradient_of_a_linear_model(clusters):
    """NumPy, float64: for a linear classifier the gradients are (softmax - target) times the features."""
    dataset, model = clusters
    with torch.no_grad():
        model.head.weight.mul_(0.1)
    method = MetaLearning(start_epoch=0, seed=5, batch_size=50)
    method.before_epoch(model, dataset, 0)
    teacher = method.evaluated(model)
    with torch.no_grad():
        teacher.head.weight.mul_(-1)  # far from the student, so that there is something to agree on
    images, given, index = dataset[list(range(16))]
    images = images / 255

    x = images.flatten(1).double().numpy()
    weight, bias = (p.detach().double().numpy().copy() for p in (model.head.weight, model.head.bias))
    teacher_weight, teacher_bias = (p.double().numpy().copy() for p in (teacher.head.weight, teacher.head.bias))
    teacher_weight, teacher_bias = 0.99 * teacher_weight + 0.01 * weight, 0.99 * teacher_bias + 0.01 * bias
    wanted = softmax(x @ teacher_weight.T + teacher_bias)
    one_hot, chances = np.eye(4), softmax(x @ weight.T + bias)
    loss = -np.log(chances[np.arange(16), given.numpy()]).mean()
    gradient = (chances - one_hot[given.numpy()]).T @ x / 16
    swaps = torch.Generator().manual_seed(derive_seed(5, 0))
    neighbors = nearest_neighbors(images.flatten(1))
    for _ in range(10):
        target = one_hot[swap_labels(given, neighbors, swaps).numpy()]
        stepped = weight - 0.02 * (chances - target).T @ x / 16
        stepped_bias = bias - 0.02 * (chances - target).mean(axis=0)
        answer = softmax(x @ stepped.T + stepped_bias)
        loss += (wanted * np.log(wanted / answer)).sum() / 16 / 10
        gradient += (answer - wanted).T @ x / 16 / 10

    computed, logits = method.batch_loss(model, images, given, index)
    computed.backward()
    assert computed.item() == pytest.approx(loss, rel=1e-4)
    np.testing.assert_allclose(model.head.weight.grad.numpy(), gradient, atol=1e-5)
    np.testing.assert_allclose(logits.detach().softmax(dim=1).numpy(), chances, atol=1e-5)


def test_teacher_is_a_running_average(clusters):
    """It forgets at 0.99 up to and in the start epoch, then at 0.999; before that there is cross-entropy alone."""
    dataset, model = clusters
    batch = dataset[list(range(8))]
    method = MetaLearning(start_epoch=1, seed=0, batch_size=50)
    wanted = model.head.bias.detach().double().clone()
    for epoch, keep in [(0, 0.99), (1, 0.99), (2, 0.999)]:
        method.before_epoch(model, dataset, epoch)
        for _ in range(2):
            with torch.no_grad():
                model.head.bias.add_(1.0)
            wanted = keep * wanted + (1 - keep) * model.head.bias.detach().double()
            loss, logits = method.batch_loss(model, *batch)
            assert (loss.item() == F.cross_entropy(logits, batch[1]).item()) == (epoch == 0)
    torch.testing.assert_close(method.evaluated(model).head.bias, wanted.float())
    assert not method.evaluated(model).head.bias.requires_grad


def test_synthetic_batches_leave_the_students_statistics_alone(digits_config):
    """One batch moves the running mean once, not eleven times."""
    model = train(digits_config(method="ce", epochs=1, start_epoch=0)).model
    dataset = load_dataset("digits").train
    images, given, index = dataset[list(range(32))]
    method = MetaLearning(start_epoch=0, seed=0, batch_size=50)
    method.before_epoch(model, dataset, 0)
    before = model.backbone[1].num_batches_tracked.item()
    model.train()
    method.batch_loss(model, images, given, index)
    assert model.backbone[1].num_batches_tracked.item() == before + 1
    assert method.evaluated(model).backbone[1].num_batches_tracked.item() == before + 1


def test_mlnt_resumes_to_the_same_bits_on_digits(digits_config, tmp_path, monkeypatch):
    """Stops before the first synthetic batches, and after them; there are fewer, to save time."""
    monkeypatch.setattr(mlnt, "_SYNTHETIC_BATCHES", 3)
    settings = {"method": "mlnt", "epochs": 3, "noise": NoiseSpec("symmetric", 0.4), "batch_size": 128}
    straight = train(digits_config(out=tmp_path / "straight", **settings))
    config = digits_config(out=tmp_path / "broken", **settings)
    for stop in (0, 1):
        with pytest.raises(Interrupted):
            train(config, resume=stop > 0, on_epoch=stop_after(stop))
    train(config, resume=True)
    assert_same_outcome(tmp_path / "straight", tmp_path / "broken")
    # the teacher is what was tested and what is returned
    tensors = last_tensors(config.out)
    assert torch.equal(tensors["method/teacher.head.weight"], straight.model.head.weight)
    assert not torch.equal(tensors["model/head.weight"], straight.model.head.weight)
    tested = accuracy(straight.model, load_dataset("digits").test)
    assert straight.rows[-1]["test_accuracy"] == tested
    again = train(config, resume=True)  # nothing left to do: the teacher comes out of the checkpoint
    assert torch.equal(again.model.head.weight, straight.model.head.weight)


def test_mlnt_runs_from_the_command_line(tmp_path):
    command = "--data digits --device cpu --epochs 2 --start-epoch 1 --batch-size 128 --method mlnt --out"
    assert cli.main([*command.split(), str(tmp_path)]) == 0
    assert (tmp_path / "corrected.parquet").exists()
