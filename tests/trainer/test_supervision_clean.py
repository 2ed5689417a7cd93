"""Fine-tuning on clean labels: the second stage of a run with any method."""

from __future__ import annotations

import copy
import logging

import pandas as pd
import pytest
import torch
from proto_trainer import CheckpointError, ConfigError, NoiseSpec, cli, load_dataset, make_config, train
from proto_trainer.checkpoint import load_checkpoint
from proto_trainer.data import Splits, Verified
from proto_trainer.methods import (
    CleanFineTuning,
    CrossEntropy,
    MetaLearning,
    build_method,
    cleannet_net,
    find_clean,
    find_verified,
    read_clean,
)
from proto_trainer.run import Run, take_over
from test_data_clothing1m import root as clothing1m_root
from test_resume import Interrupted, assert_same_outcome, last_tensors, stop_after
from torch.nn import functional as F

clothing1m = clothing1m_root  # a fixture


@pytest.fixture
def clean_file(tmp_path):
    """The right labels of 80 of 200 digits; without noise the given ones are right."""
    train_set = load_dataset("digits", images=200).train
    path = tmp_path / "clean.csv"
    lines = [f"{i},{train_set.given[i]}" for i in range(0, 160, 2)]
    path.write_text("\n".join(["index,label", *lines]) + "\n")
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,label\n120,a\n", r"clean: line 2 of .* names an unknown image, '120'"),
        ("index,label\n3,a\n3,b\n", "clean: line 3 of .* names image '3' again"),
        ("index,label\n3,e\n", "clean: label must be the name of a class or 0..3, got 'e' in line 2"),
        ("index,label\n3\n", "clean: label must be the name of a class or 0..3, got None in line 2"),
        ("index,correct\n3,1\n", "clean must have the columns index,label or path,label"),
        ("path,label\na.png,1\n", "clean must have a column index: this data set has no paths"),
        ("index,label\n", "clean must name at least one image"),
    ],
)
def test_clean_file_is_checked(clusters, tmp_path, text, message):
    path = tmp_path / "clean.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_clean(path, clusters[0])
    with pytest.raises(ConfigError, match=r"clean must be a CSV file, got .*nowhere"):
        read_clean(tmp_path / "nowhere", clusters[0])


def test_clean_file_gives_images_with_right_labels(clusters, tmp_path):
    dataset, _ = clusters
    before = dataset.given.clone()
    path = tmp_path / "clean.csv"
    path.write_text("label,index\nd,7\n0,2\n")
    clean = read_clean(path, dataset)
    images, labels, index = clean.images[[0, 1]]
    assert torch.equal(images, dataset[[7, 2]][0]) and labels.tolist() == [3, 0] and index.tolist() == [0, 1]
    assert clean.verified.rows.tolist() == [7, 2] and clean.verified.truth.tolist() == [3, 0]
    assert torch.equal(dataset.given, before)


def test_file_may_begin_as_spreadsheets_write_it(clusters, tmp_path):
    path = tmp_path / "clean.csv"
    path.write_bytes(b"\xef\xbb\xbfindex,label\r\n3,a\r\n")
    assert read_clean(path, clusters[0]).images.given.tolist() == [0]


def test_stage_has_its_own_rate_and_images(clusters, tmp_path, caplog):
    dataset, model = clusters
    clean = dataset.subset(torch.arange(9)).with_noise(dataset.truth[:9])
    method = CleanFineTuning(CrossEntropy(batch_size=8), clean, first_epoch=6, epochs=3)
    config = make_config("digits", tmp_path, method="ce", epochs=6, lr=0.5)
    rates = [method.lr_at(config, epoch) for epoch in range(9)]
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005, 0.05, 0.005, 0.0005])
    assert [epoch for epoch in range(9) if method.takes_over(epoch)] == [6]
    method.before_epoch(model, dataset, 5)
    assert method.images(dataset) is dataset
    with caplog.at_level(logging.INFO, logger="proto_trainer"):
        method.before_epoch(model, dataset, 6)
    assert method.images(dataset) is clean and "fine-tuning on 9 clean images begins" in caplog.text
    images, labels, index = clean[list(range(9))]
    loss, logits = method.batch_loss(model, images, labels, index)
    assert loss.item() == F.cross_entropy(logits, dataset.truth[:9]).item()


@pytest.mark.parametrize("kind", ["smp", "joint", "mlnt", "forward"])
def test_stage_leaves_the_method_alone(digits_config, clusters, kind):
    """What counts in fine-tuning is cross-entropy, and what the method knew stays as it was."""
    dataset, model = clusters
    config = digits_config(method=kind, epochs=3, batch_size=32)
    inner = build_method(config, 4)
    method = CleanFineTuning(inner, dataset, first_epoch=3, epochs=2)
    images, labels, index = dataset[list(range(20))]
    for epoch in range(3):
        method.before_epoch(model, dataset, epoch)
        method.batch_loss(model, images, labels, index)
        method.after_epoch(model, dataset, epoch)
    state = {name: tensor.clone() for name, tensor in inner.state_dict().items()}
    assert not method.state_dict()["fine_tunes"]
    assert state or kind == "ce"
    method.before_epoch(model, dataset, 3)
    loss, logits = method.batch_loss(model, images, labels, index)
    method.after_epoch(model, dataset, 3)
    assert loss.item() == F.cross_entropy(logits, labels).item()
    assert method.evaluated(model) is model
    assert state.keys() == inner.state_dict().keys()
    assert all(torch.equal(tensor, inner.state_dict()[name]) for name, tensor in state.items())
    resumed = CleanFineTuning(build_method(config, 4), dataset, first_epoch=3, epochs=2)
    resumed.load_state_dict(method.state_dict())
    assert resumed.evaluated(model) is model and resumed.images(dataset) is dataset


def test_teacher_is_what_is_fine_tuned(clusters, tmp_path):
    """At the start of the stage the student takes over the teacher's weights, and the momentum is gone."""
    dataset, model = clusters
    inner = MetaLearning(start_epoch=0, seed=0, batch_size=8)
    method = CleanFineTuning(inner, dataset, first_epoch=1, epochs=1)
    method.before_epoch(model, dataset, 0)
    teacher = method.evaluated(model)
    assert teacher is not model
    with torch.no_grad():
        for weight in teacher.parameters():
            weight.fill_(0.25)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    F.cross_entropy(model(dataset[[0, 1]][0]), dataset.given[:2]).backward()
    optimizer.step()
    assert optimizer.state
    config = make_config("digits", tmp_path, method="ce", epochs=1)
    run = Run(config, dataset, dataset, model, method, optimizer, torch.device("cpu"))
    take_over(run)
    assert all((weight == 0.25).all() for weight in model.parameters()) and not optimizer.state
    kept = copy.deepcopy(model.state_dict())
    method.before_epoch(model, dataset, 1)
    assert method.evaluated(model) is model
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())


def test_run_fine_tunes_after_its_last_epoch(digits_config, clean_file):
    """Epochs are counted on; the best checkpoint may be of either stage; the labels found stay."""
    settings = {"images": 200, "epochs": 4, "batch_size": 16, "lr": 0.05, "noise": NoiseSpec("symmetric", 0.4)}
    config = digits_config(clean=clean_file, **settings)
    assert (config.clean_epochs, config.all_epochs) == (1, 5)
    result = train(config)
    rows = pd.read_csv(config.out / "epochs.csv")
    assert rows["epoch"].tolist() == list(range(5))
    assert rows["lr"].tolist() == pytest.approx([config.lr_at(epoch) for epoch in range(4)] + [config.lr / 10])
    assert rows["extract_seconds"].notna().tolist() == [False, True, True, True, False]
    assert rows["label_accuracy"].iloc[4] == rows["label_accuracy"].iloc[3]
    assert rows["train_accuracy"].iloc[4] > rows["train_accuracy"].iloc[3] + 0.1  # against labels that are right
    assert rows["test_accuracy"].iloc[4] > rows["test_accuracy"].iloc[3]
    weights = load_checkpoint(config.out / "checkpoints").tensors
    assert torch.equal(weights["model/head.weight"], result.model.head.weight)


@pytest.mark.parametrize("method", ["ce", "mlnt"])
def test_run_with_clean_labels_resumes_to_the_same_bits(digits_config, tmp_path, clean_file, method):
    """Stopped after every epoch of both stages."""
    settings = {
        "method": method, "images": 200, "epochs": 2, "clean": clean_file, "clean_epochs": 2, "batch_size": 50,
        "noise": NoiseSpec("symmetric", 0.4),
    }  # fmt: skip
    straight = train(digits_config(out=tmp_path / "straight", **settings))
    config = digits_config(out=tmp_path / "broken", **settings)
    for epoch in range(4):
        with pytest.raises(Interrupted):
            train(config, resume=True, on_epoch=stop_after(epoch))
    resumed = train(config, resume=True)
    assert_same_outcome(tmp_path / "straight", tmp_path / "broken")
    assert torch.equal(straight.model.head.weight, resumed.model.head.weight)
    assert torch.equal(last_tensors(config.out)["model/head.weight"], resumed.model.head.weight)


def test_run_belongs_to_its_clean_labels(digits_config, tmp_path, clean_file, capsys):
    settings = {"method": "ce", "images": 200, "epochs": 1, "start_epoch": 0, "batch_size": 100}
    config = digits_config(clean=clean_file, **settings)
    train(config)
    moved = clean_file.rename(tmp_path / "moved.csv")
    train(digits_config(clean=moved, **settings), resume=True)
    moved.write_text("index,label\n3,0\n")
    with pytest.raises(CheckpointError, match="clean_sha256"):
        train(digits_config(clean=moved, **settings), resume=True)
    with pytest.raises(CheckpointError, match=r"clean_epochs 1 \(this run: 3\), clean_sha256"):
        train(digits_config(clean=moved, clean_epochs=3, **settings), resume=True)


def test_class_without_clean_images_is_told(digits_config, tmp_path, caplog):
    path = tmp_path / "few.csv"
    path.write_text("index,label\n" + "\n".join(f"{i},{i}" for i in range(8)) + "\n")
    train(digits_config(method="ce", images=100, epochs=1, start_epoch=0, clean=path))
    assert "clean has no image of the classes 8, 9: fine-tuning may unlearn them" in caplog.text


# What data sets come with.


@pytest.fixture
def splits(clusters):
    """A clean split beside the training set; half of its images carry a given label, too."""
    dataset, _ = clusters
    clean = dataset.subset(torch.arange(60)).with_noise(dataset.truth[:60])
    images = dataset.subset(torch.arange(30))
    verified = Verified(images, images.given == images.truth, torch.full((30,), -1))
    return Splits(dataset.subset(torch.arange(60, 120)), dataset, clean=clean, verified=verified)


def test_data_set_brings_its_own_supervision(splits, tmp_path):
    config = make_config("digits", tmp_path, method="forward", clean="dataset", verified="dataset", epochs=3)
    verified = find_verified(config, splits, splits.train)
    clean = find_clean(config, splits, splits.train)
    assert clean.images is splits.clean and verified.images is splits.verified.images
    assert torch.equal(verified.truth, splits.verified.images.truth)
    method = build_method(config, 4, verified, clean)
    assert isinstance(method, CleanFineTuning)
    assert [len(labels.right) for labels in method.method.verified] == [30]  # the same images, once
    alone = make_config("digits", tmp_path, method="forward", clean="dataset", epochs=3)
    assert find_verified(alone, splits, splits.train) is None
    assert [len(labels.right) for labels in build_method(alone, 4, None, clean).method.verified] == [30]


def test_verified_labels_of_the_training_set_become_rows(clusters, tmp_path):
    dataset, _ = clusters
    rows = torch.tensor([4, 8, 15])
    images = dataset.subset(rows)
    images.truth = None
    verified = Verified(images, torch.tensor([True, False, True]), rows)
    config = make_config("digits", tmp_path, verified="dataset")
    found = find_verified(config, Splits(dataset, dataset, verified=verified), dataset)
    assert found.rows is rows and found.images is None
    assert found.truth.tolist() == [int(images.given[0]), -1, int(images.given[2])]


def test_supervision_of_the_data_set_knows_nothing_of_added_noise(splits, tmp_path):
    noise = NoiseSpec("symmetric", 0.2)
    config = make_config("digits", tmp_path, verified="dataset", clean="dataset", noise=noise)
    with pytest.raises(ConfigError, match="verified must be a file when noise is added"):
        find_verified(config, splits, splits.train)
    assert find_clean(config, splits, splits.train).verified is None


def test_command_takes_both(tmp_path, clean_file, capsys):
    (tmp_path / "v.csv").write_text("index,correct\n" + "\n".join(f"{i},1" for i in range(50)) + "\n")
    out = tmp_path / "run"
    command = "--data digits --device cpu --images 200 --epochs 2 --start-epoch 1 --clean-epochs 2 --method smp"
    options = [*command.split(), "--clean", str(clean_file), "--verified", str(tmp_path / "v.csv"), "--out", str(out)]
    assert cli.main(options) == 0
    assert capsys.readouterr().out.count("epoch ") >= 4 and len(pd.read_csv(out / "epochs.csv")) == 4


@pytest.mark.parametrize("method", ["smp", "forward", "cleannet-hard"])
def test_clothing1m_brings_clean_and_verified_images(clothing1m, tmp_path, monkeypatch, method):
    """A miniature in the true format: 28 noisy images, 8 clean ones of which 4 have a noisy label, too."""
    monkeypatch.setattr(cleannet_net, "_STEPS", 5)
    command = f"--data clothing1m --root {clothing1m} --model small-cnn --image-size 16 --device cpu --workers 0"
    command += f" --epochs 2 --start-epoch 1 --batch-size 8 --verified dataset --clean dataset --method {method}"
    out = tmp_path / "run"
    assert cli.main([*command.split(), "--out", str(out)]) == 0
    assert len(pd.read_csv(out / "epochs.csv")) == 3
    facts = load_checkpoint(out / "checkpoints").facts["run"]
    assert facts["num_samples"] == 28 and len(facts["verified_sha256"]) == len(facts["clean_sha256"]) == 64
    if method == "forward":  # classes 0, 2, 4 and 6 are known: 2 was called 3, 6 was called 7
        transition = last_tensors(out)["method/transition"]
        assert transition.argmax(dim=1)[[0, 2, 4, 6]].tolist() == [0, 3, 4, 7]
        assert transition.amax(dim=1)[[0, 2, 4, 6]].tolist() == [1, 1, 1, 1]
