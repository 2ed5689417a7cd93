"""Evidence where classes are many: labels that are right before and after, on classes drawn from Gaussians.

    python benchmarks/many_classes.py

Minutes on two cores; prints the numbers that docs/evidence.md has on many classes.
"""

from __future__ import annotations

import time
import warnings
from typing import NamedTuple

import numpy as np

import proto_engine as pe

DIM = 128


class Setting(NamedTuple):
    classes: int
    rows: int  # of each class
    spread: float  # standard deviation of the means along a dimension; that of the rows about them is 1
    kind: str
    noise: float


SETTINGS = (
    Setting(300, 50, 0.5, "symmetric", 0.2),
    Setting(200, 200, 0.35, "symmetric", 0.3),
    Setting(200, 200, 0.35, "pairflip", 0.4),
    Setting(1000, 100, 0.5, "symmetric", 0.2),
    Setting(1000, 40, 0.35, "symmetric", 0.2),
)


def problem(setting: Setting, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [N, D] float32, true labels and given ones [N]."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(setting.classes), setting.rows)
    means = setting.spread * rng.standard_normal((setting.classes, DIM))
    features = (means[truth] + rng.standard_normal((len(truth), DIM))).astype(np.float32)
    flipped = rng.random(len(truth)) < setting.noise
    other = rng.integers(0, setting.classes, len(truth)) if setting.kind == "symmetric" else truth + 1
    return features, truth, np.where(flipped, other % setting.classes, truth)


def main() -> None:
    """Print a line for each setting."""
    warnings.simplefilter("ignore")  # the published rule has more to say about such classes
    for setting in SETTINGS:
        features, truth, given = problem(setting)
        began = time.perf_counter()
        found = pe.correct_labels(features, given)
        seconds = time.perf_counter() - began
        published = pe.correct_labels(features, given, pe.select_prototypes(features, given))
        before, after, rule = ((labels == truth).mean() for labels in (given, found.labels, published.labels))
        changed = found.labels != given
        right, expected = (found.labels == truth)[changed].sum(), found.expected_right
        number = max(1, changed.sum())
        print(
            f"{setting.classes} x {setting.rows}, {setting.noise:.0%} {setting.kind}: "
            f"right {before:.3f} -> {after:.3f} in {seconds:.0f} s, of {changed.sum()} changes right "
            f"{right / number:.3f}, expected {expected / number:.3f}; published rule {rule:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
