"""score_samples and correct_labels: exact labels, ties, margins, bad rows, chunks and files."""

from __future__ import annotations

import numpy as np
import pytest
from exact_cases import available
from problems import clustered, select

import proto_engine as pe
from proto_engine.backends.base import error_bound


@pytest.fixture
def problem():
    x, y = clustered(400, 10, 4, seed=5, noise=0.4)
    return x, y, select(x, y, samples_per_class=100)


def test_score_is_the_mean_cosine_to_the_prototypes(problem):
    x, _, prototypes = problem
    unit = x.astype(float) / np.linalg.norm(x.astype(float), axis=1, keepdims=True)
    unfolded = np.stack([unit @ unit[rows[rows >= 0]].T for rows in prototypes.indices], axis=1)  # [N, C, p]
    expected = unfolded.mean(axis=2)
    np.testing.assert_allclose(pe.score_samples(x, prototypes, backend="reference"), expected, atol=1e-12)
    for backend in available("cpu", "numba", "torch", "faiss"):
        got = pe.score_samples(x, prototypes, backend=backend)
        assert got.dtype == np.float32
        assert np.abs(got - expected).max() <= error_bound(10)


@pytest.mark.parametrize("backend", available("cpu", "numba", "torch", "faiss"))
def test_corrections_are_the_same_bits_on_every_backend(problem, backend):
    x, y, prototypes = problem
    want = pe.correct_labels(x, y, prototypes, backend="reference")
    got = pe.correct_labels(x, y, prototypes, backend=backend)
    for name in ("labels", "given", "score", "margin", "changed"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)
    assert 0 < got.changed.mean() < 1


def test_margin_is_the_best_less_the_second_score(problem):
    x, y, prototypes = problem
    sigma = np.sort(pe.score_samples(x, prototypes, backend="reference"), axis=1)
    got = pe.correct_labels(x, y, prototypes)
    np.testing.assert_array_equal(got.score, sigma[:, -1])
    np.testing.assert_array_equal(got.margin, sigma[:, -1] - sigma[:, -2])


def test_min_margin_keeps_the_given_label_of_unsure_rows(problem):
    x, y, prototypes = problem
    free = pe.correct_labels(x, y, prototypes)
    threshold = float(np.median(free.margin))
    got = pe.correct_labels(x, y, prototypes, min_margin=threshold)
    sure = free.margin >= threshold
    np.testing.assert_array_equal(got.labels, np.where(sure, free.labels, y))
    np.testing.assert_array_equal(got.changed, got.labels != y)
    assert got.changed.sum() < free.changed.sum()


def test_equal_scores_go_to_the_lower_class():
    x = np.array([[1, 1], [1, 0], [0, 1]], dtype=np.float32)
    prototypes = pe.select_prototypes(x[1:], [0, 1])
    got = pe.correct_labels(x, [1, 0, 1], prototypes)
    assert got.labels.tolist() == [0, 0, 1]
    assert got.margin[0] == 0.0


def test_single_class_has_an_infinite_margin():
    x = np.array([[1, 2], [3, 1]], dtype=np.float32)
    got = pe.correct_labels(x, [0, 0], pe.select_prototypes(x, [0, 0]))
    assert got.labels.tolist() == [0, 0]
    assert np.isposinf(got.margin).all()


def test_bad_rows_are_refused_or_keep_their_label(problem):
    x, y, prototypes = problem
    x = x.copy()
    x[[2, 300]] = [[0.0], [np.nan]]
    for call in (lambda: pe.correct_labels(x, y, prototypes), lambda: pe.score_samples(x, prototypes)):
        with pytest.raises(ValueError, match=r"got 2 of 400 rows .*\(rows 2, 300\)"):
            call()
    got = pe.correct_labels(x, y, prototypes, on_bad_rows="keep-label")
    assert got.labels[2] == y[2]
    assert got.labels[300] == y[300]
    assert np.isnan(got.score[[2, 300]]).all()
    assert not got.changed[[2, 300]].any()
    good = np.setdiff1d(np.arange(400), [2, 300])
    np.testing.assert_array_equal(got.labels[good], pe.correct_labels(x[good], y[good], prototypes).labels)
    sigma = pe.score_samples(x, prototypes, on_bad_rows="keep-label")
    assert np.isnan(sigma[[2, 300]]).all()
    assert np.isfinite(sigma[good]).all()


@pytest.mark.parametrize("rows_a_chunk", [1, 7, 399, 400])
def test_chunks_do_not_change_the_outcome(problem, rows_a_chunk, monkeypatch, tmp_path):
    x, y, prototypes = problem
    np.save(tmp_path / "x.npy", x)
    want, want_scores = pe.correct_labels(x, y, prototypes), pe.score_samples(x, prototypes)
    original = pe.FeatureBank.chunks
    monkeypatch.setattr(pe.FeatureBank, "chunks", lambda self: original(self, rows_a_chunk * 10 * 4))
    bank = pe.FeatureBank.open(tmp_path / "x.npy")
    got = pe.correct_labels(bank, y, prototypes)
    np.testing.assert_array_equal(got.labels, want.labels)
    np.testing.assert_array_equal(got.margin, want.margin)
    np.testing.assert_allclose(pe.score_samples(bank, prototypes), want_scores, atol=2 * error_bound(10))
    np.testing.assert_array_equal(select(bank, y).indices, select(x, y).indices)


def test_progress_shows_a_bar_on_a_terminal_only(problem, monkeypatch, capsys):
    x, y, prototypes = problem
    pe.correct_labels(x, y, prototypes, progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    pe.correct_labels(x, y, prototypes)
    assert capsys.readouterr().err == ""
    pe.correct_labels(x, y, prototypes, progress=True)
    assert "correct: 100%" in capsys.readouterr().err


def test_progress_without_stderr_is_none(problem, monkeypatch):
    x, y, prototypes = problem
    want = pe.correct_labels(x, y, prototypes)
    monkeypatch.setattr("sys.stderr", None)  # closed by the caller, or under pythonw
    got = pe.correct_labels(x, y, prototypes, progress=True)
    np.testing.assert_array_equal(got.labels, want.labels)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "prototypes: wanted Prototypes", lambda x, y, p: pe.correct_labels(x, y, p.vectors)),
        (
            ValueError,
            "prototypes: wanted dimension 9 like the features, got 10",
            lambda x, y, p: pe.score_samples(x[:, :9], p),
        ),
        (ValueError, "min_margin: wanted 0 or more, got -1", lambda x, y, p: pe.correct_labels(x, y, p, min_margin=-1)),
        (ValueError, "labels: wanted less than num_classes = 4, got 4", lambda x, y, p: pe.correct_labels(x, y + 1, p)),
        (ValueError, "labels: wanted 400 entries", lambda x, y, p: pe.correct_labels(x, y[:-1], p)),
        (ValueError, "on_bad_rows: wanted one of", lambda x, y, p: pe.score_samples(x, p, on_bad_rows="drop")),
        (TypeError, "features: wanted float16", lambda x, y, p: pe.correct_labels(x.astype(int), y, p)),
    ],
)
def test_scoring_refuses_with_the_argument_named(problem, error, match, call):
    with pytest.raises(error, match=match):
        call(*problem)


def test_scoring_refuses_prototypes_of_no_class(problem):
    x, y, prototypes = problem
    from dataclasses import replace

    with pytest.raises(ValueError, match="at least one class with a prototype"):
        pe.correct_labels(x, y, replace(prototypes, counts=np.zeros(4, int)))
