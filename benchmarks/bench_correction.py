"""The correction phase of a training run, against one evaluation pass over the same images.

    python benchmarks/bench_correction.py                  # rows of the host
    python benchmarks/bench_correction.py --device cuda    # rows of a GPU
    python benchmarks/bench_correction.py --quick          # seconds; prints, keeps nothing

Both walk over all images with the same network in the same batches. What the phase does beyond that is to keep
the features, to pick prototypes among them and to score every image. The network has fresh weights: what it
computes costs the same as after training.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from checks import require
from command import main
from machine import num_processors
from parts import Bench, Case, Side, Variant, Work
from proto_trainer import LabelCorrector, accuracy, build_model, extract_features
from proto_trainer.data import TensorImages
from proto_trainer.features import to_half
from proto_trainer.seeding import derive_seed

import proto_engine as pe

if TYPE_CHECKING:
    from places import Place

PHASE, EVALUATION = "correction phase", "evaluation pass"
_BATCH = 512
_NOISE = 0.4  # share of labels drawn at random


class Inputs:
    """Noisy images of classes that differ in their pixels, and a network."""

    def __init__(self, case: Case, folder: Path, place: Place, *, model: str, shape: tuple[int, int, int]) -> None:
        rng = np.random.default_rng(0)
        n, num_classes = case["num_samples"], case["num_classes"]
        means = rng.integers(0, 200, (num_classes, *shape), dtype=np.uint8)
        truth = np.arange(n) % num_classes
        images = means[truth] + rng.integers(0, 56, (n, *shape), dtype=np.uint8)
        given = np.where(rng.random(n) < _NOISE, rng.integers(0, num_classes, n), truth)
        names = [str(c) for c in range(num_classes)]
        self.images = TensorImages(torch.from_numpy(images), torch.from_numpy(given), names, mean=0.5, std=0.3)
        torch.manual_seed(0)
        device = "cuda" if place.name == "cuda" else "cpu"
        network = build_model(model, num_classes=num_classes, image_shape=shape)
        self.model = network.to(device, memory_format=torch.channels_last)


def phase(inputs: Inputs) -> np.ndarray:
    corrector = LabelCorrector(num_classes=inputs.images.num_classes, start_epoch=0, batch_size=_BATCH)
    corrector.update(inputs.model, inputs.images, epoch=0)
    return corrector.corrections.labels


def evaluation(inputs: Inputs) -> float:
    return accuracy(inputs.model, inputs.images, batch_size=_BATCH)


def variants(case: Case, place: Place) -> list[Variant]:
    full = num_processors()
    return [
        Variant("accuracy", EVALUATION, "roofline", full, evaluation, ends_on_host=True),
        Variant("LabelCorrector", PHASE, "ours", full, phase, ends_on_host=True),
    ]


def checker(case: Case, inputs: Inputs) -> Callable[[Variant, Any], None]:
    """The phase's labels are those of the engine for the same features, the accuracy that of the logits."""
    labels = inputs.images.given.numpy()
    features, _ = extract_features(inputs.model, inputs.images, batch_size=_BATCH)
    logits, _ = extract_features(
        inputs.model, inputs.images, features=lambda model, images: model(images), batch_size=_BATCH
    )

    def check(variant: Variant, result: Any) -> None:
        if variant.task == EVALUATION:
            require(result == (logits.argmax(axis=1) == labels).mean(), f"accuracy: got {result}")
            return
        bank = to_half(torch.from_numpy(features)).numpy()
        with warnings.catch_warnings():  # that fresh weights make features alike
            warnings.simplefilter("ignore")
            prototypes = pe.select_prototypes(bank, labels, seed=derive_seed(0, "pools", 0))
        expected = pe.correct_labels(bank, labels, prototypes).labels
        require(np.array_equal(result, expected), f"{(result != expected).sum()} labels differ from the engine's")

    return check


def work(case: Case) -> Work:
    """Images and networks differ; time against time is all there is to compare."""
    return {"flops": None, "bytes": None}


def side(model: str, shape: tuple[int, int, int], cases: list[Case], gpu_check: tuple[Case, ...] = ()) -> Side:
    return Side(
        cases=cases,
        quick=[{"num_samples": 600, "num_classes": 4}],
        gpu_check=gpu_check,
        inputs=lambda case, folder, place: Inputs(case, folder, place, model=model, shape=shape),
        variants=variants,
        checker=checker,
        tiny=lambda case: {**case, "num_samples": 20 * case["num_classes"]},
    )


_CASES = [{"num_samples": 60_000, "num_classes": 10}, {"num_samples": 60_000, "num_classes": 100}]
BENCH = Bench(
    name="bench_correction",
    script=Path(__file__).resolve(),
    sizes=("num_samples", "num_classes"),
    work=work,
    host=side("small-cnn", (1, 28, 28), _CASES),
    gpu=side("resnet18", (3, 32, 32), [{**case, "dtype": "float16"} for case in _CASES]),
)

if __name__ == "__main__":
    sys.exit(main(BENCH, sys.argv[1:]))
