"""Policies: which labels change, by hand on six rows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from proto_engine.corrections import COLUMNS
from proto_engine.policy import check_policy, decide

GIVEN = np.array([0, 0, 1, 1, 2, 2])
LIKELY = np.array([0, 1, 1, 0, 2, 0])
PROBABILITY = np.array([0.9, 0.8, 0.7, 0.55, 1.0, 0.6])
ISSUE = np.array([0.1, 0.9, 0.3, 0.6, 0.0, 0.9])
LEAD = np.array([0.0, 0.7, 0.0, 0.15, 0.0, 0.5])
SURE = np.array([False, True, False, False, False, False])


def evidence(reason=None):
    return SimpleNamespace(
        given=GIVEN,
        suggested=LIKELY,
        probability=PROBABILITY,
        issue_score=ISSUE,
        lead=LEAD,
        usable=np.ones(6, dtype=bool),
        reason=reason,
        confident=lambda: SURE if reason is None else np.zeros(6, dtype=bool),
    )


def test_confident_changes_what_the_evidence_is_sure_of():
    found = decide("confident", evidence())
    assert found.labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert found.changed.tolist() == SURE.tolist()
    assert found.likely.tolist() == LIKELY.tolist()
    assert found.note is None and found.expected_right == pytest.approx(0.8)


def test_all_changes_to_the_likeliest_label():
    found = decide("all", evidence())
    assert found.labels.tolist() == LIKELY.tolist()
    assert found.changed.tolist() == [False, True, False, True, False, True]
    assert found.expected_right == pytest.approx(0.8 + 0.55 + 0.6)


def test_score_and_margin_are_those_of_the_evidence_or_of_prototypes():
    found = decide("all", evidence())
    np.testing.assert_array_equal(found.score, PROBABILITY)
    np.testing.assert_array_equal(found.margin, LEAD)
    cosine, lead = np.linspace(0.1, 0.6, 6), np.linspace(0.6, 0.1, 6)
    found = decide("all", evidence(), score=cosine, margin=lead)
    np.testing.assert_array_equal(found.score, cosine)
    np.testing.assert_array_equal(found.margin, lead)


def test_rows_without_a_usable_feature_have_no_score_and_no_margin():
    seen = evidence()
    seen.usable = np.arange(6) != 4
    found = decide("all", seen)
    np.testing.assert_array_equal(found.score, np.where(seen.usable, PROBABILITY, np.nan))
    np.testing.assert_array_equal(found.margin, np.where(seen.usable, LEAD, np.nan))
    found = decide("all", seen, min_margin=0.6)  # NaN is not less than anything
    assert found.changed.tolist() == [False, True, False, False, False, False]


def test_small_margins_keep_their_label():
    assert decide("all", evidence(), min_margin=0.5).changed.tolist() == [False, True, False, False, False, True]
    assert decide("all", evidence(), min_margin=0.51).changed.tolist() == [False, True, False, False, False, False]


def test_reason_against_all_changes_is_passed_on():
    found = decide("confident", evidence("the names of two classes are in doubt"))
    assert not found.changed.any() and found.labels.tolist() == GIVEN.tolist()
    assert found.note == found.summary().note == "the names of two classes are in doubt"
    assert decide("all", evidence("the names of two classes are in doubt")).note is None


def test_function_sees_every_suggestion_and_decides():
    seen = []

    def policy(corrections):
        seen.append(corrections)
        return corrections.issue_score > 0.85

    found = decide(policy, evidence())
    assert seen[0].labels.tolist() == LIKELY.tolist()
    assert found.changed.tolist() == [False, True, False, False, False, True]
    assert found.labels.tolist() == [0, 1, 1, 1, 2, 0]
    assert not decide(lambda corrections: np.zeros(6, dtype=bool), evidence()).changed.any()


@pytest.mark.parametrize("name", COLUMNS)
def test_function_cannot_write_to_what_it_sees(name):
    def policy(corrections):
        getattr(corrections, name)[:] = 0
        return np.ones(6, dtype=bool)

    before = [GIVEN.copy(), LIKELY.copy(), PROBABILITY.copy(), ISSUE.copy()]
    with pytest.raises(ValueError, match="read-only"):
        decide(policy, evidence(), score=PROBABILITY.copy(), margin=LEAD.copy())
    for array, wanted in zip((GIVEN, LIKELY, PROBABILITY, ISSUE), before, strict=True):
        np.testing.assert_array_equal(array, wanted)


def test_what_a_function_decided_can_be_written_to():
    found = decide(lambda corrections: corrections.changed, evidence())
    assert found.labels.tolist() == LIKELY.tolist()
    assert all(getattr(found, name).flags.writeable for name in COLUMNS)


def test_row_with_the_given_label_as_the_likeliest_is_never_changed():
    found = decide(lambda corrections: np.ones(6, dtype=bool), evidence())
    assert found.changed.tolist() == (GIVEN != LIKELY).tolist()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda c: np.ones(6), TypeError, r"gives bool \[6\], got float64"),
        (lambda c: np.ones(5, dtype=bool), ValueError, r"gives bool \[6\], got shape \[5\]"),
    ],
)
def test_function_that_gives_something_else_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        decide(given, evidence())


def test_unknown_policies_are_refused():
    with pytest.raises(ValueError, match=r"policy: wanted one of confident, all or a function, got 'most'"):
        check_policy("most")
    with pytest.raises(TypeError, match="policy: wanted one of confident, all or a function, got int"):
        check_policy(3)


def test_table_has_the_evidence_beside_the_decision():
    found = decide("confident", evidence())
    frame = found.to_frame(["a", "b", "c"])
    assert list(frame) == [
        "index", "given_label", "suggested_label", "score", "margin", "changed", "issue_score", "likely_label",
        "probability",
    ]  # fmt: skip
    assert frame["suggested_label"].tolist() == ["a", "b", "b", "b", "c", "c"]
    assert frame["likely_label"].tolist() == ["a", "b", "b", "a", "c", "a"]
    assert frame["issue_score"].tolist() == ISSUE.tolist()


def test_saved_table_is_the_one_shown(tmp_path):
    import pandas as pd

    found = decide("confident", evidence())
    for name in ("found.parquet", "found.csv"):
        found.save(tmp_path / name)
        read = pd.read_parquet if name.endswith("parquet") else pd.read_csv
        pd.testing.assert_frame_equal(read(tmp_path / name), found.to_frame())
