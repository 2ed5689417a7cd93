"""An image's augmentation depends on the seed, the epoch and its position, and on nothing else."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from proto_trainer import load_dataset, make_config, make_loader, train
from proto_trainer.data import TensorImages
from proto_trainer.data.cifar_n import shift_and_mirror
from proto_trainer.data.decoding import decode_rgb, decode_tensor
from proto_trainer.data.views import MEAN, STD, cut_square
from torch.nn import functional
from torchvision.transforms import v2

TOP_LEFT, BOTTOM_RIGHT = torch.tensor([0.0, 0.0, 0.7]), torch.tensor([0.9999, 0.9999, 0.7])


def photo(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """Smooth, as photographs are: JPEG and resizing leave it nearly as it is."""
    small = np.random.default_rng(seed).integers(0, 256, size=(5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 13), ("test", 4)):
        for label in "ab":
            (tmp_path / split / label).mkdir(parents=True)
        for i in range(count):
            photo(50 + i, 40, seed=i).save(tmp_path / split / "ab"[i % 2] / f"{i:02}.jpg", quality=90)
    return tmp_path


@pytest.fixture
def augmented(folder):
    """A data set of files, and one in memory."""
    pixels = torch.randint(0, 256, (13, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    in_memory = TensorImages(pixels, torch.arange(13) % 2, "ab", mean=0.5, std=0.2, augment=shift_and_mirror)
    return {"files": load_dataset("imagefolder", folder, image_size=24).train, "memory": in_memory}


def by_position(dataset, seed, *, batch_size=4, workers=0) -> torch.Tensor:
    """What an epoch gives for each position, [N, K, H, W]."""
    batches = list(make_loader(dataset, batch_size, shuffle_seed=seed, workers=workers))
    index = torch.cat([index for _, _, index in batches])
    return torch.cat([images for images, _, _ in batches])[index.argsort()]


@pytest.mark.parametrize("kind", ["files", "memory"])
def test_batches_are_the_same_with_any_number_of_workers(augmented, kind):
    dataset = augmented[kind]
    before = torch.get_rng_state()
    batches = [list(make_loader(dataset, 4, shuffle_seed=5, workers=workers)) for workers in (0, 1, 2)]
    for here, one, two in zip(*batches, strict=True):
        for part, first, second in zip(here, one, two, strict=True):
            assert torch.equal(part, first) and torch.equal(part, second)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["files", "memory"])
def test_augmentation_depends_on_seed_and_position_alone(augmented, kind):
    dataset = augmented[kind]
    once = by_position(dataset, 5)
    assert torch.equal(by_position(dataset, 5, batch_size=3), once)
    alone = dataset.seeded(1)
    backwards = torch.stack([alone[i][0] for i in reversed(range(13))]).flip(0)
    assert torch.equal(backwards, alone[list(range(13))][0])
    assert sum(torch.equal(a, b) for a, b in zip(once, by_position(dataset, 6), strict=True)) < 3
    plain = by_position(dataset.plain(), 5)
    assert torch.equal(plain, by_position(dataset.plain(), 6)) and not torch.equal(plain, once)


def test_a_part_keeps_the_augmentation_of_its_images(augmented):
    rows = torch.tensor([7, 2, 11])
    for dataset in augmented.values():
        seeded = dataset.seeded(3)
        assert torch.equal(seeded.subset(rows)[[0, 1, 2]][0], seeded[rows.tolist()][0])


def test_without_a_seed_every_view_is_another(augmented):
    for dataset in augmented.values():
        assert len(torch.stack([dataset[1][0] for _ in range(8)]).unique(dim=0)) > 4


def run(folder, out, *, workers, resume=False, stop=None):
    config = make_config(
        "imagefolder", out, root=folder, model="small-cnn", method="ce", image_size=20, epochs=3, start_epoch=1,
        batch_size=4, workers=workers, seed=1, device="cpu",
    )  # fmt: skip

    def on_epoch(row):
        if row["epoch"] == stop:
            raise InterruptedError

    return train(config, resume=resume, on_epoch=on_epoch)


def test_training_is_the_same_with_workers_and_after_a_resume(folder, tmp_path):
    """Even when it is resumed with another number of workers."""
    straight = run(folder, tmp_path / "straight", workers=0)
    with pytest.raises(InterruptedError):
        run(folder, tmp_path / "broken", workers=1, stop=0)
    resumed = run(folder, tmp_path / "broken", workers=2, resume=True)
    assert [row["loss"] for row in straight.rows] == [row["loss"] for row in resumed.rows]
    for name, weight in straight.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


# What the numbers mean.


def test_square_is_cut_where_the_numbers_say():
    image = torch.arange(3 * 16 * 24, dtype=torch.int32).remainder(251).to(torch.uint8).reshape(3, 16, 24)
    size = 14  # the short edge of 16 stays as it is
    assert torch.equal(cut_square(image, size, TOP_LEFT), image[:, :14, :14])
    assert torch.equal(cut_square(image, size, BOTTOM_RIGHT), image[:, 2:, 10:])
    assert torch.equal(cut_square(image, size, torch.tensor([0.5, 0.5, 0.4])), image[:, 1:15, 5:19].flip(2))
    assert torch.equal(cut_square(image, size, None), image[:, 1:15, 5:19])


def test_short_edge_becomes_an_eighth_longer_than_the_square():
    image = torch.zeros(3, 512, 700, dtype=torch.uint8)
    image[:, :, 350:] = 255
    square = cut_square(image, 224, torch.tensor([0.0, 0.9999, 0.7]))  # 256 x 350: the right 224 columns
    assert square.shape == (3, 224, 224) and square[0, 0, 45] == 0 and square[0, 0, 53] == 255


def test_cifar_view_is_torchvisions_pad_crop_and_flip():
    images = torch.randn(40, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    draws = torch.rand(40, 3, generator=torch.Generator().manual_seed(1))
    draws[0], draws[1] = TOP_LEFT, BOTTOM_RIGHT
    for image, draw, view in zip(images, draws, shift_and_mirror(images, draws), strict=True):
        top, left = int(draw[0] * 9), int(draw[1] * 9)
        expected = v2.functional.crop(v2.functional.pad(image, [4]), top, left, 32, 32)
        expected = v2.functional.horizontal_flip(expected) if draw[2] < 0.5 else expected
        assert torch.equal(view, expected)
        assert torch.equal(shift_and_mirror(image, draw), expected)


def test_test_images_are_what_torchvisions_usual_transforms_give(folder):
    test = load_dataset("imagefolder", folder, image_size=24).test
    usual = v2.Compose(
        [v2.Resize(27), v2.CenterCrop(24), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    for i, path in enumerate(test.paths):
        difference = (test[i][0] - usual(decode_rgb(path))).abs().max()
        assert difference <= 1.01 / 255 / min(STD)  # resizing bytes rounds: one level


# Decoding.


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "JPEG", {"quality": 90}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True}),
        ("RGB", "PNG", {}),
        ("P", "PNG", {}),
        ("RGB", "WEBP", {"lossless": True}),
    ],
)
def test_decoding_gives_pillows_pixels(mode, kind, options, tmp_path):
    content = encoded(photo().convert(mode), kind, **options)
    expected = torch.from_numpy(np.array(decode_rgb(content))).permute(2, 0, 1)
    assert torch.equal(decode_tensor(content, 40), expected)
    (tmp_path / "image").write_bytes(content)
    assert torch.equal(decode_tensor(str(tmp_path / "image"), 21), expected)


@pytest.mark.parametrize(("least", "height"), [(201, 400), (200, 200), (101, 200), (100, 100), (30, 50)])
def test_large_jpeg_images_are_decoded_smaller_but_never_too_small(least, height):
    content = encoded(photo(600, 400), "JPEG", quality=95)
    assert decode_tensor(content, least).shape == (3, height, height * 3 // 2)


def test_decoding_smaller_is_close_to_decoding_and_resizing():
    content = encoded(photo(600, 400), "JPEG", quality=95)
    whole = torch.from_numpy(np.array(decode_rgb(content))).permute(2, 0, 1)
    squares = [cut_square(image, 87, None).int() for image in (decode_tensor(content, 99), whole)]
    assert (squares[0] - squares[1]).abs().max() <= 12
    assert functional.l1_loss(squares[0].float(), squares[1].float()) < 1
