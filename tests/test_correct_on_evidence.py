"""correct_labels with evidence: with and without prototypes, kinds of arrays, rows without a direction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import proto_engine as pe
from proto_engine.report import write_report


@pytest.fixture(scope="module")
def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of five classes, the truth, and labels of which 16 % are wrong."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 3000)
    x = (rng.standard_normal((3000, 16)) + 3 * np.eye(5, 16)[truth]).astype(np.float32)
    return x, truth, np.where(rng.random(3000) < 0.2, rng.integers(0, 5, 3000), truth)


def test_correct_on_evidence_is_what_the_evidence_decides(problem):
    x, truth, given = problem
    found, evidence = pe.correct_labels(x, given), pe.label_evidence(x, given)
    np.testing.assert_array_equal(found.changed, evidence.confident())
    np.testing.assert_array_equal(found.labels, np.where(found.changed, evidence.suggested, given))
    np.testing.assert_array_equal(found.issue_score, evidence.issue_score)
    assert (found.labels == truth).mean() > (given == truth).mean() + 0.1
    right = (found.labels == truth)[found.changed].sum()
    assert found.expected_right == pytest.approx(right, abs=0.05 * found.changed.sum())


def test_prototypes_bring_score_and_margin_and_do_not_decide(problem):
    x, _, given = problem
    prototypes = pe.select_prototypes(x, given)
    published = pe.correct_labels(x, given, prototypes)
    found = pe.correct_labels(x, given, prototypes, policy="confident")
    np.testing.assert_array_equal(found.score, published.score)
    np.testing.assert_array_equal(found.margin, published.margin)
    np.testing.assert_array_equal(found.labels, pe.correct_labels(x, given).labels)
    assert (found.labels != published.labels).any()
    assert published.issue_score is published.likely is published.expected_right is None


def test_published_method_is_the_default_with_prototypes(problem):
    x, _, given = problem
    prototypes = pe.select_prototypes(x, given)
    default, published = (pe.correct_labels(x, given, prototypes, **more) for more in ({}, {"policy": "all"}))
    for name in ("labels", "given", "score", "margin", "changed"):
        np.testing.assert_array_equal(getattr(default, name), getattr(published, name))


def test_tensors_in_tensors_out(problem):
    x, _, given = problem
    wanted = pe.correct_labels(x, given)
    found = pe.correct_labels(torch.from_numpy(x), torch.from_numpy(given))
    for name in ("labels", "given", "score", "margin", "changed", "issue_score", "likely", "probability"):
        column = getattr(found, name)
        assert isinstance(column, torch.Tensor)
        np.testing.assert_array_equal(column.numpy(), getattr(wanted, name))


def test_rows_without_a_direction_keep_their_label(problem):
    x, _, given = problem
    x = x.copy()
    x[3], x[70] = 0, np.nan
    with pytest.raises(ValueError, match=r"2 of 3000 rows"):
        pe.correct_labels(x, given)
    for prototypes in (None, pe.select_prototypes(x, given, on_bad_rows="keep-label")):
        found = pe.correct_labels(x, given, prototypes, policy="all", on_bad_rows="keep-label")
        assert not found.changed[[3, 70]].any() and found.changed.any()
        for values in (found.score, found.margin):
            np.testing.assert_array_equal(np.flatnonzero(np.isnan(values)), [3, 70])


def test_rows_without_a_direction_have_no_score_where_nothing_could_be_judged(problem):
    x = problem[0][:30].copy()
    x[3] = 0
    for policy in ("confident", "all", lambda corrections: corrections.margin > 0.5):
        found = pe.correct_labels(x, np.zeros(30, dtype=np.int64), policy=policy, on_bad_rows="keep-label")
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(found.score) & np.isnan(found.margin)), [3])
        assert found.summary().num_changed == 0


def test_rows_without_a_direction_have_no_score_in_tables_and_pages(problem, tmp_path):
    import pandas as pd

    x, _, given = problem
    x = x.copy()
    x[3] = 0
    found = pe.correct_labels(x, given, on_bad_rows="keep-label")
    for name in ("found.parquet", "found.csv"):
        found.save(tmp_path / name)
        frame = (pd.read_parquet if name.endswith("parquet") else pd.read_csv)(tmp_path / name)
        assert frame["score"].isna().tolist() == frame["margin"].isna().tolist() == (np.arange(3000) == 3).tolist()
    assert "nan" not in found._repr_html_().lower()
    assert np.isfinite(found.to_cleanlab()["label_score"]).all()
    write_report(tmp_path / "report.html", found)


def test_policies_are_checked_before_the_work(problem):
    x, _, given = problem
    with pytest.raises(ValueError, match="policy: wanted one of confident, all or a function, got 'bold'"):
        pe.correct_labels(x, given, policy="bold")


def test_saying_why_nothing_changes(problem, caplog):
    x, truth, _ = problem
    with caplog.at_level("INFO", logger="proto_engine"):
        found = pe.correct_labels(x, truth)
    assert not found.changed.any() and "estimated share of wrong labels" in found.note
    assert f"labels are left as they are: {found.note}" in caplog.text


def test_the_backend_is_checked_before_the_work(problem, monkeypatch):
    def weigh(*_, **__):
        raise AssertionError("the evidence was weighed")

    monkeypatch.setattr("proto_engine.evidence.label_evidence", weigh)
    x, _, given = problem
    with pytest.raises(ValueError, match=r"backend: wanted .*, got 'nonsense'"):
        pe.correct_labels(x, given, backend="nonsense")
