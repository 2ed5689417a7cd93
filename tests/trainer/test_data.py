"""Data sets: what they hold, in which order, from which files; damaged files are named."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from proto_trainer import ConfigError, load_dataset, make_loader
from proto_trainer.data import TensorImages

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def test_digits_are_split_once_and_for_all():
    splits, again = load_dataset("digits"), load_dataset("digits")
    assert (len(splits.train), len(splits.test)) == (1347, 450)
    assert splits.train.image_shape == (1, 8, 8) and splits.train.num_classes == 10
    assert torch.equal(splits.train.images, again.train.images)
    assert torch.bincount(splits.test.given, minlength=10).min() >= 40
    together = torch.cat([splits.train.images, splits.test.images]).flatten(1)
    assert len(together.unique(dim=0)) == 1797  # no image is in both


def test_tensor_images_are_normalized_and_come_with_their_index():
    dataset = load_dataset("digits").train
    images, given, index = dataset[[5, 3]]
    assert index.tolist() == [5, 3] and torch.equal(given, dataset.given[[5, 3]])
    expected = (dataset.images[[5, 3]].double() / 255 - dataset.mean) / dataset.std
    torch.testing.assert_close(images.double(), expected, rtol=1e-5, atol=1e-5)
    image, label, i = dataset[3]
    assert torch.equal(image, images[1]) and label == given[1] and i == 3
    everything, _, _ = dataset[list(range(len(dataset)))]
    assert abs(everything.mean()) < 1e-4 and abs(everything.std() - 1) < 1e-3


def test_loader_order_depends_on_the_seed_alone():
    dataset = load_dataset("digits").train

    def order(**settings):
        before = torch.get_rng_state()
        indices = torch.cat([index for _, _, index in make_loader(dataset, 100, **settings)])
        assert torch.equal(torch.get_rng_state(), before)
        return indices

    assert torch.equal(order(), torch.arange(1347))
    assert torch.equal(order(shuffle_seed=1), order(shuffle_seed=1))
    assert not torch.equal(order(shuffle_seed=1), order(shuffle_seed=2))
    assert torch.equal(order(shuffle_seed=1).sort().values, torch.arange(1347))
    assert torch.equal(order(shuffle_seed=1, workers=1), order(shuffle_seed=1))


def test_with_noise_refuses_another_number_of_labels(clusters):
    with pytest.raises(ValueError, match=r"noisy must have shape \(120,\), got \(3,\)"):
        clusters[0].with_noise(torch.zeros(3))


def test_load_dataset_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(ConfigError, match=r"data must be one of digits, .* got 'cifar'"):
        load_dataset("cifar")
    with pytest.raises(ConfigError, match=r"root must be a folder, got .*nowhere"):
        load_dataset("fashion-mnist", tmp_path / "nowhere")


# Fashion-MNIST from tiny files of the same format.


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


def write_fashion(folder, *, packed: bool, train: int = 30, test: int = 10) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(train + test, 28, 28), dtype=np.uint8)
    labels = (np.arange(train + test) % 10).astype(np.uint8)
    parts = (images[:train], labels[:train], images[train:], labels[train:])
    for name, part in zip(FILES, parts, strict=True):
        raw = idx_bytes(part)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
        else:
            (folder / name).write_bytes(raw)
    return images


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("subfolder", ["", "FashionMNIST/raw"])
def test_fashion_mnist_is_read_from_both_layouts(tmp_path, packed, subfolder):
    images = write_fashion(tmp_path / subfolder, packed=packed)
    splits = load_dataset("fashion-mnist", tmp_path)
    assert (len(splits.train), len(splits.test), splits.train.num_classes) == (30, 10, 10)
    assert (splits.train.images.squeeze(1).numpy() == images[:30]).all()
    assert (splits.test.images.squeeze(1).numpy() == images[30:]).all()
    assert splits.train.given.tolist() == [i % 10 for i in range(30)]
    assert splits.train.mean == pytest.approx(images[:30].mean() / 255)
    assert splits.train.std == pytest.approx(images[:30].std() / 255)
    assert splits.train.pixels().shape == (30, 784)


def test_fashion_mnist_agrees_with_torchvision(tmp_path):
    write_fashion(tmp_path / "FashionMNIST" / "raw", packed=False)
    ours = load_dataset("fashion-mnist", tmp_path)
    for split, train in ((ours.train, True), (ours.test, False)):
        theirs = torchvision.datasets.FashionMNIST(str(tmp_path), train=train)
        assert torch.equal(split.images.squeeze(1), theirs.data)
        assert torch.equal(split.given, theirs.targets)
        assert list(split.class_names) == theirs.classes


def test_fashion_mnist_download_goes_through_torchvision(tmp_path, monkeypatch):
    def fetch(root, train, download):
        assert download
        write_fashion(tmp_path / "new" / "FashionMNIST" / "raw", packed=True)

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", fetch)
    assert len(load_dataset("fashion-mnist", tmp_path / "new", download=True).train) == 30


def test_fashion_mnist_names_the_missing_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"root must hold the four Fashion-MNIST files.*--download"):
        load_dataset("fashion-mnist", tmp_path)


def damage(name, change):
    def apply(folder):
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damage(FILES[0], lambda raw: raw[:-5]), "promises .* bytes of data and holds"),
        (damage(FILES[0], lambda raw: raw[:7]), "not an IDX file"),
        (damage(FILES[3], lambda raw: b"\x93NUMPY" + raw), "not an IDX file"),
        (damage(FILES[1], lambda raw: idx_bytes(np.zeros(29, np.uint8))), "30 images in .* but 29 labels"),
        (damage(FILES[1], lambda raw: idx_bytes(np.full(30, 11, np.uint8))), r"labels must be 0\.\.9, found 11"),
    ],
)
def test_fashion_mnist_names_damaged_files(tmp_path, spoil, message):
    write_fashion(tmp_path, packed=False)
    spoil(tmp_path)
    with pytest.raises(ConfigError, match=message):
        load_dataset("fashion-mnist", tmp_path)


def test_fashion_mnist_names_a_truncated_gzip_file(tmp_path):
    write_fashion(tmp_path, packed=True)
    path = tmp_path / f"{FILES[2]}.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ConfigError, match=f"{FILES[2]}.gz is not a whole gzip file"):
        load_dataset("fashion-mnist", tmp_path)


# Image folders.


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                color = rng.integers(0, 256, size=(40, 50, 3), dtype=np.uint8)
                image = Image.fromarray(color) if i else Image.fromarray(color[:, :, 0])  # the first one is grey
                image.save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def test_imagefolder_gives_rgb_squares_and_knows_its_files(folder):
    splits = load_dataset("imagefolder", folder, image_size=32)
    assert splits.train.class_names == ("cat", "dog") and splits.train.truth is None
    assert splits.train.given.tolist() == [0, 0, 0, 1, 1, 1]
    assert [path.split("/")[-2:] for path in splits.test.paths][:2] == [["cat", "0.png"], ["cat", "1.png"]]
    images, given, index = next(iter(make_loader(splits.train, 6)))
    assert images.shape == (6, 3, 32, 32) and images.dtype == torch.float32
    assert torch.equal(given, splits.train.given) and index.tolist() == [0, 1, 2, 3, 4, 5]
    assert splits.train.pixels().shape == (6, 32 * 32 * 3)


def test_imagefolder_augments_training_images_only(folder):
    train = load_dataset("imagefolder", folder, image_size=16).train
    views = torch.stack([train[1][0] for _ in range(8)])
    assert len(views.unique(dim=0)) > 1
    plain = train.plain()
    assert torch.equal(plain[1][0], plain[1][0]) and train.augment and not plain.augment


def test_imagefolder_takes_val_for_test(folder):
    (folder / "test").rename(folder / "val")
    assert len(load_dataset("imagefolder", folder, image_size=16).test) == 4


def test_imagefolder_names_what_is_missing(folder):
    with pytest.raises(ConfigError, match="root must be given for imagefolder"):
        load_dataset("imagefolder")
    (folder / "test" / "dog").rename(folder / "test" / "fox")
    with pytest.raises(ConfigError, match=r"they differ in \['dog', 'fox'\]"):
        load_dataset("imagefolder", folder)
    with pytest.raises(ConfigError, match=r"must hold train/ and test/ \(or val/\)"):
        load_dataset("imagefolder", folder / "train")
    for path in (folder / "train" / "cat").iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match="root: Found no valid file for the classes cat"):
        load_dataset("imagefolder", folder)


def test_statistics_of_a_flat_image_are_safe_to_divide_by():
    from proto_trainer.data.tensor import byte_statistics

    assert byte_statistics(torch.full((2, 1, 3, 3), 51, dtype=torch.uint8)) == pytest.approx((0.2, 1 / 255))
    assert isinstance(load_dataset("digits").train, TensorImages)
