"""The steps of label evidence, each against a plain computation of the same thing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from proto_engine.bank import FeatureBank
from proto_engine.evidence import calibration, shrinkage
from proto_engine.evidence.anchors import Clarity, anchor_labels
from proto_engine.evidence.calibration import calibrate, with_constant
from proto_engine.evidence.landmarks import GAMMA, LANDMARKS, LandmarkKernel, draw_landmarks
from proto_engine.evidence.maximization import Course, expectation_maximization
from proto_engine.evidence.ridge import FOLDS, RIDGE, FoldedSums, fold_numbers
from proto_engine.evidence.second_opinion import LAPSE_ROWS, SecondOpinion
from proto_engine.evidence.shrinkage import shrunk_noise_matrix
from proto_engine.evidence.trust import Trust, judge
from proto_engine.evidence.whitening import FLOOR, POWER, fit_half_whitening
from proto_engine.moments import bank_moments


def rows_of(n: int = 900, d: int = 10, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 3).astype(np.float32)


def out_of_fold(features: np.ndarray, labels: np.ndarray, num_classes: int, folds: np.ndarray) -> np.ndarray:
    sums = FoldedSums(features.shape[1], num_classes)
    for low in range(0, len(features), 250):  # several blocks
        part = slice(low, low + 250)
        sums.add(features[part], labels[part], folds[part])
    return sums.solve().predict(features, folds)


def test_whitening_is_the_power_of_the_covariance():
    x = rows_of()
    whitening = fit_half_whitening(bank_moments(x), x.dtype)
    double = x.astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(double.T, bias=True))
    expected = (double - double.mean(axis=0)) @ (vectors * (values + FLOOR * values.mean()) ** -POWER) @ vectors.T
    got = whitening.centered(x) @ whitening.matrix
    ratio = np.linalg.norm(got) / np.linalg.norm(expected)  # a common factor is free: only directions count
    np.testing.assert_allclose(got / ratio, expected, atol=1e-4)


def test_landmark_features_are_kernel_values_less_a_shift():
    x = rows_of()
    whitening = fit_half_whitening(bank_moments(x), x.dtype)
    landmarks = draw_landmarks(np.arange(len(x)), 0)
    kernel = LandmarkKernel(FeatureBank(x), landmarks, whitening)
    z = (whitening.centered(x) @ whitening.matrix).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    expected = np.exp(GAMMA * (z @ z[landmarks].T - 1))
    first, norms = kernel.first(x)
    np.testing.assert_allclose(first, expected - expected[landmarks].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(kernel.again(x, norms), first, atol=1e-5)


def test_landmarks_are_distinct_candidates_and_depend_on_the_seed():
    candidates = np.arange(5, 50_005)
    drawn = draw_landmarks(candidates, 1)
    assert len(np.unique(drawn)) == LANDMARKS
    assert np.isin(drawn, candidates).all()
    np.testing.assert_array_equal(drawn, np.sort(drawn))
    assert (drawn != draw_landmarks(candidates, 2)).any()
    assert len(draw_landmarks(np.arange(2), 0)) == 1


def test_folds_are_even_and_depend_on_the_seed():
    folds = fold_numbers(np.arange(50_000), 0)
    np.testing.assert_allclose(np.bincount(folds, minlength=FOLDS), 10_000, atol=400)
    agree = (folds == fold_numbers(np.arange(50_000), 1)).mean()
    assert agree == pytest.approx(1 / FOLDS, abs=0.01)
    np.testing.assert_array_equal(fold_numbers(np.arange(100, 200), 0), folds[100:200])
    assert fold_numbers(np.arange(3), 2**70).shape == (3,)  # a seed of any size


def test_ridge_predicts_as_ridge_refitted_without_the_fold():
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((900, 12)) + rng.standard_normal(12)).astype(np.float32)
    labels = rng.integers(-1, 3, 900)  # -1: rows of classes that are not judged
    folds = fold_numbers(np.arange(900), 7)
    got = out_of_fold(features, labels, 3, folds)
    targets = (labels[:, None] == np.arange(3)).astype(np.float64)
    for k in range(FOLDS):
        model = Ridge(alpha=RIDGE * features.var(axis=0, dtype=np.float64).mean())
        model.fit(features[folds != k].astype(np.float64), targets[folds != k])
        np.testing.assert_allclose(got[folds == k], model.predict(features[folds == k]), atol=2e-6)


def test_ridge_scores_of_a_row_do_not_depend_on_its_own_label():
    rng = np.random.default_rng(1)
    features, labels = rng.standard_normal((600, 8)).astype(np.float32), rng.integers(0, 3, 600)
    folds = fold_numbers(np.arange(600), 0)
    before = out_of_fold(features, labels, 3, folds)
    flipped = labels.copy()
    flipped[123] = (flipped[123] + 1) % 3
    after = out_of_fold(features, flipped, 3, folds)
    np.testing.assert_array_equal(after[folds == folds[123]], before[folds == folds[123]])
    assert (after[folds != folds[123]] != before[folds != folds[123]]).any()


def test_ridge_has_no_answer_where_features_do_not_vary():
    sums = FoldedSums(4, 2)
    sums.add(np.zeros((100, 4), dtype=np.float32), np.arange(100) % 2, fold_numbers(np.arange(100), 0))
    assert sums.solve() is None


def noisy_problem(n: int, noise: np.ndarray, seed: int = 0):
    """Logits of known posteriors, and labels drawn through a noise matrix.   [n, K] float32, [n]"""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal((n, len(noise)))
    posterior = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (posterior.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    labels = (noise[truth].cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return logits.astype(np.float32), labels.astype(np.int64), posterior


def log_likelihood(inputs: np.ndarray, weights: np.ndarray, noise: np.ndarray, labels: np.ndarray) -> float:
    logits = inputs.astype(np.float64) @ weights
    classes = np.exp(logits - logits.max(axis=1, keepdims=True))
    classes /= classes.sum(axis=1, keepdims=True)
    return float(np.log((classes * noise.T[labels]).sum(axis=1)).sum())


NOISE = np.array([[0.8, 0.15, 0.05], [0.0, 0.7, 0.3], [0.25, 0.05, 0.7]])


def test_calibration_steps_with_boehnings_bound_never_lower_the_likelihood():
    scores, labels, _ = noisy_problem(80, NOISE)
    inputs = with_constant(scores)
    course = []
    for count in range(25):
        weights, noise = expectation_maximization(inputs, labels, NOISE, Course(count, 0), momentum=False)
        np.testing.assert_array_equal(noise, NOISE)
        course.append(log_likelihood(inputs, weights, NOISE, labels))
    assert (np.diff(course) > -1e-4).all()
    assert course[-1] > course[0] + 5
    with_momentum, _ = expectation_maximization(inputs, labels, NOISE, Course(24, 0))
    assert log_likelihood(inputs, with_momentum, NOISE, labels) > course[-1]


def test_calibration_recovers_noise_matrix_and_posteriors():
    scores, labels, posterior = noisy_problem(20_000, NOISE)
    fitted = calibrate(scores, labels, Clarity.of(scores), seed=0)
    np.testing.assert_allclose(fitted.noise_matrix, NOISE, atol=0.05)
    np.testing.assert_allclose(fitted.noise_matrix.sum(axis=1), 1.0)
    expected = posterior * NOISE.T[labels]
    expected /= expected.sum(axis=1, keepdims=True)
    for found in fitted.posteriors(scores, labels):
        assert np.abs(found - expected).mean() < 0.03


def test_careful_probabilities_go_by_the_clearest_rows():
    scores, labels, _ = noisy_problem(20_000, NOISE)
    clarity = Clarity.of(scores)
    clearest = clarity.lead > np.quantile(clarity.lead, 0.9)
    labels[clearest] = clarity.winner[clearest]  # people do not err on clear rows
    fitted = calibrate(scores, labels, clarity, seed=0)
    posterior, careful = fitted.posteriors(scores, labels)
    other = posterior.argmax(axis=1) != labels
    given = (np.flatnonzero(other), labels[other])
    assert careful[given].mean() > posterior[given].mean() + 0.1


def test_careful_probabilities_doubt_a_model_of_few_rows():
    lapses = {}
    for n in (300, 20_000):
        scores, labels, _ = noisy_problem(n, NOISE)
        fitted = calibrate(scores, labels, Clarity.of(scores), seed=0)
        sure = np.array([[9.0, -4.0, -4.0]], dtype=np.float32)
        posterior, careful = fitted.posteriors(sure, np.array([1]))
        assert posterior[0, 0] > 0.99
        lapses[n] = 1.0 - careful[0, 0]
    assert lapses[300] > 20 * lapses[20_000]


def test_second_opinion_is_the_formula():
    opinion = SecondOpinion(NOISE, 0.4, 0.2, np.array([[0.0, 0.9, 0.1], [0.5, 0.0, 0.5], [1.0, 0.0, 0.0]]))
    got = opinion.posterior(np.array([[0.7, 0.1, 0.2], [0.05, 0.05, 0.9]]), np.array([1, 0]))
    # 0.8 p + 0.2 of where the likeliest class is confused, times the column of T of the given label
    expected = np.array([[0.56 * 0.15, 0.26 * 0.7, 0.18 * 0.05], [0.24 * 0.8, 0.04 * 0.0, 0.72 * 0.25]])
    np.testing.assert_allclose(got, expected / expected.sum(axis=1, keepdims=True))


def test_second_opinion_doubts_changes_between_classes_that_look_alike():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 600)
    scores = 4 * np.eye(3)[truth]
    alike = truth < 2
    scores[alike] = [0.0, 0.0, -6.0]  # classes 0 and 1 are told apart by a weak coordinate
    scores[alike, 0] = rng.normal(1.0 - 2.0 * truth[alike], 1.0)
    classes = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    opinion = SecondOpinion.of(classes, Clarity.of(scores), truth)
    overlap = 1 - classes.max(axis=1).mean()
    assert opinion.overlap == pytest.approx(overlap)
    assert opinion.lapses == pytest.approx(min(0.5, LAPSE_ROWS * overlap**2 / 200))
    assert (np.diag(opinion.confusions) == 0).all()
    assert opinion.confusions[0, 1] > 0.9
    assert opinion.confusions[1, 0] > 0.9
    even = np.full((3, 3), 0.05) + 0.85 * np.eye(3)
    opinion = SecondOpinion(even, overlap, opinion.lapses, opinion.confusions)
    sure = np.array([[0.998, 0.001, 0.001]] * 2)
    to_alike, to_other = opinion.posterior(sure, np.array([1, 2]))[:, 0]
    assert to_alike < to_other - 0.1


@pytest.mark.parametrize("num_classes", [2, 4])
def test_second_opinion_is_finite_with_a_class_that_is_never_likeliest(num_classes):
    classes = np.tile(np.linspace(0.6, 0.0, num_classes), (30, 1))
    classes /= classes.sum(axis=1, keepdims=True)
    labels = np.arange(30) % num_classes
    opinion = SecondOpinion.of(classes, Clarity.of(classes), labels)
    assert opinion.lapses == (0.5 if num_classes == 4 else 0.0)  # of so few rows as many as there may be, or none
    np.testing.assert_allclose(opinion.confusions.sum(axis=1), 1.0)
    np.testing.assert_allclose(opinion.confusions[-1, :-1], 1 / (num_classes - 1))  # lapses lead anywhere
    posterior = opinion.posterior(classes, labels)
    assert (posterior >= 0).all()
    np.testing.assert_allclose(posterior.sum(axis=1), 1.0)


def test_sharper_probabilities_are_a_power_of_the_fitted_ones():
    scores, labels, _ = noisy_problem(2_000, NOISE)
    clarity = Clarity.of(scores)
    start = shrunk_noise_matrix(anchor_labels(clarity, labels, 3, calibration.ANCHOR_SHARE))
    start = (start + calibration.SMOOTHING / 3) / (1 + calibration.SMOOTHING)
    weights, noise = expectation_maximization(with_constant(scores), labels, start)
    found = calibrate(scores, labels, clarity, seed=0)
    np.testing.assert_allclose(found.weights, calibration.SHARPNESS * weights, rtol=1e-5)
    np.testing.assert_allclose(found.noise_matrix, noise)


def test_shrinkage_is_the_formula(monkeypatch):
    monkeypatch.setattr(shrinkage, "_STRENGTHS", np.array([2.0]))
    noise = shrunk_noise_matrix(np.array([[8, 2, 0], [1, 9, 0], [1, 1, 18]]))
    # r = 5 of 40, b = 2, a = 2 / 2
    rates = np.array([(2 + 0.25) / 12, (1 + 0.25) / 12, (2 + 0.25) / 22])
    shares = [[(2 + 1) / 4, (0 + 1) / 4], [(1 + 1) / 3, (0 + 1) / 3], [(1 + 1) / 4, (1 + 1) / 4]]
    expected = [
        [1 - rates[0], rates[0] * shares[0][0], rates[0] * shares[0][1]],
        [rates[1] * shares[1][0], 1 - rates[1], rates[1] * shares[1][1]],
        [rates[2] * shares[2][0], rates[2] * shares[2][1], 1 - rates[2]],
    ]
    np.testing.assert_allclose(noise, expected)


def pairs(num_classes, rate):
    return (1 - rate) * np.eye(num_classes) + rate * np.roll(np.eye(num_classes), 1, axis=1)


@pytest.mark.parametrize("few", [20, 50])
def test_shrinkage_pulls_alike_classes_together_and_leaves_pairs_apart(few):
    rng = np.random.default_rng(few)
    for true, closer in ((np.full((10, 10), 0.02) + 0.8 * np.eye(10), 0.35), (pairs(10, 0.2), 1.0)):
        counts = np.array([rng.multinomial(few, row) for row in true])
        noise = shrunk_noise_matrix(counts)
        np.testing.assert_allclose(noise.sum(axis=1), 1.0)
        assert np.abs(noise - true).sum() < closer * np.abs(counts / few - true).sum()


@pytest.mark.parametrize("num_classes", [100, 1000])
def test_shrinkage_leaves_pairs_of_many_classes_apart(num_classes):
    rng = np.random.default_rng(0)
    counts = np.stack([rng.multinomial(20, row) for row in pairs(num_classes, 0.2)])
    partner = np.roll(shrunk_noise_matrix(counts), -1, axis=1).diagonal()
    assert partner.mean() == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("counts", [20 * np.eye(5), np.roll(20 * np.eye(5), 1, axis=1), np.array([[5, 1], [0, 1]])])
def test_shrinkage_of_clean_swapped_and_two_classes_is_a_noise_matrix(counts):
    noise = shrunk_noise_matrix(counts)
    assert (noise >= 0).all()
    np.testing.assert_allclose(noise.sum(axis=1), 1.0)
    if len(counts) == 5:
        np.testing.assert_allclose(np.diag(noise), np.diag(counts) / 20)


def test_calibration_draws_from_many_rows_and_stays_the_same():
    scores, labels, _ = noisy_problem(50_000, NOISE)
    some = calibrate(scores, labels, Clarity.of(scores), seed=0)
    np.testing.assert_allclose(some.noise_matrix, NOISE, atol=0.05)
    again = calibrate(scores, labels, Clarity.of(scores), seed=0)
    np.testing.assert_array_equal(some.weights, again.weights)
    assert (calibrate(scores, labels, Clarity.of(scores), seed=1).weights != some.weights).any()


def test_clarity_is_the_same_in_one_block_and_in_many(monkeypatch):
    scores = np.random.default_rng(0).random((100, 7), dtype=np.float32)
    whole = Clarity.of(scores)
    monkeypatch.setattr("proto_engine.evidence.anchors.SCORES_AT_ONCE", 50)
    parts = Clarity.of(scores)
    np.testing.assert_array_equal(parts.winner, whole.winner)
    np.testing.assert_array_equal(parts.lead, whole.lead)
    descending = np.sort(scores, axis=1)[:, ::-1]
    np.testing.assert_array_equal(whole.lead, descending[:, 0] - descending[:, 1])


def test_anchors_are_the_clearest_of_the_rows_that_a_class_wins():
    clarity = Clarity.of(np.array([[0.9, 0.1, 0.0]] * 60 + [[0.1, 0.2, 0.0]] * 40, dtype=np.float32))
    clarity.lead[:30] += 1.0  # the first 30 rows of class 0 are clearest
    labels = np.repeat([1, 0, 2], [30, 30, 40])
    counts = anchor_labels(clarity, labels, 3, 0.5)
    np.testing.assert_array_equal(counts, [[0, 30, 0], [0, 0, 20], [0, 0, 1]])


def test_trust_wants_anchors_that_bear_the_name_and_rows_that_are_won():
    winner = np.repeat([0, 1, 2, 3], 300)
    labels = winner.copy()
    labels[300:600] = np.where(np.arange(300) % 10 < 9, 2, 1)  # what class 1 wins is called 2
    labels[1000:1200] = 4  # two thirds of what class 3 wins is called 4, and class 4 wins nothing
    trust = judge(Clarity(winner, np.ones(1200, dtype=np.float32)), labels, 5)
    np.testing.assert_array_equal(trust.trusted, [True, False, True, False, False])
    assert trust.contradicted[1]
    assert (
        trust.objection(0.3, 0.2, 0.0, np.arange(10, 15)) == "the clearest rows of class 11 mostly bear another label"
    )


def trusted_with(own_of_40):
    """Trust in classes of 134 rows, whose 40 anchors bear their own label so often and else the next class's."""
    num_classes = len(own_of_40)
    winner = np.repeat(np.arange(num_classes), 134)
    labels = winner.copy()
    lead = np.ones(len(winner), dtype=np.float32)
    for c, own in enumerate(own_of_40):
        lead[134 * c : 134 * c + 40] = 2.0
        labels[134 * c + own : 134 * c + 40] = (c + 1) % num_classes
    return judge(Clarity(winner, lead), labels, num_classes)


def test_trust_of_small_classes_comes_from_all_of_them():
    # one standard error of 40 anchors is a lead of 6.3, three are 19
    assert not trusted_with([24, 24]).trusted.any()  # the other one leads by 8 of 40
    found = trusted_with([24] * 10)  # the nine others lead by 72 of 360, and three errors are 57
    assert found.trusted.all() and not found.contradicted.any()
    found = trusted_with([24] * 8 + [23, 30] + [10] + [24] * 9)  # 6 ahead is too little, and one has another name
    np.testing.assert_array_equal(np.flatnonzero(~found.trusted), [8, 10])
    assert found.contradicted[10]
    assert not trusted_with([20] * 10).trusted.any()


def test_trust_doubts_a_class_that_is_unlike_the_others():
    found = trusted_with([40] * 9 + [28])  # 16 ahead of 40; like the others it would lead by six errors
    np.testing.assert_array_equal(np.flatnonzero(~found.trusted), [9])
    assert trusted_with([40] * 9 + [30]).trusted.all()


def test_trust_wants_more_noise_the_more_the_classes_overlap():
    trust = Trust(trusted=np.ones(3, dtype=bool), contradicted=np.zeros(3, dtype=bool))
    names = np.arange(3)
    assert trust.objection(0.03, 0.3, 0.0, names) is None
    assert trust.objection(0.03, 0.304, 0.0, names) is None
    assert trust.objection(0.16, 0.36, 0.0, names) is None
    assert "0.130, is below 0.140" in trust.objection(0.13, 0.36, 0.0, names)


def test_trust_takes_noise_for_none_that_errors_of_the_features_explain():
    trust = Trust(trusted=np.ones(3, dtype=bool), contradicted=np.zeros(3, dtype=bool))
    assert trust.objection(0.03, 0.2, 0.0, np.arange(3)) is None
    reason = trust.objection(0.03, 0.2, 0.04, np.arange(3))
    assert reason == (
        "the estimated share of wrong labels, 0.030, is below 0.050: too few to be told from errors of the features"
    )
