"""The numbers that the paper prints (Han, Luo, Wang, ICCV 2019), in percent: what our tables show beside ours.

A number belongs to a data set, a table of `paper_variants.TABLES`, one of its lines, and a column of its rows.
"""

from __future__ import annotations

Lines = dict[str, dict[str, float]]  # line -> column -> percent


def _test(**accuracies: float) -> Lines:
    """Lines with a test accuracy each; ``__`` stands for " + ", ``_`` for "-"."""
    return {line.replace("__", " + ").replace("_", "-"): {"test_accuracy": value} for line, value in accuracies.items()}


def _both(at_first: float, at_last: float) -> dict[str, float]:
    """Test accuracy after the epoch of the first correction, and after the last epoch."""
    return {"test_accuracy_first": at_first, "test_accuracy": at_last}


PAPER: dict[str, dict[str, Lines]] = {
    "clothing1m": {
        "methods": _test(
            ce=69.54, forward=69.84, joint=72.23, mlnt=73.47, smp=74.45,
            cleannet_hard__verified=74.15, cleannet_soft__verified=74.69,
        ),
        "extra": _test(
            forward__verified=73.11, cleannet_hard__verified=74.15, cleannet_soft__verified=74.69,
            smp__verified=76.44,
            ce__clean=80.27, forward__clean=80.38, cleannet_soft__clean=79.90, smp__clean=81.16,
        ),
        "samples": {
            "m = 320": _both(72.04, 74.37),
            "m = 640": _both(72.03, 74.07),
            "m = 1280": _both(72.09, 74.45),
            "m = 2560": _both(72.05, 74.27),
            "m = 320 + verified": _both(74.09, 76.43),
            "m = 640 + verified": _both(73.97, 76.49),
            "m = 1280 + verified": _both(74.17, 76.44),
            "m = 2560 + verified": _both(74.21, 76.55),
        },
        "selectors": {
            "k-means++": {"test_accuracy": 74.08},
            "density peaks, Euclidean": {"test_accuracy": 74.11},
            "density peaks": {"test_accuracy": 74.45},
            "k-means++ + verified": {"test_accuracy": 76.22},
            "density peaks, Euclidean + verified": {"test_accuracy": 76.05},
            "density peaks + verified": {"test_accuracy": 76.44},
        },
        "label-accuracy": {
            "smp": {"label_accuracy_given": 61.74, "label_accuracy_first": 74.38, "label_accuracy_last": 77.36},
        },
    },
    "food101n": {
        "methods": _test(ce=84.51, cleannet_hard__verified=83.47, cleannet_soft__verified=83.95, smp=85.11),
    },
}  # fmt: skip
