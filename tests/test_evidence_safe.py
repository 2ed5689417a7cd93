"""Where labels and features do not allow a judgment, no label is changed and every number is finite."""

from __future__ import annotations

import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from test_evidence import assert_finite, clusters, spoil

import proto_engine as pe
from proto_engine.evidence import label_evidence


def assert_nothing_changed(evidence) -> None:
    assert_finite(evidence)
    assert not evidence.confident().any()


@pytest.mark.parametrize("labels", [np.zeros(100, dtype=np.int64), np.arange(100), np.arange(100) // 19])
def test_safe_without_two_classes_of_twenty_rows(labels):
    x, _ = clusters(n=100)
    evidence = label_evidence(x, labels)
    assert_nothing_changed(evidence)
    assert evidence.reason == "fewer than two classes have 20 usable rows"
    np.testing.assert_array_equal(evidence.suggested, labels)
    assert not evidence.trusted.any()


@pytest.mark.parametrize("offset", [1.0, 1e4])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_safe_on_constant_features(dtype, offset):
    row = (np.arange(1, 9) / 7 + offset).astype(dtype)
    evidence = label_evidence(np.tile(row, (5000, 1)), np.arange(5000) % 3)
    assert_nothing_changed(evidence)
    assert evidence.reason == "the features are the same in all rows"


def test_safe_on_rows_that_are_all_zero():
    evidence = label_evidence(np.zeros((100, 4), dtype=np.float32), np.arange(100) % 2, on_bad_rows="keep-label")
    assert_nothing_changed(evidence)
    assert evidence.reason is not None


def test_safe_on_features_beyond_float64_squares():
    x, truth = clusters(n=400)
    evidence = label_evidence(x.astype(np.float64) * 1e200, truth)
    assert_nothing_changed(evidence)
    assert evidence.reason is not None


@pytest.fixture(scope="module")
def spoiled():
    """Features, labels, and what evidence says of them."""
    x, truth = clusters()
    labels = spoil(truth, 0.2, "symmetric")
    return x, labels, label_evidence(x.astype(np.float64), labels)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [2.0**515, 2.0**-515, 2.0**1018, 2.0**-990, 2.0**300, 2.0**-300])
def test_evidence_is_the_same_for_features_of_any_scale(spoiled, scale):
    x, labels, wanted = spoiled
    evidence = label_evidence(x.astype(np.float64) * scale, labels)
    for name in ("issue_score", "suggested", "probability", "lead", "noise_matrix", "noise", "reason"):
        np.testing.assert_array_equal(getattr(evidence, name), getattr(wanted, name))


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (np.float32, 2.0**-136),
        (np.float32, 2.0**-128),
        (np.float32, 2.0**124),
        (ml_dtypes.bfloat16, 2.0**-128),
        (ml_dtypes.bfloat16, 2.0**124),
    ],
)
def test_evidence_is_that_of_the_digits_which_small_numbers_have_left(spoiled, dtype, scale):
    x, labels, _ = spoiled
    stored = (x.astype(np.float64) * scale).astype(dtype)
    same = (stored.astype(np.float64) / scale).astype(np.float32)
    evidence, wanted = label_evidence(stored, labels), label_evidence(same, labels)
    np.testing.assert_array_equal(evidence.issue_score, wanted.issue_score)
    assert evidence.reason is None and evidence.confident().sum() > 400


def test_rows_that_vanish_beside_much_larger_ones_are_usable():
    x, truth = clusters(n=400)
    x = x.astype(np.float64)
    x[0], x[1], x[2] = 1e300, 1e-300, 0.0
    evidence = label_evidence(x, truth, on_bad_rows="keep-label")
    np.testing.assert_array_equal(np.flatnonzero(~evidence.usable), [2])
    assert_finite(evidence)


def test_safe_with_two_classes_swapped():
    x, truth = clusters()
    labels = np.choose(truth, [1, 0, 2, 3, 4])  # names alone: nothing in the features can tell
    evidence = label_evidence(x, labels)
    assert_nothing_changed(evidence)
    assert evidence.reason is not None


def test_safe_on_random_labels():
    x, _ = clusters()
    evidence = label_evidence(x, np.random.default_rng(3).integers(0, 5, len(x)))
    assert_nothing_changed(evidence)
    assert evidence.reason is not None


def test_safe_when_the_core_of_a_class_is_another_class():
    x, truth = clusters(n=4000)
    labels = truth.copy()
    rng = np.random.default_rng(5)
    labels[(truth == 0) & (rng.random(len(truth)) < 0.9)] = 4  # class 0 is nearly gone under its name
    labels[np.flatnonzero(truth == 1)[:250]] = 0  # and what bears its name is a part of class 1
    evidence = label_evidence(x, labels)
    assert_finite(evidence)
    assert not evidence.trusted[0]
    changed = evidence.confident()
    assert (np.where(changed, evidence.suggested, labels) == truth).mean() >= (labels == truth).mean()
    assert not (evidence.suggested[changed] == 0).any()


def test_safe_with_a_class_of_one_row():
    x, truth = clusters()
    labels = spoil(truth, 0.2, "symmetric")
    labels[11] = 5
    evidence = label_evidence(x, labels, num_classes=7)
    assert_finite(evidence)
    assert evidence.reason is None
    assert evidence.suggested[11] == 5
    assert evidence.issue_score[11] == 0.0
    assert not evidence.trusted[5:].any()
    assert evidence.trusted[:5].all()
    assert evidence.confident().sum() > 400  # the other classes are judged all the same
    np.testing.assert_array_equal(evidence.noise_matrix[5:, 5:], np.eye(2))


@pytest.mark.parametrize("n", [60, 100, 200])
def test_safe_with_fewer_rows_than_dimensions(n):
    x, truth = clusters(n=n, d=300, num_classes=2)
    evidence = label_evidence(x, truth)
    assert_nothing_changed(evidence)


def test_safe_with_constant_dimensions():
    x, truth = clusters()
    x[:, 5:9] = 3.0
    x[:, 9] = 1e6
    labels = spoil(truth, 0.2, "symmetric")
    evidence = label_evidence(x, labels)
    assert_finite(evidence)
    changed = evidence.confident()
    assert (evidence.suggested == truth)[changed].mean() > 0.85
    assert changed.sum() > 400


def test_safe_with_more_classes_than_rows():
    x, _ = clusters(n=60)
    evidence = label_evidence(x, np.arange(60) % 2 * 80, num_classes=100)
    assert_finite(evidence)
    assert evidence.noise_matrix.shape == (100, 100)
    assert_nothing_changed(label_evidence(x, np.arange(60), num_classes=100))
    assert label_evidence(x[:1], np.zeros(1, dtype=np.int64)).reason is not None


def test_memory_does_not_grow_with_the_square_of_a_class_number():
    x, truth = clusters()
    labels = spoil(truth, 0.2, "symmetric")
    labels[7] = 3_000_000  # of which a matrix would take 65 TiB
    tracemalloc.start()
    evidence = label_evidence(x, labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6
    labels[7] = 5
    few = label_evidence(x, labels)
    for name in ("issue_score", "probability", "lead", "judged", "judged_noise"):
        np.testing.assert_array_equal(getattr(evidence, name), getattr(few, name))
    np.testing.assert_array_equal(few.judged, np.arange(5))
    np.testing.assert_array_equal(few.noise_matrix[:5, :5], few.judged_noise)
    np.testing.assert_array_equal(evidence.confident(), few.confident())
    assert evidence.confident().sum() > 400
    assert pe.correct_labels(x, labels).labels[7] == 5


@pytest.mark.parametrize(("num_classes", "size"), [(1000, 3), (70_000, 2)])
def test_safe_with_many_classes_of_few_rows(num_classes, size):
    labels = np.repeat(np.arange(num_classes), size)
    x = np.random.default_rng(0).standard_normal((len(labels), 4)).astype(np.float32)
    evidence = label_evidence(x, labels)
    assert evidence.reason == "fewer than two classes have 20 usable rows"
    assert len(evidence.judged) == 0 and evidence.trusted.shape == (num_classes,)
    assert not evidence.confident().any()


@pytest.mark.parametrize("wrong", [0.0, 0.05])
def test_safe_with_features_that_mix_up_a_third_of_the_rows(wrong):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 10, 6000)
    x = (rng.standard_normal((6000, 32)) + 0.35 * rng.standard_normal((10, 32))[truth]).astype(np.float32)
    labels = spoil(truth, wrong, "symmetric", 10)
    evidence = label_evidence(x, labels)
    assert evidence.noise > 0.05  # what is wrong is the features
    assert_nothing_changed(evidence)
    assert "too few to be told from errors of the features" in evidence.reason
