"""CIFAR-10N and CIFAR-100N: both layouts, label sets by name, nothing unpickled."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from cifar_files import byte_rows, items, number, pickled, text, write_batch, write_cifar10, write_cifar100
from PIL import Image
from proto_trainer import ConfigError, cli, load_dataset, make_config, make_loader
from proto_trainer.data import cifar_n
from proto_trainer.data.cifar_n import CIFAR_DATASETS, shift_and_mirror
from proto_trainer.data.cifar_names import CIFAR10_NAMES

AGGRE = [(3 * i) % 10 if i % 4 else 9 for i in range(20)]


@pytest.fixture
def batches(tmp_path):
    """torchvision's layout, human labels beside it."""
    images, labels = write_cifar10(tmp_path)
    sets = {"clean_label": labels[:20], "aggre_label": AGGRE, "worse_label": [1] * 20, "note": ["text"] * 20}
    pd.DataFrame(sets).to_csv(tmp_path / "CIFAR-10_human.csv", index=False)
    return tmp_path, images, labels


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


@pytest.fixture
def parquet(tmp_path):
    """Encoded images with all labels in the same file; image 1 is a grey JPEG."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, size=(15, 32, 32, 3), dtype=np.uint8)
    contents = [encoded(image) for image in pixels]
    contents[1] = encoded(pixels[1, :, :, 0], "JPEG")
    clean = np.arange(15, dtype=np.int8) % 10
    sets = {"clean_label": clean[:12], "aggre_label": (clean[:12] + 1) % 10, "random_label1": np.full(12, 7, np.int8)}
    pq.write_table(pa.table({"image": contents[:12], **sets}), tmp_path / "cifar10n_train.parquet")
    pq.write_table(pa.table({"image": contents[12:], "clean_label": clean[12:]}), tmp_path / "cifar10_test.parquet")
    return tmp_path, pixels, contents


def test_batches_hold_images_truth_and_human_labels(batches):
    root, images, labels = batches
    splits = load_dataset("cifar10n:aggre", root)
    assert (splits.train.images.numpy() == images[:20]).all() and (splits.test.images.numpy() == images[20:]).all()
    assert splits.train.given.tolist() == AGGRE and splits.train.truth.tolist() == labels[:20]
    assert splits.test.given.tolist() == labels[20:] and splits.test.truth is None
    assert splits.train.class_names == CIFAR10_NAMES
    assert splits.train.mean == pytest.approx(images[:20].mean() / 255)
    folder_itself = load_dataset("cifar10n:clean", root / "cifar-10-batches-py")
    assert torch.equal(folder_itself.train.images, splits.train.images)


def test_label_sets_are_chosen_by_name(batches):
    root, _, labels = batches
    assert load_dataset("cifar10n", root).train.given.tolist() == AGGRE
    assert load_dataset("cifar10n:worse", root).train.given.tolist() == [1] * 20
    assert load_dataset("cifar10n:worse_label", root).train.given.tolist() == [1] * 20
    clean = load_dataset("cifar10n:clean", root).train
    assert clean.given.tolist() == labels[:20]
    with pytest.raises(ConfigError, match=r"has no labels random_label2, only clean_label, aggre_label, worse_"):
        load_dataset("cifar10n:random2", root)


def test_cifar10_agrees_with_torchvision(batches, monkeypatch):
    root, _, _ = batches
    names = pickled(label_names=items([text(name) for name in CIFAR10_NAMES]))
    (root / "cifar-10-batches-py" / "batches.meta").write_bytes(names)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda path, md5: True)
    ours = load_dataset("cifar10n:clean", root)
    for split, train in ((ours.train, True), (ours.test, False)):
        theirs = torchvision.datasets.CIFAR10(str(root), train=train)
        assert (split.images.permute(0, 2, 3, 1).numpy() == theirs.data).all()
        assert split.given.tolist() == theirs.targets and list(split.class_names) == theirs.classes


def test_cifar100_has_fine_labels(tmp_path):
    images, labels = write_cifar100(tmp_path)
    noisy = [(label + 1) % 100 for label in labels[:12]]
    np.save(tmp_path / "noisy_label.npy", np.array(noisy))
    splits = load_dataset("cifar100n", tmp_path)
    assert splits.train.given.tolist() == noisy and splits.train.truth.tolist() == labels[:12]
    assert splits.test.given.tolist() == labels[12:] and splits.train.num_classes == 100
    assert (splits.train.images.numpy() == images[:12]).all()
    assert splits.train.class_names[0] == "apple" and splits.train.class_names[99] == "worm"


@pytest.mark.parametrize("kind", ["csv", "parquet", "structured", "npy"])
def test_label_files_of_every_kind(tmp_path, kind):
    _, labels = write_cifar10(tmp_path)
    frame = pd.DataFrame({"clean_label": labels[:20], "aggre_label": AGGRE})
    if kind == "csv":
        (tmp_path / "CIFAR-10_human.csv").write_text(frame.to_csv(index=False).rstrip("\n"))
    elif kind == "parquet":
        frame.to_parquet(tmp_path / "CIFAR-10_human.parquet")
    elif kind == "structured":
        np.save(tmp_path / "CIFAR-10_human.npy", frame.to_records(index=False))
    else:
        np.save(tmp_path / "aggre_label.npy", np.array(AGGRE, dtype=np.int8))
    assert load_dataset("cifar10n:aggre", tmp_path).train.given.tolist() == AGGRE


def test_label_file_that_would_have_to_be_unpickled_is_refused(tmp_path):
    write_cifar10(tmp_path)
    with pytest.raises(ConfigError, match=r"labels aggre_label in CIFAR-10_human.parquet, .* or aggre_label.npy; "):
        load_dataset("cifar10n", tmp_path)
    (tmp_path / "CIFAR-10_human.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(ConfigError, match=r"CIFAR-10_human.pt is a pickle, which is never read .* Export it once"):
        load_dataset("cifar10n", tmp_path)
    np.save(tmp_path / "CIFAR-10_human.npy", np.array({"aggre_label": AGGRE}, dtype=object), allow_pickle=True)
    with pytest.raises(ConfigError, match=r"CIFAR-10_human.npy cannot be read without unpickling"):
        load_dataset("cifar10n", tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"aggre_label": AGGRE[:19]}, "19 labels aggre_label for 20 training images"),
        ({"aggre_label": [10] + [0] * 19}, r"labels aggre_label must be 0\.\.9, found 10"),
        ({"aggre_label": [-1] * 20}, r"labels aggre_label must be 0\.\.9, found -1"),
        ({"aggre_label": [0.5] * 20}, r"aggre_label must be whole numbers \[N\], got float64 \[20\]"),
        ({"aggre_label": AGGRE, "clean_label": list(range(10)) * 2}, "not in the order of the images: .* for .* of 20"),
    ],
)
def test_labels_that_do_not_fit_are_named(tmp_path, columns, message):
    write_cifar10(tmp_path)
    pd.DataFrame(columns).to_csv(tmp_path / "CIFAR-10_human.csv", index=False)
    with pytest.raises(ConfigError, match=message):
        load_dataset("cifar10n", tmp_path)


def test_pickles_are_not_run(batches):
    root, _, _ = batches
    touch = b"\x80\x02cos\nsystem\n" + text(f"touch {root}/ran") + b"\x85R"
    (root / "cifar-10-batches-py" / "data_batch_2").write_bytes(touch + b".")
    with pytest.raises(ConfigError, match="data_batch_2 must hold 'data' and 'labels'"):
        load_dataset("cifar10n", root)
    assert not (root / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "data_batch_3 is not a whole file of CIFAR"),
        (b"\x80\x02}q\x01(U\x0bbatch", "data_batch_3 is not a whole file of CIFAR"),
        (b"\x80\x02(e.", "data_batch_3 is not a whole file of CIFAR"),
        (b"\x80\x02G\x00\x00\x00\x00\x00\x00\x00\x00.", "values of the kind BINFLOAT"),
        (pickled(data=number(3), labels=items([number(3)])), "must hold 'data' .*: wanted an array, got int"),
        (pickled(data=byte_rows(np.zeros((2, 3072), np.uint8))), "must hold 'data' and 'labels': 'labels'"),
        (pickled(data=byte_rows(np.zeros((2, 3072), np.uint8)), labels=items([number(3)])), "2 images but 1 labels"),
        (pickled(data=byte_rows(np.zeros((2, 3071), np.uint8)), labels=items([number(3)] * 2)), "cannot reshape"),
    ],
)
def test_damaged_batches_are_named(batches, content, message):
    root, _, _ = batches
    (root / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_dataset("cifar10n", root)


def test_parquet_files_hold_everything(parquet):
    root, pixels, _ = parquet
    splits = load_dataset("cifar10n:random1", root)
    assert splits.train.given.tolist() == [7] * 12 and splits.train.truth.tolist() == [i % 10 for i in range(12)]
    assert splits.test.given.tolist() == [2, 3, 4]
    images = splits.train.images.permute(0, 2, 3, 1).numpy()
    assert (images[2:] == pixels[2:12]).all() and (images[1, :, :, 0] == images[1, :, :, 2]).all()
    assert splits.train.paths[3] == f"{root}/cifar10n_train.parquet#3"
    with pytest.raises(ConfigError, match="training images have no labels worse_label, only clean_label, aggre_label"):
        load_dataset("cifar10n:worse", root)


def test_images_of_a_parquet_file_that_cannot_be_decoded_are_left_out(parquet, caplog):
    root, pixels, contents = parquet
    contents = [*contents[:12]]
    contents[4], contents[6], contents[8] = contents[4][:-60], None, encoded(pixels[8, :16])
    image = pa.array([{"bytes": content, "path": None} for content in contents])  # as Hugging Face writes it
    table = pa.table({"image": image, "clean_label": [*range(10), 0, 1], "aggre_label": [3] * 12})
    pq.write_table(table, root / "cifar10n_train.parquet", row_group_size=5)
    train = load_dataset("cifar10n", root).train
    assert train.truth.tolist() == [0, 1, 2, 3, 5, 7, 9, 0, 1] and len(train.images) == len(train.paths) == 9
    assert (train.images[4].permute(1, 2, 0).numpy() == pixels[5]).all()
    rows = [path.rpartition("#")[2] for path, _ in train.skipped]
    assert rows == ["4", "6", "8"] and train.skipped[2][1] == "32 x 16 pixels, wanted 32 x 32"
    assert "cifar10n_train.parquet: 3 of 12 images cannot be decoded and are left out" in caplog.text


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("structured", [False, True])
def test_images_of_a_parquet_file_may_be_of_either_size_of_binary(parquet, kind, structured):
    root, pixels, contents = parquet
    image = pa.array(contents[:12], kind)
    if structured:
        image = pa.StructArray.from_arrays([image, pa.nulls(12, pa.string())], ["bytes", "path"])
    table = pa.table({"image": image, "clean_label": [0] * 12, "aggre_label": [3] * 12})
    pq.write_table(table, root / "cifar10n_train.parquet", row_group_size=5)
    images = load_dataset("cifar10n", root).train.images.permute(0, 2, 3, 1).numpy()
    assert (images[2:] == pixels[2:12]).all()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"clean_label": [1, 2]}, "must have a column image, it has clean_label"),
        (
            {"image": ["a.png", "b.png"], "clean_label": [1, 2]},
            "must hold the bytes of JPEG or PNG files, it holds str",
        ),
        (
            {"image": [{"bytes": "a.png"}, {"bytes": "b.png"}], "clean_label": [1, 2]},
            "must hold the bytes of JPEG or PNG files, it holds str",
        ),
        ({"image": [b"a", b"b"], "clean_label": [1, 2]}, "none of the 2 images can be decoded"),
        ({"image": [b"a", b"b"], "clean_label": [1, None]}, "column clean_label has 1 empty rows"),
        ({"image": [encoded(np.zeros((32, 32, 3), np.uint8))]}, "the training images must have a column clean_label"),
    ],
)
def test_parquet_files_of_another_kind_are_named(parquet, table, message):
    pq.write_table(pa.table(table), parquet[0] / "cifar10n_train.parquet")
    with pytest.raises(ConfigError, match=message):
        load_dataset("cifar10n", parquet[0])


def test_what_is_missing_is_named(parquet):
    root = parquet[0]
    with pytest.raises(ConfigError, match="root must be given for cifar100n: a folder with cifar-100-python/"):
        load_dataset("cifar100n:noisy")
    (root / "cifar10n_train.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match=r"cifar10n_train.parquet is not a whole Parquet file"):
        load_dataset("cifar10n", root)
    (root / "cifar10_test.parquet").unlink()
    with pytest.raises(ConfigError, match=r"one \*test\*.parquet; .* has cifar10n_train.parquet"):
        load_dataset("cifar10n", root)
    write_batch(root / "cifar-10-batches-py" / "data_batch_1", np.zeros((1, 3, 32, 32), np.uint8), labels=[0])
    with pytest.raises(ConfigError, match=r"missing under .*: data_batch_2, data_batch_3, data_batch_4, data_batch_5"):
        load_dataset("cifar10n", root)


def test_counts_are_compared_with_the_whole_data_set(parquet, caplog, monkeypatch):
    load_dataset("cifar10n", parquet[0])
    assert "(training images: 12 instead of 50,000; test images: 3 instead of 10,000)" in caplog.text
    caplog.clear()
    monkeypatch.setattr(cifar_n, "WHOLE", {"training images": 12, "test images": 3})
    load_dataset("cifar10n", parquet[0])
    assert caplog.text == ""


def test_training_images_move_by_four_pixels_and_are_mirrored():
    torch.manual_seed(0)
    image = torch.arange(1.0, 3 * 32 * 32 + 1).reshape(3, 32, 32)
    padded = torch.nn.functional.pad(image, (4, 4, 4, 4))
    possible = {
        (top, left, mirrored): padded[:, top : top + 32, left : left + 32].flip(2 if mirrored else ())
        for top in range(9)
        for left in range(9)
        for mirrored in (False, True)
    }
    seen = set()
    for view in shift_and_mirror(image.expand(200, 3, 32, 32), torch.rand(200, 3)):
        matching = [place for place, expected in possible.items() if torch.equal(view, expected)]
        assert len(matching) == 1
        seen.update(matching)
    assert len(seen) > 80  # of 162
    assert {mirrored for *_, mirrored in seen} == {False, True}
    assert shift_and_mirror(image, torch.rand(3)).shape == image.shape


def test_only_training_images_are_augmented(parquet):
    splits = load_dataset("cifar10n", parquet[0])
    assert splits.test.augment is None and splits.train.plain().augment is None
    plain = torch.cat([images for images, _, _ in make_loader(splits.train.plain(), 5)])
    expected = (splits.train.images.float() / 255 - splits.train.mean) / splits.train.std
    torch.testing.assert_close(plain, expected)
    assert not torch.equal(next(iter(make_loader(splits.train, 12)))[0], plain)


def test_every_label_set_has_a_recipe():
    assert {"cifar10n", "cifar10n:aggre", "cifar10n:random1", "cifar100n", "cifar100n:noisy"} <= set(CIFAR_DATASETS)
    for name in CIFAR_DATASETS:
        assert make_config(name, "out").model == "small-cnn"


@pytest.mark.parametrize("name", ["cifar10n:worse", "cifar100n:noisy"])
def test_one_epoch_of_training(batches, tmp_path, name):
    root, _, _ = batches
    _, labels = write_cifar100(root)
    np.save(root / "noisy_label.npy", np.array(labels[:12])[::-1])
    out = tmp_path / "run"
    options = f"--data {name} --epochs 1 --batch-size 4 --device cpu"
    assert cli.main([*options.split(), "--root", str(root), "--out", str(out)]) == 0
    frame = pd.read_parquet(out / "corrected.parquet")
    assert frame.given_label.tolist() == ([1] * 20 if name == "cifar10n:worse" else labels[:12][::-1])
    assert pd.read_csv(out / "epochs.csv").label_accuracy.notna().all()
