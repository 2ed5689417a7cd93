"""Calibration where rows are few for the K^2 weights: they are held near those of one slope for all classes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import proto_engine as pe
from proto_engine.evidence import calibration, maximization
from proto_engine.evidence import one_slope as one_slope_module
from proto_engine.evidence.anchors import Clarity
from proto_engine.evidence.calibration import calibrate, with_constant
from proto_engine.evidence.maximization import FREE, HELD, Course, expectation_maximization
from proto_engine.evidence.one_slope import one_slope

NOISE = np.array([[0.8, 0.15, 0.05], [0.0, 0.7, 0.3], [0.25, 0.05, 0.7]])
CONSTANTS = np.array([0.5, -0.5, 0.0])


def noisy_scores(n: int, slope: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose posteriors are ``softmax(slope s + CONSTANTS)``, and labels drawn through NOISE.   [n, 3], [n]"""
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((n, 3))
    classes = np.exp(slope * scores + CONSTANTS)
    classes /= classes.sum(axis=1, keepdims=True)
    truth = (classes.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return scores.astype(np.float32), (NOISE[truth].cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)


def log_likelihood(inputs: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> float:
    classes = np.exp(inputs.astype(np.float64) @ weights)
    classes /= classes.sum(axis=1, keepdims=True)
    return float(np.log((classes * NOISE.T[labels]).sum(axis=1)).sum())


@pytest.mark.parametrize("slope", [0.5, 3.0])
def test_one_slope_and_the_constants_are_recovered(slope):
    scores, labels = noisy_scores(20_000, slope)
    weights = one_slope(scores, labels, NOISE)
    np.testing.assert_array_equal(weights[:3], weights[0, 0] * np.eye(3, dtype=np.float32))
    assert weights[0, 0] == pytest.approx(slope, rel=0.05)
    np.testing.assert_allclose(weights[3] - weights[3].mean(), CONSTANTS, atol=0.06)


def test_one_slope_is_where_the_likelihood_is_greatest():
    scores, labels = noisy_scores(500, 2.0)
    inputs, weights = with_constant(scores), one_slope(scores, labels, NOISE).astype(np.float64)
    best = log_likelihood(inputs, weights, labels)
    for sign in (-1, 1):
        assert log_likelihood(inputs, weights + sign * 0.05 * np.eye(4, 3), labels) < best
        for c in range(3):
            assert (
                log_likelihood(inputs, weights + sign * 0.05 * np.outer([0, 0, 0, 1], np.arange(3) == c), labels) < best
            )


def test_steps_with_a_hold_never_lower_what_is_maximized():
    scores, labels = noisy_scores(80, 2.0)
    inputs, hold = with_constant(scores), 0.01
    held = one_slope(scores, labels, NOISE)
    pull = hold * np.trace(inputs.T.astype(np.float64) @ inputs) / 4
    course = []
    for count in range(25):
        weights, _ = expectation_maximization(inputs, labels, NOISE, Course(count, 0, 1.0, hold), momentum=False)
        course.append(log_likelihood(inputs, weights, labels) - pull / 2 * ((weights - held) ** 2).sum())
    assert (np.diff(course) > -1e-4).all()
    assert course[-1] > course[0] + 0.1


@pytest.mark.parametrize("momentum", [False, True])
def test_steps_that_are_too_long_are_halved_until_they_lower_nothing(momentum):
    scores, labels = noisy_scores(200, 2.0)
    inputs, hold = with_constant(scores), 0.01
    held = one_slope(scores, labels, NOISE)
    pull = hold * np.trace(inputs.T.astype(np.float64) @ inputs) / 4

    def value(steps, length):
        weights, _ = expectation_maximization(
            inputs, labels, NOISE, Course(steps, 0, length, hold), momentum=momentum and length > 1
        )
        return log_likelihood(inputs, weights, labels) - pull / 2 * ((weights - held) ** 2).sum()

    best = value(400, 1.0)
    assert value(1, 64.0) < value(0, 64.0) - 1  # of three classes: far too long
    assert value(40, 64.0) == pytest.approx(best, abs=0.02)


def test_the_steps_for_many_classes_go_as_far_as_many_short_ones():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(40), 60)
    scores = (0.06 * rng.standard_normal((2400, 40)) + 0.2 * np.eye(40)[truth]).astype(np.float32)
    labels = np.where(rng.random(2400) < 0.3, (truth + 1) % 40, truth)
    inputs, start = with_constant(scores), 0.6 * np.eye(40) + 0.01
    short = Course(60, 100, 1.0, HELD.hold)
    found = [expectation_maximization(inputs, labels, start, course) for course in (HELD, short)]
    chosen = [(inputs @ weights).argmax(axis=1) for weights, _ in found]
    assert (chosen[0] == chosen[1]).mean() > 0.99
    np.testing.assert_allclose(found[0][1], found[1][1], atol=0.02)
    assert HELD.warm_steps + HELD.steps < 40


@pytest.mark.parametrize("at_once", [1, 700, 2**30])
def test_rows_come_some_at_a_time_and_change_nothing(at_once, monkeypatch):
    scores, labels = noisy_scores(500, 2.0)
    whole = expectation_maximization(with_constant(scores), labels, NOISE, HELD)
    for module in (maximization, one_slope_module):
        monkeypatch.setattr(module, "_AT_ONCE", at_once)
    parts = expectation_maximization(with_constant(scores), labels, NOISE, HELD)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_a_slope_of_any_size_is_reached():
    scores, labels = noisy_scores(2000, 2.0)
    for scale in (1e-4, 10.0):
        weights = one_slope((scores * scale).astype(np.float32), labels, NOISE)
        assert weights[0, 0] * scale == pytest.approx(one_slope(scores, labels, NOISE)[0, 0], rel=0.02)


def test_a_strong_hold_keeps_one_slope_and_none_forgets_it():
    scores, labels = noisy_scores(80, 2.0)
    inputs, held = with_constant(scores), one_slope(scores, labels, NOISE)
    strong, _ = expectation_maximization(inputs, labels, NOISE, Course(hold=1e6))
    np.testing.assert_allclose(strong, held, atol=1e-4)
    none, _ = expectation_maximization(inputs, labels, NOISE, Course(hold=0.0))
    plain, _ = expectation_maximization(inputs, labels, NOISE)
    np.testing.assert_array_equal(none, plain)
    assert np.abs(none - held).max() > 0.5


@pytest.mark.parametrize(("rows", "wanted"), [(35, HELD), (36, FREE)])
def test_weights_are_held_where_rows_are_few_for_their_number(rows, wanted, monkeypatch):
    def recorded(inputs, labels, start, course):
        courses.append(course)
        return one_slope(inputs[:, :-1], labels, start), start

    courses: list[Course] = []
    monkeypatch.setattr(calibration, "expectation_maximization", recorded)
    scores, labels = noisy_scores(rows, 2.0)
    calibrate(scores, labels, Clarity.of(scores), seed=0)
    assert courses == [wanted]  # 4 rows for each of 9 weights


@pytest.mark.parametrize(
    ("kind", "gain"), [("symmetric", 0.01), ("pairs", -0.02)]
)  # pairs need no help, and lose little
def test_many_classes_of_few_rows_are_told_apart(kind, gain, monkeypatch):
    rng = np.random.default_rng(1)
    truth = np.repeat(np.arange(60), 40)
    x = (0.5 * rng.standard_normal((60, 64))[truth] + rng.standard_normal((2400, 64))).astype(np.float32)
    other = rng.integers(0, 60, 2400) if kind == "symmetric" else (truth + 1) % 60
    given = np.where(rng.random(2400) < 0.25, other, truth)
    wrong, right, ranking = given != truth, {}, {}
    for rows_per_weight in (0, calibration.ROWS_PER_WEIGHT):
        monkeypatch.setattr(calibration, "ROWS_PER_WEIGHT", rows_per_weight)
        found = pe.correct_labels(x, given)
        right[rows_per_weight] = (found.likely == truth).mean()
        ranking[rows_per_weight] = roc_auc_score(wrong, found.issue_score)
    free, held = right.values()
    assert held > free + gain and held > 1 - wrong.mean() + 0.1
    free, held = ranking.values()
    assert held > free - 0.01 and held > 0.95
