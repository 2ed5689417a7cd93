"""From JPEG files to batches of float32, with 0, 1 and 2 processes that load: time for all images.

    python benchmarks/bench_input.py            # 1,200 photographs of 500 x 400 and 600 of 1000 x 800 pixels
    python benchmarks/bench_input.py --quick    # seconds; prints, keeps nothing

Ours is the loader of the trainer, in the view that tests and feature extraction use. The baseline is the usual way:
Pillow decodes whole images, torchvision's transforms take Pillow's images, and processes send float32.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from checks import require
from command import main
from machine import num_processors
from parts import Bench, Case, Side, Variant, Work
from PIL import Image
from proto_trainer.data import make_loader
from proto_trainer.data.decoding import decode_rgb
from proto_trainer.data.files import FileImages
from proto_trainer.data.views import MEAN, STD, short_edge
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

if TYPE_CHECKING:
    from places import Place

_SIZE, _BATCH = 224, 32
_WORKERS = (0, 1, 2)


def prepare(case: Case, folder: Path) -> None:
    """Smooth color fields with noise on top: files about as large as photographs of the size."""
    rng = np.random.default_rng(0)
    size = (case["width"], case["height"])
    for i in range(case["images"]):
        field = Image.fromarray(rng.integers(0, 256, (25, 32, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        pixels = np.asarray(field) + rng.normal(0, 8, (size[1], size[0], 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:05}.jpg", quality=85)


class PillowImages(Dataset):
    """The usual data set of files: an image at a time."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths
        self.view = v2.Compose(
            [
                v2.Resize(short_edge(_SIZE)),
                v2.CenterCrop(_SIZE),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.view(decode_rgb(self.paths[i])), i


class Inputs:
    """The same files as two data sets."""

    def __init__(self, case: Case, folder: Path, place: Place) -> None:
        paths = sorted(str(path) for path in folder.glob("*.jpg"))
        labels = torch.zeros(len(paths), dtype=torch.int64)
        self.ours = FileImages(paths, labels, ["all"], image_size=_SIZE, augment=False)
        self.usual = PillowImages(paths)


def walk(batches: Any) -> tuple[int, Tensor]:
    """The number of images, and the first batch."""
    count, first = 0, torch.empty(0)
    for images, *_ in batches:
        first = first if count else images.clone()
        count += len(images)
    return count, first


def ours(inputs: Inputs, workers: int) -> tuple[int, Tensor]:
    return walk(make_loader(inputs.ours, _BATCH, workers=workers))


def usual(inputs: Inputs, workers: int) -> tuple[int, Tensor]:
    return walk(DataLoader(inputs.usual, _BATCH, num_workers=workers))


def variants(case: Case, place: Place) -> list[Variant]:
    full = num_processors()
    return [
        Variant(name, f"{workers} workers", role, full, lambda inputs, call=call, w=workers: call(inputs, w))
        for workers in _WORKERS
        for name, role, call in (("make_loader", "ours", ours), ("Pillow", "baseline", usual))
    ]


def checker(case: Case, inputs: Inputs) -> Callable[[Variant, Any], None]:
    """All images, and nearly the pixels of the usual way: rounded once more, or decoded at a smaller size."""
    expected = torch.stack([inputs.usual[i][0] for i in range(min(_BATCH, case["images"]))])

    def check(variant: Variant, result: Any) -> None:
        count, first = result
        require(count == case["images"], f"{variant.name}: {count} images")
        difference = (first - expected).abs().mean().item()
        require(difference < 0.02, f"{variant.name}: pixels differ by {difference:.3f} on average")

    return check


def no_work(case: Case) -> Work:
    return {"flops": None, "bytes": None}


def cases(*sizes: tuple[int, int, int]) -> list[Case]:
    return [dict(zip(("images", "width", "height"), size, strict=True)) for size in sizes]


_SIDE: dict[str, Any] = {
    "inputs": Inputs,
    "variants": variants,
    "checker": checker,
    "prepare": prepare,
    "tiny": lambda case: {**case, "images": 2},
}

BENCH = Bench(
    name="bench_input",
    script=Path(__file__).resolve(),
    sizes=("images", "width", "height"),
    work=no_work,
    host=Side(cases=cases((1200, 500, 400), (600, 1000, 800)), quick=cases((20, 500, 400)), **_SIDE),
    gpu=Side(cases=(), quick=(), **_SIDE),  # decoding is the processor's
)

if __name__ == "__main__":
    sys.exit(main(BENCH, sys.argv[1:]))
