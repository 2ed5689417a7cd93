"""Scores to probabilities for cleanlab, and its label issues back to corrections and verified labels."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from proto_trainer import ConfigError, train
from proto_trainer.integrations import cleanlab as integration
from proto_trainer.integrations.cleanlab import fit_temperature, from_cleanlab, pred_probs, save_verified
from scipy.special import softmax

import proto_engine as pe


def mean_log_likelihood(sigma, labels, temperature):
    return np.log(softmax(sigma / temperature, axis=1)[np.arange(len(labels)), labels]).mean()


@pytest.fixture
def scored():
    """Clustered features [N, D] of four classes, 30 % wrong labels, their truth and scores [N, C]."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 60)
    features = (rng.standard_normal((240, 16)) + 3 * np.eye(4, 16)[truth]).astype(np.float32)
    given = np.where(rng.random(240) < 0.3, (truth + 1) % 4, truth)
    prototypes = pe.select_prototypes(features, given)
    return features, given, truth, pe.score_samples(features, prototypes), prototypes


# To cleanlab.


@pytest.mark.parametrize("share", [0.6, 0.75, 0.9, 0.99])
def test_temperature_of_two_classes_is_the_one_worked_out_by_hand(share):
    # Class 0 leads by 0.4 in all rows and `share` of the labels is 0: 1 / (1 + exp(-0.4 / T)) = share.
    sigma = np.tile([0.7, 0.3], (100, 1))
    labels = (np.arange(100) >= 100 * share).astype(int)
    assert fit_temperature(sigma, labels) == pytest.approx(0.4 / np.log(share / (1 - share)), rel=1e-6)


def test_temperature_maximizes_the_likelihood_of_the_given_labels(scored):
    _, given, _, sigma, _ = scored
    temperature = fit_temperature(sigma, given)
    best = mean_log_likelihood(sigma, given, temperature)
    grid = np.geomspace(1e-2, 10, 400)
    others = [mean_log_likelihood(sigma, given, other) for other in grid]
    assert 0.02 < temperature < 5 and best >= max(others)
    assert temperature == pytest.approx(grid[np.argmax(others)], rel=0.02)


def test_temperature_does_not_depend_on_the_chunks(scored, monkeypatch):
    _, given, _, sigma, _ = scored
    whole = fit_temperature(sigma, given), pred_probs(sigma, given)
    monkeypatch.setattr(integration, "_ROWS", 7)
    assert fit_temperature(sigma, given) == pytest.approx(whole[0], rel=1e-9)
    np.testing.assert_allclose(pred_probs(sigma, given), whole[1], rtol=1e-8)


def test_labels_that_agree_with_all_scores_get_the_lowest_temperature(scored):
    sigma = scored[3]
    assert fit_temperature(sigma, sigma.argmax(axis=1)) == integration.LOWEST_TEMPERATURE


def test_scores_that_say_nothing_about_the_labels_are_refused(scored):
    sigma = scored[3]
    with pytest.raises(ValueError, match="are both in the same order"):
        fit_temperature(sigma, sigma.argmin(axis=1))


def test_probabilities_keep_the_ranking_of_the_scores(scored):
    features, given, _, sigma, prototypes = scored
    probabilities = pred_probs(sigma, given)
    np.testing.assert_allclose(probabilities, softmax(sigma.astype(float) / fit_temperature(sigma, given), axis=1))
    assert (probabilities.argmax(axis=1) == pe.correct_labels(features, given, prototypes).labels).all()
    warm = pred_probs(torch.from_numpy(sigma), torch.from_numpy(given), temperature=2.0)
    np.testing.assert_allclose(warm, softmax(sigma.astype(float) / 2, axis=1))


def test_empty_classes_get_no_probability_and_bad_rows_keep_their_label(scored):
    _, given, _, sigma, _ = scored
    wider = np.insert(sigma, 2, -np.inf, axis=1)  # class 2 is empty, later ones move up
    labels = given + (given >= 2)
    wider[[5, 17]] = np.nan
    kept = np.setdiff1d(np.arange(240), [5, 17])
    assert fit_temperature(wider, labels) == pytest.approx(fit_temperature(sigma[kept], given[kept]), rel=1e-9)
    probabilities = pred_probs(wider, labels)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities[:, 2] == 0).all()
    assert (probabilities[[5, 17], labels[[5, 17]]] == 1).all()


SIGMA = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.5]])


@pytest.mark.parametrize(
    ("sigma", "labels", "error", "message"),
    [
        (SIGMA, [0.0, 1.0, 0.0], TypeError, "labels must be integers, got float64"),
        (SIGMA.astype(int), [0, 1, 0], TypeError, "sigma must be floating point, got int64"),
        (SIGMA, [0, 1], ValueError, r"must be \[N, C\] and \[N\], .* got \[3, 2\] and \[2\]"),
        (SIGMA[:, :1], [0, 0, 0], ValueError, r"C at least 2, got \[3, 1\]"),
        (SIGMA, [0, 1, 2], ValueError, r"labels must lie in 0..1, got 0..2"),
        (np.where(SIGMA == 0.8, np.nan, SIGMA), [0, 1, 0], ValueError, "row 1 is not"),
        (np.where(SIGMA == 0.5, np.inf, SIGMA), [0, 1, 0], ValueError, "row 2 is not"),
        (np.full((3, 2), np.nan), [0, 1, 0], ValueError, "a row with a finite score for its label"),
    ],
)
def test_bad_scores_and_labels_are_refused(sigma, labels, error, message):
    with pytest.raises(error, match=message):
        pred_probs(sigma, labels)


def test_bad_temperature_is_refused():
    with pytest.raises(ValueError, match="temperature must be a positive number, got 0"):
        pred_probs(SIGMA, [0, 1, 0], temperature=0)


# And back.


def test_three_kinds_of_issues_give_the_same_corrections(scored):
    cleanlab = pytest.importorskip("cleanlab")
    from cleanlab.classification import CleanLearning
    from cleanlab.filter import find_label_issues

    _, given, truth, sigma, _ = scored
    sigma[3] = np.nan
    probabilities = pred_probs(sigma, given)
    mask = find_label_issues(given, probabilities)
    ranked = find_label_issues(given, probabilities, return_indices_ranked_by="self_confidence")
    table = CleanLearning().find_label_issues(labels=given, pred_probs=probabilities)
    assert {"is_label_issue", "given_label", "predicted_label"} <= set(table.columns), cleanlab.__version__
    assert 20 < mask.sum() < 120 and len(ranked) == mask.sum() and not mask[3]
    from_mask, from_ranked, from_table = (
        from_cleanlab(issues, given, probabilities) for issues in (mask, ranked, table)
    )
    assert (from_mask.labels == np.where(mask, probabilities.argmax(axis=1), given)).all()
    for other in (from_ranked, from_table):
        for name in ("labels", "given", "score", "margin", "changed"):
            assert (getattr(other, name) == getattr(from_mask, name)).all(), name
    assert (from_mask.labels == truth).mean() > (given == truth).mean() + 0.1
    assert (from_mask.changed == (from_mask.labels != given)).all()


def test_cleanlab_takes_probabilities_with_an_empty_class(scored):
    pytest.importorskip("cleanlab")
    from cleanlab.filter import find_label_issues

    _, given, _, sigma, _ = scored
    wider = np.insert(sigma, 4, -np.inf, axis=1)
    expected = find_label_issues(given, pred_probs(sigma, given))
    assert (find_label_issues(given, pred_probs(wider, given)) == expected).all() and expected.any()


def test_score_and_margin_are_those_of_the_likeliest_class():
    corrections = from_cleanlab(np.array([1]), [0, 0], np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]))
    assert corrections.labels.tolist() == [0, 2] and corrections.given.tolist() == [0, 0]
    assert corrections.changed.tolist() == [False, True]
    np.testing.assert_allclose(corrections.score, [0.7, 0.6])
    np.testing.assert_allclose(corrections.margin, [0.5, 0.3])
    assert not from_cleanlab([], [0, 0], np.array([[0.7, 0.3], [0.1, 0.9]])).changed.any()


def test_corrections_are_saved_as_the_trainer_does(tmp_path):
    from_cleanlab([1], [0, 0], np.array([[0.7, 0.3], [0.1, 0.9]])).save(tmp_path / "corrected.parquet")
    frame = pd.read_parquet(tmp_path / "corrected.parquet")
    assert list(frame) == ["index", "given_label", "suggested_label", "score", "margin", "changed"]
    assert frame["suggested_label"].tolist() == [0, 1]


def table_of(given, predicted, issue=(True, False)) -> pd.DataFrame:
    """As `Datalab.get_issues("label")` gives it."""
    return pd.DataFrame(
        {"is_label_issue": issue, "label_score": [0.1, 0.9], "given_label": given, "predicted_label": predicted}
    )


PROBABILITIES = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])


def test_table_decides_what_is_suggested():
    assert from_cleanlab(table_of([0, 2], [2, 1]), [0, 2], PROBABILITIES).labels.tolist() == [2, 2]


def test_table_may_name_the_classes():
    table = table_of(["cat", "owl"], ["dog", "dog"])
    for names in (["cat", "dog", "owl"], np.array(["cat", "dog", "owl"])):
        assert from_cleanlab(table, [0, 2], PROBABILITIES, class_names=names).labels.tolist() == [1, 2]
    for names in (["cat", "dog"], ["cat", "cat", "owl"], ["cat", "owl", "ox", "dog"]):
        with pytest.raises(ValueError, match=f"class_names must be 3 different names, got .*'{names[-1]}'"):
            from_cleanlab(table, [0, 2], PROBABILITIES, class_names=names)
    with pytest.raises(ValueError, match=r"issues has labels that are no class .*: cat, dog, owl"):
        from_cleanlab(table, [0, 2], PROBABILITIES)


@pytest.mark.parametrize(
    ("issues", "error", "message"),
    [
        (np.array([True]), ValueError, "issues must be a mask of 2 rows, got 1"),
        (np.array([0.5, 1.0]), TypeError, "issues must be a mask or positions, got float64"),
        (np.array([2]), ValueError, r"issues must be positions 0..1, got 2..2"),
        (np.array([1, 1]), ValueError, "none of them twice; a mask must be bool"),
        (table_of([0, 2], [2, 1]).drop(columns="given_label"), ValueError, "it lacks given_label"),
        (table_of([0, 2], [2, 1]).iloc[:1], ValueError, "a row for each of 2 labels, got 1"),
        (table_of([0, 1], [2, 1]), ValueError, "about the same labels: 1 rows differ, the first is 1"),
    ],
)
def test_bad_issues_are_refused(issues, error, message):
    with pytest.raises(error, match=message):
        from_cleanlab(issues, [0, 2], PROBABILITIES)


def test_scores_are_no_probabilities():
    with pytest.raises(ValueError, match="pred_probs must be probabilities"):
        from_cleanlab([0], [0, 1], np.array([[-0.1, 0.4], [0.2, 0.9]]))


# Verified labels.


def test_verified_file_is_one_that_the_trainer_reads(tmp_path, digits_config):
    path = tmp_path / "verified.csv"
    correct = np.arange(60) % 3 > 0
    save_verified(path, np.arange(60) * 20, correct)
    assert path.read_text().splitlines()[:3] == ["index,correct", "0,0", "20,1"]
    assert len(train(digits_config(verified=path, epochs=1, start_epoch=0)).rows) == 1
    save_verified(path, [3, 100_000], np.array([True, False]))
    with pytest.raises(ConfigError, match="100000"):
        train(digits_config(verified=path, out=tmp_path / "other"))


@pytest.mark.parametrize(
    ("rows", "correct", "error", "message"),
    [
        ([0.5], [True], TypeError, "rows must be integers and correct bool, got float64 and bool"),
        ([0], [1], TypeError, "got int64 and int64"),
        ([0, 1], [True], ValueError, r"of one length, got \[2\] and \[1\]"),
        ([1, 1], [True, False], ValueError, "none of them twice"),
        ([-1], [True], ValueError, "none negative"),
    ],
)
def test_bad_verdicts_are_refused(tmp_path, rows, correct, error, message):
    with pytest.raises(error, match=message):
        save_verified(tmp_path / "verified.csv", rows, correct)
    assert not list(tmp_path.iterdir())


def test_trainer_loads_without_the_packages_that_it_works_with():
    code = (
        "import sys, proto_trainer, proto_trainer.integrations.cleanlab\n"
        "loaded = {'lightning', 'pytorch_lightning', 'transformers', 'accelerate', 'cleanlab'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
