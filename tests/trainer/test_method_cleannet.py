"""CleanNet against numbers worked out by hand, and the files that verified labels come from."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from proto_trainer import ConfigError, NoiseSpec, add_noise, cli, load_dataset, train
from proto_trainer.config import VERIFIED_METHODS
from proto_trainer.losses import cleannet_loss, weighted_cross_entropy
from proto_trainer.methods import CleanNet, VerifiedLabels, build_method, cleannet_net, find_verified, read_verified
from proto_trainer.methods.cleannet_net import FitNetwork, class_centers, fit_of_labels, train_fit_network
from proto_trainer.seeding import derive_seed
from test_resume import Interrupted, assert_same_outcome, last_tensors, stop_after
from torch.nn import functional as F


def test_cleannet_loss_equals_hand_computed():
    """A right label, a wrong one over the margin of 0.1, a wrong one under it; 0.1 times a squared error of 0.25."""
    cosine, right = torch.tensor([0.7, 0.5, 0.05]), torch.tensor([True, False, False])
    unit, restored = torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.6, 0.3], [1.0, 0], [0, 1.0]])
    wanted = (0.3 + 5 * 0.4 + 0.0 + 0.1 * 0.25) / 3
    assert cleannet_loss(cosine, right, unit, restored).item() == pytest.approx(wanted, rel=1e-5)


def test_weighted_cross_entropy_equals_hand_computed():
    """Softmax rows (1/2, 1/2) and (3/4, 1/4), labels 0 and 1, weights 0.5 and 0.25."""
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    loss = weighted_cross_entropy(logits, torch.tensor([0, 1]), torch.tensor([0.5, 0.25]))
    assert loss.item() == pytest.approx((0.5 * math.log(2) + 0.25 * math.log(4)) / 2, rel=1e-6)


def test_class_embedding_is_attention_over_the_centers():
    """NumPy, layer by layer; what is not there has no part in it."""
    torch.manual_seed(0)
    network = FitNetwork(3)
    centers, present = torch.randn(1, 4, 3), torch.tensor([[True, True, False, True]])
    arrays = {name: p.detach().double().numpy() for name, p in network.named_parameters()}

    def layer(name, x):
        return x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"]

    x = centers[0, [0, 1, 3]].double().numpy()
    hidden = np.tanh(layer("center.2", np.tanh(layer("center.0", x))))
    scores = np.tanh(layer("attention.0", hidden)) @ arrays["attention.2.weight"][0]
    attention = np.exp(scores) / np.exp(scores).sum()
    wanted = np.tanh(layer("embed_class.0", attention @ hidden))
    np.testing.assert_allclose(network.classes(centers, present)[0].detach().numpy(), wanted, atol=1e-6)


def test_centers_come_from_the_images_of_the_class():
    """Two classes of few distinct points are their own centers; an empty class is one zero."""
    unit = np.array([[1, 0], [1, 0], [0, 1], [-1, 0], [0, -1]], dtype=np.float32)
    centers, present = class_centers(unit, np.array([0, 0, 0, 1, 1]), 3, None, seed=0)
    assert present.sum(dim=1).tolist() == [2, 2, 1]
    assert sorted(centers[0, :2].tolist()) == [[0.0, 1.0], [1.0, 0.0]]
    assert sorted(centers[1, :2].tolist()) == [[-1.0, 0.0], [0.0, -1.0]]
    assert not centers[2].any() and not centers[~present].any()
    many = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    centers, present = class_centers(many, np.zeros(200, dtype=np.int64), 1, 40, seed=0)
    assert present.all() and len(np.unique(centers[0].numpy(), axis=0)) == 32
    assert class_centers(many, np.zeros(200, dtype=np.int64), 1, 5, seed=0)[1].sum() == 5


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """Enough for clusters."""
    monkeypatch.setattr(cleannet_net, "_STEPS", 60)


def some_verified(dataset, count=60):
    rows = torch.arange(0, len(dataset), len(dataset) // count)
    return VerifiedLabels(dataset.given[rows] == dataset.truth[rows], rows)


@pytest.mark.parametrize("hard", [False, True])
def test_weights_tell_right_labels_from_wrong_ones(clusters, hard):
    """The weights are the cosines above 0 (soft), or whether they reach 0.1 (hard), and go into the loss."""
    dataset, model = clusters
    verified = some_verified(dataset)
    method = CleanNet(num_classes=4, start_epoch=1, verified=verified, hard=hard, seed=7, batch_size=50)
    images, given, index = dataset[[5, 3, 90, 41]]
    method.before_epoch(model, dataset, 0)
    loss, logits = method.batch_loss(model, images, given, index)
    assert loss.item() == F.cross_entropy(logits, given).item() and "weights" not in method.state_dict()

    random_state = torch.get_rng_state()
    method.before_epoch(model, dataset, 1)
    assert torch.equal(torch.get_rng_state(), random_state)
    weights = method.state_dict()["weights"].numpy()
    right = (dataset.given == dataset.truth).numpy()
    assert weights[right].mean() > 0.8 and weights[~right].mean() < (0.5 if hard else 0.15)

    bank = dataset[list(range(len(dataset)))][0].flatten(1)
    unit = bank / bank.norm(dim=1, keepdim=True)
    seed = derive_seed(7, 1)
    centers = class_centers(unit.numpy(), dataset.given.numpy(), 4, 1280, seed)
    torch.manual_seed(seed)
    network = train_fit_network(unit[verified.rows], dataset.given[verified.rows], verified.right, *centers)
    fit = fit_of_labels(network, unit, dataset.given, *centers).numpy()
    wanted = (fit >= 0.1).astype(float) if hard else np.maximum(fit, 0)
    np.testing.assert_allclose(weights, wanted, atol=1e-5)

    loss, logits = method.batch_loss(model, images, given, index)
    chances = logits.softmax(dim=1).detach().numpy()[np.arange(4), given.numpy()]
    assert loss.item() == pytest.approx((weights[index.numpy()] * -np.log(chances)).mean(), rel=1e-4)


def test_verified_images_may_lie_outside_the_training_set(clusters):
    dataset, model = clusters
    right = dataset.given == dataset.truth
    outside = VerifiedLabels(right, images=dataset)
    method = CleanNet(num_classes=4, start_epoch=0, verified=outside, hard=False, batch_size=50)
    method.before_epoch(model, dataset, 0)
    weights = method.state_dict()["weights"]
    assert weights[right].mean() > 0.8 and weights[~right].mean() < 0.15


def test_features_that_are_not_finite_do_no_harm(clusters):
    dataset, model = clusters
    features = model.features

    def spoiled(images):
        rows = features(images).clone()
        rows[0], rows[1, 3], rows[2] = 0, torch.nan, torch.inf
        return rows

    model.features = spoiled
    method = CleanNet(num_classes=4, start_epoch=0, verified=some_verified(dataset), hard=False, batch_size=50)
    method.before_epoch(model, dataset, 0)
    assert torch.isfinite(method.state_dict()["weights"]).all()


@pytest.fixture
def verified_digits(tmp_path):
    """A CSV file for digits with 40 % symmetric noise of seed 3: 150 images, looked at by somebody who knows."""
    noisy = add_noise(load_dataset("digits").train, NoiseSpec("symmetric", 0.4), derive_seed(3, "noise"))
    verified = some_verified(noisy, 150)
    lines = [f"{row},{int(right)}" for row, right in zip(verified.rows.tolist(), verified.right, strict=True)]
    path = tmp_path / "verified.csv"
    path.write_text("\n".join(["index,correct", *lines]) + "\n")
    return path


@pytest.mark.parametrize(("method", "stops"), [("cleannet-hard", [0]), ("cleannet-soft", [1])])
def test_cleannet_resumes_to_the_same_bits_on_digits(digits_config, tmp_path, verified_digits, method, stops):
    settings = {"method": method, "epochs": 3, "noise": NoiseSpec("symmetric", 0.4), "verified": verified_digits}
    train(digits_config(out=tmp_path / "straight", **settings))
    config = digits_config(out=tmp_path / "broken", **settings)
    for stop in stops:
        with pytest.raises(Interrupted):
            train(config, on_epoch=stop_after(stop))
    train(config, resume=True)
    assert_same_outcome(tmp_path / "straight", tmp_path / "broken")
    weights = last_tensors(config.out)["method/weights"]
    assert weights.shape == (1347,) and 0 < weights.mean() < 1


def test_cleannet_runs_from_the_command_line(tmp_path, capsys, verified_digits, caplog):
    command = "--data digits --device cpu --epochs 2 --start-epoch 1 --seed 3 --noise symmetric:0.4 --method"
    out = tmp_path / "run"
    arguments = [*command.split(), "cleannet-soft", "--out", str(out)]
    assert cli.main(arguments) == 2
    assert "verified must be given with method cleannet-soft" in capsys.readouterr().err
    assert not out.exists()
    with caplog.at_level(logging.INFO, logger="proto_trainer"):  # an example may have made it quieter
        assert cli.main([*arguments, "--verified", str(verified_digits)]) == 0
    assert "epoch 1: mean weight 0." in caplog.text
    moved = tmp_path / "moved.csv"
    verified_digits.rename(moved)  # the same labels from another place are the same run
    assert cli.main([*arguments, "--verified", str(moved), "--resume"]) == 0
    moved.write_text("index,correct\n3,1\n4,0\n")
    assert cli.main([*arguments, "--verified", str(moved), "--resume"]) == 2
    assert "the checkpoint belongs to another run: it has verified_sha256" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,correct\n1347,1\n", r"line 2 of .* names an unknown image, '1347'"),
        ("index,correct\n3,1\n-1,0\n", r"line 3 of .* names an unknown image, '-1'"),
        ("index,correct\n3,1\n3,0\n", "line 3 of .* names image '3' again"),
        ("index,correct\n3,yes\n", "correct must be 0 or 1, got 'yes' in line 2"),
        ("index,correct\n3\n", "correct must be 0 or 1, got None in line 2"),
        ("index,verdict\n3,1\n", "verified must have the columns index,correct or path,correct"),
        ("", "verified must have the columns"),
        ("path,correct\na.png,1\n", "verified must have a column index: this data set has no paths"),
        ("index,correct\n3,1\n4,1\n", "verified must have right and wrong labels, got 2 right ones of 2"),
        ("index,correct\n", "verified must have right and wrong labels, got 0 right ones of 0"),
    ],
)
def test_verified_file_is_checked(digits_config, tmp_path, text, message):
    path = tmp_path / "verified.csv"
    path.write_text(text)
    config = digits_config(method="cleannet-hard", verified=path)
    with pytest.raises(ConfigError, match=message):
        train(config)
    assert not config.out.exists()


def test_verified_file_may_name_paths(clusters, tmp_path):
    dataset, _ = clusters
    dataset.paths = [f"train/{i},{i}.jpg" for i in range(len(dataset))]
    path = tmp_path / "verified.csv"
    path.write_text('margin,correct,path\n0.5,0,"train/7,7.jpg"\n0.1,1,"train/2,2.jpg"\n')
    verified = read_verified(path, dataset)
    assert verified.rows.tolist() == [7, 2] and verified.right.tolist() == [False, True]
    with pytest.raises(ConfigError, match=r"verified must be a CSV file, got .*nowhere"):
        read_verified(tmp_path / "nowhere", dataset)


def test_other_methods_take_no_verified_labels(digits_config, tmp_path):
    with pytest.raises(
        ConfigError, match="verified is for the methods cleannet-hard, cleannet-soft, smp, forward, got method ce"
    ):
        digits_config(method="ce", verified=tmp_path)
    splits = load_dataset("digits")
    assert find_verified(digits_config(method="ce"), splits, splits.train) is None
    for method in VERIFIED_METHODS:
        with pytest.raises(ConfigError, match=f"verified must be given with method {method}"):
            build_method(digits_config(method=method), 10)
