"""Clothing1M from a miniature in its own format: names with commas, lists without a last newline, extra labels."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from proto_trainer import ConfigError, cli, load_dataset, make_config, make_loader
from proto_trainer.data import clothing1m, decoding

NAMES = ["T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker", "Jacket", "Downcoat"]
NAMES += ["Suit", "Shawl", "Dress", "Vest", "Underwear"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """What is remembered about a data set, however small."""
    monkeypatch.setattr(decoding, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(decoding, "REMEMBER_FROM", 0)
    return tmp_path / "cache"


def key_of(number: int) -> str:
    return f"images/{number % 10}/{number % 100:02d}/{number}000,{number}.jpg"


@pytest.fixture
def root(tmp_path):
    """28 noisy, 8 clean training, 4 validation and 14 test images; every second clean image has a noisy label."""
    root = tmp_path / "Clothing1M"
    rng = np.random.default_rng(0)
    keys = {"noisy": range(0, 28), "train": range(100, 108), "val": range(200, 204), "test": range(300, 314)}
    lists = {name: [key_of(number) for number in numbers] for name, numbers in keys.items()}
    for name, members in lists.items():
        for i, key in enumerate(members):
            path = root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = name == "noisy" and i == 3
            pixels = rng.integers(0, 256, size=(20, 24) if grey else (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    noisy = {key: i % 14 for i, key in enumerate(lists["noisy"])}
    clean = {}
    for split in ("train", "val", "test"):
        for i, key in enumerate(lists[split]):
            clean[key] = i % 14
            if i % 2 == 0:  # wrong for every fourth
                noisy[key] = i % 14 if i % 4 == 0 else (i + 1) % 14
    (root / "noisy_train_key_list.txt").write_text("\n".join(lists["noisy"]))  # no newline at the end
    for split in ("train", "val", "test"):
        (root / f"clean_{split}_key_list.txt").write_text("\n".join(lists[split]) + "\n")
    (root / "noisy_label_kv.txt").write_text("\n".join(f"{key} {label}" for key, label in noisy.items()))
    (root / "clean_label_kv.txt").write_text("\n".join(f"{key} {label}" for key, label in clean.items()) + "\n")
    (root / "category_names_eng.txt").write_text("\n".join(NAMES))
    return root


def edit(path, change):
    path.write_text(change(path.read_text()))


def test_only_the_noisy_list_is_trained_on(root):
    splits = load_dataset("clothing1m", root, image_size=16)
    assert splits.train.given.tolist() == [i % 14 for i in range(28)]  # 35 images have a noisy label
    assert [path.removeprefix(f"{root}/") for path in splits.train.paths] == [key_of(i) for i in range(28)]
    assert splits.test.given.tolist() == list(range(14))
    assert [path.removeprefix(f"{root}/") for path in splits.test.paths] == [key_of(i) for i in range(300, 314)]
    assert splits.train.class_names == tuple(NAMES) and splits.train.truth is None
    assert splits.train.augment and not splits.test.augment
    assert splits.train.skipped == splits.test.skipped == ()


def test_clean_splits_and_verified_images(root):
    splits = load_dataset("clothing1m", root, image_size=16)
    assert splits.clean.given.tolist() == list(range(8)) and splits.clean.augment
    assert splits.validation.given.tolist() == list(range(4)) and not splits.validation.augment
    verified = splits.verified
    assert verified.images.paths == [f"{root / key_of(number)}" for number in (100, 102, 104, 106)]
    assert verified.images.given.tolist() == [0, 3, 4, 7] and verified.images.truth.tolist() == [0, 2, 4, 6]
    assert verified.right.tolist() == [True, False, True, False]
    assert verified.rows.tolist() == [-1] * 4  # none of them is among the training images
    assert splits.clean.given.tolist() == list(range(8))  # the clean labels have stayed


def test_images_become_rgb_squares(root):
    train = load_dataset("clothing1m", root, image_size=16).train
    images, given, index = next(iter(make_loader(train.plain(), 28)))
    assert images.shape == (28, 3, 16, 16) and index.tolist() == list(range(28))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    grey = images[3] * std[:, None, None] + mean[:, None, None]
    torch.testing.assert_close(grey[0], grey[1], atol=1e-5, rtol=0)
    assert torch.equal(given, train.given)
    for workers in (1, 2):
        again = torch.cat([batch for batch, _, _ in make_loader(train.plain(), 5, workers=workers)])
        assert torch.equal(again, images)


def test_lists_may_lie_in_annotations(root):
    (root / "annotations").mkdir()
    for path in root.glob("*.txt"):
        path.rename(root / "annotations" / path.name)
    assert len(load_dataset("clothing1m", root, image_size=16).train) == 28


def test_broken_images_are_left_out_with_their_labels(root, caplog):
    truncated, empty, missing = (root / key_of(number) for number in (1, 2, 5))
    truncated.write_bytes(truncated.read_bytes()[:-100])
    empty.write_bytes(b"")
    missing.unlink()
    (root / key_of(100)).write_bytes(b"no image")  # verified
    with caplog.at_level(logging.WARNING):
        splits = load_dataset("clothing1m", root, image_size=16)
    kept = [i for i in range(28) if i not in (1, 2, 5)]
    assert splits.train.given.tolist() == [i % 14 for i in kept]
    assert splits.train.paths == [f"{root / key_of(i)}" for i in kept]
    assert [path for path, _ in splits.train.skipped] == [str(truncated), str(empty), str(missing)]
    reasons = [reason for _, reason in splits.train.skipped]
    assert "truncated" in reasons[0] and "cannot identify" in reasons[1] and "No such file" in reasons[2]
    assert "noisy_train_key_list.txt: 3 of 28 images cannot be decoded and are left out" in caplog.text
    assert str(truncated) in caplog.text
    assert splits.verified.right.tolist() == [False, True, False] and len(splits.clean) == 7
    assert len(list(make_loader(splits.train, 1))) == 25


def test_what_cannot_be_decoded_is_remembered_until_a_file_changes(root, cache, monkeypatch):
    broken = root / key_of(1)
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-100])
    assert len(load_dataset("clothing1m", root).train) == 27

    def unexpected(*args, **kwargs):
        raise AssertionError("images are read again")

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "decode_problems", unexpected)
        again = load_dataset("clothing1m", root).train
    assert len(again) == 27 and again.skipped[0][0] == str(broken)
    broken.write_bytes(whole)
    assert len(load_dataset("clothing1m", root).train) == 28


def test_memory_that_cannot_be_used_costs_nothing_but_time(root, cache):
    cache.write_text("a file in the way")
    assert len(load_dataset("clothing1m", root).train) == 28
    cache.unlink()
    load_dataset("clothing1m", root)
    assert len(list(cache.iterdir())) == 4  # train, clean, validation, test
    for path in cache.iterdir():
        path.write_text('{"99": "no such row"}')
    assert len(load_dataset("clothing1m", root).train) == 28


def test_failures_of_the_machine_are_not_remembered(root, cache, monkeypatch):
    def fail(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(decoding.Image, "open", fail)
        with pytest.raises(ConfigError, match=r"clean_test_key_list.txt: none .* \(cannot be read: .*denied"):
            load_dataset("clothing1m", root)
    assert len(load_dataset("clothing1m", root).train) == 28


def test_nothing_is_left_behind_for_a_small_data_set(root, cache, monkeypatch):
    monkeypatch.setattr(decoding, "REMEMBER_FROM", 2000)
    load_dataset("clothing1m", root)
    assert not cache.exists()


def test_a_part_of_the_data_set_is_reported_as_one(root, caplog, monkeypatch):
    load_dataset("clothing1m", root)
    assert "not the whole data set (noisy training images: 28 instead of 1,000,000; " in caplog.text
    assert "noisy labels: 41 instead of 1,037,497" in caplog.text
    caplog.clear()
    counts = (14, 28, 41, 8, 4, 14, 4)
    monkeypatch.setattr(clothing1m, "WHOLE", dict(zip(clothing1m.WHOLE, counts, strict=True)))
    load_dataset("clothing1m", root)
    assert caplog.text == ""


def test_images_of_the_extra_splits_may_be_missing(root, caplog):
    for number in (*range(100, 108), *range(200, 204)):
        (root / key_of(number)).unlink()
    splits = load_dataset("clothing1m", root)
    assert splits.clean is None and splits.verified is None and splits.validation is None
    assert "clean_train_key_list.txt: none of the 8 images that are listed can be read" in caplog.text


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("noisy_label_kv.txt", lambda text: text.replace(f"{key_of(0)} 0", f"{key_of(0)} 14"),
         r"noisy_label_kv.txt, line 1: wanted 'path label' with a label 0\.\.13: .* 14'"),
        ("noisy_label_kv.txt", lambda text: text.replace(f"{key_of(0)} 0", key_of(0)), "line 1: wanted 'path label'"),
        ("noisy_label_kv.txt", lambda text: text + f"\n{key_of(0)} 3", "line 42: .* has the label 3, and 0 above"),
        ("noisy_label_kv.txt", lambda text: text.replace(f"{key_of(0)} 0\n", ""),
         "noisy_label_kv.txt has no label for 1 of 28 listed images: images/0/00/0000,0.jpg"),
        ("noisy_train_key_list.txt", lambda text: text + f"\n{key_of(300)}",
         "is in both noisy_train_key_list.txt and clean_test_key_list.txt"),
        ("category_names_eng.txt", lambda text: "Coat\n", "line 2: wanted .* 0..0"),
    ],
)  # fmt: skip
def test_contradictions_are_named(root, file, change, message):
    edit(root / file, change)
    with pytest.raises(ConfigError, match=message):
        load_dataset("clothing1m", root)


def test_what_is_missing_is_named(root):
    with pytest.raises(ConfigError, match="root must be given for clothing1m"):
        load_dataset("clothing1m")
    (root / "clean_label_kv.txt").unlink()
    (root / "clean_val_key_list.txt").unlink()
    with pytest.raises(ConfigError, match=r"missing under .*: clean_label_kv.txt, clean_val_key_list.txt"):
        load_dataset("clothing1m", root)


def test_folder_without_the_images_is_refused(root):
    (root / "images").rename(root / "pictures")
    with pytest.raises(ConfigError, match=r"clean_test_key_list.txt: none of the 14 .* can be read: .*No such file"):
        load_dataset("clothing1m", root)


def test_file_that_is_no_text_is_refused(root):
    (root / "noisy_train_key_list.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ConfigError, match=r"noisy_train_key_list.txt is not a text file"):
        load_dataset("clothing1m", root)


def test_recipe_is_the_papers():
    config = make_config("clothing1m", "out")
    assert (config.model, config.epochs, config.start_epoch, config.batch_size) == ("resnet50", 15, 5, 128)
    assert (config.lr, config.momentum, config.weight_decay, config.image_size) == (0.002, 0.9, 5e-3, 224)


def test_one_epoch_of_training(root, tmp_path):
    (root / key_of(1)).write_bytes(b"no image")
    out = tmp_path / "run"
    options = "--data clothing1m --model small-cnn --image-size 16 --epochs 1 --batch-size 8 --device cpu --workers 0"
    assert cli.main([*options.split(), "--root", str(root), "--out", str(out)]) == 0
    frame = pd.read_parquet(out / "corrected.parquet")
    assert len(frame) == 27 and frame.path[0] == f"{root / key_of(0)}" and frame.path[1] == f"{root / key_of(2)}"
    assert frame.given_label.tolist() == [i % 14 for i in range(28) if i != 1]
