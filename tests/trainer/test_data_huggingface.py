"""Hugging Face data sets by what they offer; and images of a folder that cannot be decoded."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from proto_trainer import ConfigError, extract_features, load_dataset, make_loader
from proto_trainer.data import HuggingFaceImages
from proto_trainer.data.decoding import decode_problem, decode_rgb, decode_tensor
from torch import nn


class ClassLabel:
    names = ("cat", "dog", "fox")


class Table:
    """What the library's data sets do, as far as it matters here: images are decoded when a row is read."""

    def __init__(self, images, labels, features=None):
        self.images, self.labels = images, labels
        self.features = features or {"image": object(), "label": ClassLabel()}

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, key):
        if isinstance(key, str):
            return iter(self.labels)
        image = self.images[key]
        if isinstance(image, bytes):
            image = Image.open(io.BytesIO(image))
        return dict(zip(self.features, (image, self.labels[key]), strict=True))


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, size=(6, 20, 24, 3), dtype=np.uint8)


LABELS = [2, 0, 1, 0, 2, 1]


def encoded(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_images_and_labels_come_with_their_index(pixels):
    kinds = [Image.fromarray(pixels[0]), pixels[1], {"bytes": encoded(pixels[2]), "path": None}, encoded(pixels[3])]
    kinds += [Image.fromarray(pixels[4]).convert("L"), Image.fromarray(pixels[5]).convert("RGBA")]
    dataset = HuggingFaceImages(Table(kinds, LABELS), image_size=16)
    assert dataset.class_names == ("cat", "dog", "fox") and dataset.given.tolist() == LABELS
    assert dataset.image_shape == (3, 16, 16) and dataset.truth is None and dataset.skipped == ()
    images, given, index = next(iter(make_loader(dataset, 6)))
    assert images.shape == (6, 3, 16, 16) and given.tolist() == LABELS and index.tolist() == list(range(6))
    whole = HuggingFaceImages(Table([*pixels], LABELS), image_size=16)
    for i in (0, 1, 2, 3, 5):
        assert torch.equal(images[i], whole[i][0])
    assert dataset.pixels().shape == (6, 32 * 32 * 3) and dataset.pixels().dtype == np.uint8


def test_training_images_are_augmented_and_features_are_not(pixels):
    train = HuggingFaceImages(Table([*pixels], LABELS), image_size=8, augment=True)
    assert len(torch.stack([train[1][0] for _ in range(8)]).unique(dim=0)) > 1
    model = nn.Flatten()
    model.features = model.forward
    bank, labels = extract_features(model, train, batch_size=4)
    again, _ = extract_features(model, train, batch_size=4)
    assert (bank == again).all() and bank.shape == (6, 192) and labels.tolist() == LABELS


def test_rows_that_cannot_be_decoded_are_left_out(pixels, caplog):
    contents = [encoded(image) for image in pixels]
    contents[1], contents[4] = contents[1][:-300], {"bytes": b"no image"}
    dataset = HuggingFaceImages(Table(contents, LABELS), image_size=16)
    assert dataset.given.tolist() == [2, 1, 0, 1] and dataset.paths == ["row 0", "row 2", "row 3", "row 5"]
    assert [row for row, _ in dataset.skipped] == ["row 1", "row 4"]
    assert "Table: 2 of 6 images cannot be decoded and are left out: row 1 (" in caplog.text
    whole = HuggingFaceImages(Table([*pixels], LABELS), image_size=16)
    assert torch.equal(dataset[3][0], whole[5][0]) and dataset[3][2] == 3


def test_columns_may_have_other_names_and_labels_no_names(pixels):
    table = Table([*pixels], LABELS, {"img": object(), "fine_label": object()})
    dataset = HuggingFaceImages(table, image_column="img", label_column="fine_label", image_size=16)
    assert dataset.class_names == ("0", "1", "2")
    with pytest.raises(ConfigError, match="dataset must have a column 'image', it has img, fine_label"):
        HuggingFaceImages(table)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([-1] * 6, r"must hold labels 0\.\.2, found -1\.\.-1"),
        ([3] * 6, r"must hold labels 0\.\.2, found 3\.\.3"),
        (["cat"] * 6, "'label' must hold whole numbers"),
        ([], "'label' must hold whole numbers"),
    ],
)
def test_labels_that_are_no_classes_are_refused(pixels, labels, message):
    with pytest.raises(ConfigError, match=message):
        HuggingFaceImages(Table([*pixels], labels))


def test_data_set_without_a_whole_image_is_refused():
    with pytest.raises(ConfigError, match="no image that can be decoded among its 2 rows"):
        HuggingFaceImages(Table([b"a", b"b"], [0, 1]))


GREY = np.arange(20 * 24, dtype=np.uint8).reshape(20, 24)


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_grey_images_of_16_bits_look_like_those_of_8(tmp_path, ending):
    deep = GREY.astype(np.uint16) * 256 + 7
    Image.fromarray(deep).save(tmp_path / f"deep.{ending}")
    Image.fromarray(GREY).save(tmp_path / "flat.png")
    expected = decode_tensor(str(tmp_path / "flat.png"), 20)
    assert torch.equal(decode_tensor(str(tmp_path / f"deep.{ending}"), 20), expected)
    assert np.array_equal(np.asarray(decode_rgb(str(tmp_path / f"deep.{ending}"))), expected.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_grey_values_of_unknown_range_are_left_out(tmp_path, kind):
    Image.fromarray(GREY.astype(kind)).save(tmp_path / "deep.tif")
    assert (
        decode_problem(str(tmp_path / "deep.tif"))
        == f"wanted 8 or 16 bits a channel, got 32 (mode {'IF'[kind is np.float32]})"
    )


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (GREY.astype(np.uint16) * 256 + 7, None),
        (Image.fromarray(GREY.astype(np.uint16) * 256), None),
        (GREY.astype(np.int64).tolist(), None),
        (GREY > 100, None),
        (GREY / 255.0, "wanted an array of bytes, 16 bits or bool, got float64"),
        (GREY.astype(np.int64) * 300, "wanted an array of bytes, 16 bits or bool, got int64"),
        (Image.fromarray(GREY / np.float32(255)), "wanted 8 or 16 bits a channel"),
    ],
)
def test_values_of_an_array_are_not_cut_off(image, reason):
    if reason is not None:
        with pytest.raises(ConfigError, match=f"no image that can be decoded among its 1 rows; row 0: {reason}"):
            HuggingFaceImages(Table([image], [0]))
        return
    expected = (GREY > 100) * 255 if np.asarray(image).dtype == bool else GREY
    dataset = HuggingFaceImages(Table([image], [0]), image_size=16)
    assert np.array_equal(dataset.decoded(0, 20)[0].numpy(), expected)


def test_imagefolder_leaves_broken_images_out(tmp_path, caplog, pixels):
    for split in ("train", "test"):
        for name, rows in (("cat", (0, 1, 2)), ("dog", (3, 4, 5))):
            (tmp_path / split / name).mkdir(parents=True)
            for i in rows:
                (tmp_path / split / name / f"{i}.png").write_bytes(encoded(pixels[i]))
    broken = tmp_path / "train" / "cat" / "1.png"
    broken.write_bytes(broken.read_bytes()[:100])
    train = load_dataset("imagefolder", tmp_path, image_size=16).train
    assert train.given.tolist() == [0, 0, 1, 1, 1] and train.skipped[0][0] == str(broken)
    assert [path[-5] for path in train.paths] == ["0", "2", "3", "4", "5"]
    assert "train: 1 of 6 images cannot be decoded and are left out" in caplog.text
    noisy = train.with_noise(1 - train.given)
    assert noisy.skipped == train.skipped and noisy.with_noise(train.given).truth.tolist() == train.given.tolist()


def test_truth_is_kept_when_noise_is_added_to_noisy_labels(clusters):
    noisier = clusters[0].with_noise((clusters[0].given + 1) % 4)
    assert torch.equal(noisier.truth, clusters[0].truth)
