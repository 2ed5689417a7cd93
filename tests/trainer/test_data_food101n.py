"""Food-101N from a miniature in its own format: header lines, verified rows, and Food-101's test set beside it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from proto_trainer import ConfigError, cli, load_dataset, make_config
from proto_trainer.data import food101n

CLASSES = ["apple_pie", "baby_back_ribs", "waffles"]


def write_image(path, rng, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, size=(24, 20, 3), dtype=np.uint8)).convert(mode).save(path)


def training_keys() -> list[str]:
    """Four a class, classes in turns."""
    return [f"{name}/{number:02d}{'ab' * 15}.jpg" for number in range(4) for name in CLASSES]


@pytest.fixture
def home(tmp_path):
    """Food-101N_release/ with 12 images, and food-101/ with 6 test images."""
    rng = np.random.default_rng(0)
    home, test_home = tmp_path / "Food-101N_release", tmp_path / "food-101"
    keys = training_keys()
    for i, key in enumerate(keys):
        write_image(home / "images" / key, rng, mode="L" if i == 4 else "RGB")
    meta = home / "meta"
    meta.mkdir()
    (meta / "classes.txt").write_text("class_name\n" + "\n".join(CLASSES))
    (meta / "imagelist.tsv").write_text("class_name/key\n" + "\n".join(keys))
    rows = [f"{key}\t{i % 2}" for i, key in enumerate(keys[2:10])]
    (meta / "verified_train.tsv").write_text("class_name/key\tverification_label\n" + "\n".join(rows))
    (meta / "verified_val.tsv").write_text(f"class_name/key\tverification_label\n{keys[0]}\t1\n{keys[11]}\t0\n")
    test_keys = [f"{name}/{1000 + i}" for name in CLASSES for i in range(2)]
    for key in test_keys:
        write_image(test_home / "images" / f"{key}.jpg", rng)
    (test_home / "meta").mkdir()
    (test_home / "meta" / "test.txt").write_text("\n".join(test_keys) + "\n")
    (test_home / "meta" / "classes.txt").write_text("\n".join(CLASSES) + "\n")  # without a header
    return home


def test_headers_are_no_images_and_no_classes(home):
    splits = load_dataset("food101n", home, image_size=16)
    assert splits.train.class_names == tuple(CLASSES)
    assert splits.train.given.tolist() == [0, 1, 2] * 4 and splits.train.truth is None
    assert splits.train.paths == [f"{home / 'images' / key}" for key in training_keys()]
    assert splits.test.given.tolist() == [0, 0, 1, 1, 2, 2]
    assert splits.test.paths[0] == f"{home}/../food-101/images/apple_pie/1000.jpg"
    assert splits.train[4][0].shape == (3, 16, 16)  # grey
    assert splits.clean is None and splits.validation is None


@pytest.mark.parametrize("layout", ["above", "inside", "together"])
def test_both_data_sets_are_found(home, layout):
    root = home
    if layout == "above":
        root = home.parent
    elif layout == "inside":
        (home.parent / "food-101").rename(home / "food-101")
    else:
        other = home.parent / "food-101"
        (other / "meta" / "test.txt").rename(home / "meta" / "test.txt")
        for path in (other / "images").glob("*/*.jpg"):
            path.rename(home / "images" / path.parent.name / path.name)
    splits = load_dataset("food101n", root, image_size=16)
    assert (len(splits.train), len(splits.test)) == (12, 6)


def test_verified_rows_are_positions_in_the_training_set(home):
    splits = load_dataset("food101n", home, image_size=16)
    assert splits.verified.rows.tolist() == list(range(2, 10))
    assert splits.verified.right.tolist() == [False, True] * 4
    assert splits.verified.images.given.tolist() == splits.train.given[2:10].tolist()
    assert splits.verified_validation.rows.tolist() == [0, 11]
    assert splits.verified_validation.right.tolist() == [True, False]


def test_broken_images_are_left_out_and_verified_rows_move_along(home, caplog):
    broken = home / "images" / training_keys()[3]
    broken.write_bytes(broken.read_bytes()[:200])
    splits = load_dataset("food101n", home, image_size=16)
    assert splits.train.given.tolist() == [0, 1, 2, 1, 2, 0, 1, 2, 0, 1, 2]
    assert [path for path, _ in splits.train.skipped] == [str(broken)]
    assert "meta/imagelist.tsv: 1 of 12 images cannot be decoded and are left out" in caplog.text
    assert splits.verified.rows.tolist() == list(range(2, 9))
    assert splits.verified.right.tolist() == [False, False, True, False, True, False, True]
    assert splits.verified.images.paths == [splits.train.paths[i] for i in range(2, 9)]


def test_class_that_vanished_is_named(home, caplog):
    for path in (home / "images" / "waffles").iterdir():
        path.write_bytes(b"no image")
    splits = load_dataset("food101n", home, image_size=16)
    assert splits.train.given.tolist() == [0, 1] * 4 and splits.train.num_classes == 3
    assert "meta/imagelist.tsv: no image is left of the classes waffles" in caplog.text


def test_verified_rows_of_unknown_images(home, caplog):
    path = home / "meta" / "verified_train.tsv"
    rows = [f"{key}\t1" for key in training_keys()]
    path.write_text("\n".join(["class_name/key\tverification_label", *rows, "waffles/none.jpg\t1"]))
    splits = load_dataset("food101n", home)
    assert splits.verified.rows.tolist() == list(range(12))
    assert "1 of 13 rows of meta/verified_train.tsv name no image" in caplog.text and "none.jpg" in caplog.text
    path.write_text("\n".join(["class_name/key\tverification_label", rows[0], "waffles/none.jpg\t1"]))
    with pytest.raises(ConfigError, match=r"names 1 images that meta/imagelist.tsv does not: waffles/none.jpg"):
        load_dataset("food101n", home)


def test_verified_files_may_be_missing(home, caplog):
    (home / "meta" / "verified_train.tsv").unlink()
    splits = load_dataset("food101n", home)
    assert splits.verified is None and splits.verified_validation is not None
    assert "verified_train.tsv, so no verified labels" in caplog.text


def test_counts_are_compared_with_the_whole_data_set(home, caplog, monkeypatch):
    load_dataset("food101n", home)
    expected = "classes: 3 instead of 101; training images: 12 instead of 310,009; test images: 6 instead of 25,250"
    assert f"not the whole data set ({expected})" in caplog.text
    caplog.clear()
    monkeypatch.setattr(food101n, "WHOLE", {"classes": 3, "training images": 12, "test images": 6})
    load_dataset("food101n", home)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("meta/classes.txt", "class_name\napple_pie\nwaffles\n", r"test.txt names a class .*: baby_back_ribs/1000"),
        ("meta/verified_train.tsv", "class_name/key\tlabel\napple_pie/a.jpg 1\n", "row 1: wanted 'class/image.jpg', a"),
        ("meta/verified_train.tsv", "class_name/key\tlabel\napple_pie/a.jpg\t2\n", "row 1: .*2'"),
        ("meta/imagelist.tsv", "class_name/key\nsushi/a.jpg", "imagelist.tsv names a class .*: sushi/a.jpg"),
        ("../food-101/meta/test.txt", "sushi/17\n", "test.txt names a class that meta/classes.txt does not: sushi/17"),
    ],
)
def test_contradictions_are_named(home, file, text, message):
    (home / file).write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_dataset("food101n", home)


def test_what_is_missing_is_named(home):
    with pytest.raises(ConfigError, match="root must be given for food101n"):
        load_dataset("food101n")
    (home / "meta" / "classes.txt").unlink()
    with pytest.raises(ConfigError, match=r"files of Food-101N; missing under .*: meta/classes.txt$"):
        load_dataset("food101n", home)
    (home / "meta" / "classes.txt").write_text("\n".join(CLASSES))
    (home.parent / "food-101" / "meta" / "test.txt").unlink()
    with pytest.raises(ConfigError, match=r"root must hold the test set of Food-101, too: meta/test.txt"):
        load_dataset("food101n", home)


def test_recipe_is_the_papers():
    config = make_config("food101n", "out")
    assert (config.model, config.epochs, config.start_epoch, config.batch_size) == ("resnet50", 30, 10, 128)
    assert (config.lr, config.momentum, config.weight_decay) == (0.001, 0.9, 5e-3)


def test_one_epoch_of_training(home, tmp_path):
    out = tmp_path / "run"
    options = "--data food101n --model small-cnn --image-size 16 --epochs 1 --batch-size 4 --device cpu --workers 0"
    assert cli.main([*options.split(), "--root", str(home), "--out", str(out)]) == 0
    frame = pd.read_parquet(out / "corrected.parquet")
    assert frame.given_label.tolist() == [0, 1, 2] * 4 and frame.path[5].endswith(training_keys()[5])
