"""Training on a part of a data set: which images stay, and what becomes of all that refers to them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from proto_trainer import ConfigError, load_dataset, make_config, train
from proto_trainer.checkpoint import CheckpointError
from proto_trainer.cli import main
from proto_trainer.data import HuggingFaceImages, Splits, Verified
from proto_trainer.data.files import FileImages
from proto_trainer.data.subset import stratified_rows, train_on_part


def test_stratified_rows_by_hand():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 20)
    rows = stratified_rows(labels, 10)
    assert np.bincount(labels[rows]).tolist() == [5, 3, 2]
    assert (np.diff(rows) > 0).all()  # data set order, nothing twice
    assert np.bincount(labels[stratified_rows(labels, 11)]).tolist() == [6, 3, 2]  # 5.5, 3.3, 2.2
    assert stratified_rows(labels, 100).tolist() == list(range(100))


def test_stratified_rows_are_a_draw_and_not_the_first():
    labels = np.zeros(1000, dtype=np.int64)
    rows = stratified_rows(labels, 100)
    assert 300 < rows.mean() < 700
    assert (rows == stratified_rows(labels, 100)).all()


@pytest.mark.parametrize("count", [0, -1, 101])
def test_stratified_rows_count_out_of_range(count):
    with pytest.raises(ConfigError, match=rf"images must lie in 1\.\.100, .* got {count}"):
        stratified_rows(np.zeros(100, dtype=np.int64), count)


def test_stratified_rows_a_class_that_would_vanish():
    labels = np.array([0] * 97 + [2] * 3)  # class 1 never had an image
    with pytest.raises(ConfigError, match=r"images must leave every class an image, got 10: .* classes \[2\]"):
        stratified_rows(labels, 10)
    kept = labels[stratified_rows(labels, 50)]
    assert np.bincount(kept).tolist() == [49, 0, 1]  # 48.5, 1.5: the lower class rounds up


def test_load_dataset_images_keeps_shares_and_the_test_set():
    whole, part = load_dataset("digits"), load_dataset("digits", images=400)
    assert len(part.train) == 400 and len(part.test) == len(whole.test) == 450
    expected = torch.bincount(whole.train.given) * 400 / len(whole.train)
    assert (torch.bincount(part.train.given) - expected).abs().max() < 1
    rows = stratified_rows(whole.train.given.numpy(), 400).tolist()
    images, labels, index = part.train[[0, 399]]
    assert torch.equal(images, whole.train[[rows[0], rows[399]]][0])
    assert torch.equal(labels, whole.train.given[[rows[0], rows[399]]]) and index.tolist() == [0, 399]
    assert np.array_equal(part.train.pixels(), whole.train.pixels()[rows])


def test_subset_of_files_takes_their_paths_along(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(4)]
    for i, path in enumerate(paths):
        Image.new("RGB", (8, 8), (i, i, i)).save(path)
    labels = torch.tensor([0, 1, 0, 1])
    whole = FileImages(paths, labels, ["a", "b"], image_size=8, augment=False).with_noise(1 - labels)
    whole.skipped = (("gone.png", "missing"),)
    part = whole.subset(torch.tensor([3, 0]))
    assert (part.paths, part.skipped) == ([paths[3], paths[0]], ())
    assert (part.given.tolist(), part.truth.tolist()) == ([0, 1], [1, 0])
    assert part.pixels()[:, 0].tolist() == [3, 0]
    assert len(whole) == 4 and whole.paths == paths


def test_subset_of_hugging_face_images_counts_from_the_decodable_ones():
    class Rows(list):
        def __getitem__(self, key):
            return [row["label"] for row in self] if key == "label" else super().__getitem__(key)

    rows = Rows({"image": np.full((4, 4), 10 * i, np.uint8), "label": i % 2} for i in range(5))
    rows.features = {"image": None, "label": None}
    rows[1]["image"] = {"bytes": b"no image"}
    part = HuggingFaceImages(rows, image_size=8).subset(torch.tensor([1, 3]))
    assert part.paths == ["row 2", "row 4"]
    assert part.given.tolist() == [0, 0] and part.pixels()[:, 0].tolist() == [20, 40]


def test_verified_rows_are_counted_in_the_part():
    train_set = load_dataset("digits").train
    rows = torch.tensor([*range(0, 1347, 2), -1])
    right = torch.arange(len(rows)) % 3 == 0
    verified = Verified(train_set.subset(rows.clamp(min=0)), right, rows)
    part = train_on_part(Splits(train_set, train_set, verified=verified, clean=train_set), 300)
    kept = stratified_rows(train_set.given.numpy(), 300)
    expected = [*(int(row) for row in kept if row % 2 == 0), -1]
    assert part.verified is not None
    assert [int(kept[row]) if row >= 0 else -1 for row in part.verified.rows.tolist()] == expected
    assert part.verified.right.tolist() == [*((row // 2) % 3 == 0 for row in expected[:-1]), bool(right[-1])]
    there = part.verified.rows >= 0
    assert torch.equal(part.verified.images.images[there], part.train.images[part.verified.rows[there]])
    assert part.clean is train_set and part.test is train_set


def test_verified_labels_that_all_leave_are_none():
    train_set = load_dataset("digits").train
    left_out = sorted(set(range(1347)) - set(stratified_rows(train_set.given.numpy(), 50).tolist()))[:3]
    rows = torch.tensor(left_out)
    verified = Verified(train_set.subset(rows), torch.tensor([True, False, True]), rows)
    assert train_on_part(Splits(train_set, train_set, verified=verified), 50).verified is None


def test_train_images_is_part_of_what_a_run_is(digits_config, capsys):
    config = digits_config(method="ce", epochs=1, start_epoch=0, images=200)
    assert len(train(config).train_set) == 200
    assert config.identity()["images"] == 200
    with pytest.raises(CheckpointError, match="images"):
        train(dataclasses.replace(config, images=None), resume=True)
    arguments = ["--data", "digits", "--method", "ce", "--epochs", "1", "--device", "cpu", "--out", str(config.out)]
    assert main([*arguments, "--images", "201", "--resume"]) == 2
    assert "images" in capsys.readouterr().err


def test_images_must_be_positive(tmp_path):
    with pytest.raises(ConfigError, match="images must be 1 or more, got 0"):
        make_config("digits", tmp_path, images=0)
