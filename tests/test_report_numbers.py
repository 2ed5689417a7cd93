"""The report's numbers and figures by hand: summary, classes, noise matrix, histogram, decision graphs, notebook."""

from __future__ import annotations

import hashlib
import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
from problems import clustered
from report_house import HOSTILE, corrections

import proto_engine as pe
from proto_engine.figures import _ticks, count_pairs, heat_map, histogram, most_changed, row_shares, share_text
from proto_engine.label_text import encode_labels, labels_digest
from proto_engine.report import decision_graphs
from proto_engine.report.numbers import class_rows, core_rows, gather, summary_figures

GIVEN, SUGGESTED = [0, 0, 0, 1, 1, 2], [0, 1, 0, 1, 0, 2]
ISSUE, PROBABILITY = [0.1, 0.8, 0.3, 0.0, 0.6, 0.2], [0.9, 0.7, 0.7, 1.0, 0.5, 0.8]


def test_summary_figures_by_hand() -> None:
    rows = gather(corrections(GIVEN, SUGGESTED, issue=ISSUE, probability=PROBABILITY), ["a", "b", "c"], None)
    figures = {name: (value, note) for name, value, note in summary_figures(rows)}
    assert figures["rows"] == ("6", "")
    assert figures["classes"] == ("3", "3 of them with given labels")
    assert figures["another label suggested"] == ("2", "33.3 % of the rows")
    assert figures["expected right"] == ("1", "60.0 % of the changes")  # .7 + .5
    assert figures["label accuracy, estimated"] == ("66.7 %", "as given")  # 1 - 2.0 / 6
    assert figures["with all suggestions"][0] == "76.7 %"  # (.9 + .7 + .7 + 1 + .5 + .8) / 6


def test_summary_without_probabilities_leaves_their_figures_out() -> None:
    names = [name for name, _, _ in summary_figures(gather(corrections(GIVEN, SUGGESTED), None, None))]
    assert names == ["rows", "classes", "another label suggested"]


def test_suspects_come_by_issue_or_by_margin() -> None:
    with_issue = gather(corrections(GIVEN, SUGGESTED, issue=ISSUE), None, None)
    assert with_issue.suspects().tolist() == [1, 4, 2, 5, 0, 3]
    margins = [0.5, 0.2, np.nan, 0.1, 0.4, np.inf]
    assert gather(corrections(GIVEN, SUGGESTED, margins), None, None).suspects().tolist() == [4, 1, 3, 0, 2, 5]


def test_class_rows_by_hand() -> None:
    core = SimpleNamespace(
        num_classes=3,
        indices=np.array([[0, 1], [3, -1], [5, -1]]),
        counts=np.array([2, 1, 1]),
        filtered=np.array([0.25, 0, np.nan]),
    )
    rows = class_rows(gather(corrections(GIVEN, SUGGESTED, issue=ISSUE), None, core), core)
    assert [(row.size, row.moved, row.arrived, row.prototypes) for row in rows] == [
        (3, 1, 1, 2),
        (2, 1, 1, 1),
        (1, 0, 0, 1),
    ]
    assert [row.noise for row in rows] == pytest.approx([0.4, 0.3, 0.2])
    assert [row.purity for row in rows] == pytest.approx([0.55, 1.0, 0.8])
    assert [row.filtered for row in rows] == [0.25, 0.0, None]
    plain = class_rows(gather(corrections(GIVEN, SUGGESTED), None, core), core)
    assert [row.noise for row in plain] == pytest.approx([1 / 3, 1 / 2, 0])
    assert [row.purity for row in plain] == pytest.approx([0.5, 1, 1])
    assert class_rows(gather(corrections(GIVEN, SUGGESTED), None, None), None)[0].prototypes is None


def test_prototypes_of_another_bank_have_no_core_rows() -> None:
    rows = gather(corrections(GIVEN, SUGGESTED), None, None)
    assert core_rows(rows, SimpleNamespace(indices=np.array([[0], [1], [5]]))) == {}  # row 1 was given class 0
    assert core_rows(rows, SimpleNamespace(indices=np.array([[0], [3], [600]]))) == {}


def test_noise_matrix_by_hand() -> None:
    given, suggested = np.array(GIVEN), np.array(SUGGESTED)
    counts = count_pairs(given, suggested, np.arange(3), 3)
    assert counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert row_shares(counts)[0].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert count_pairs(given, suggested, np.array([0, 2]), 3).tolist() == [[2, 0], [0, 1]]
    assert most_changed(given, suggested, 5, 10).tolist() == [0, 1, 2]
    assert most_changed(given, suggested, 5, 2).tolist() == [0, 1]
    assert [share_text(x) for x in (0, 0.001, 0.0994, 0.0995, 0.5, 1)] == ["", "0.1", "9.9", "10", "50", "100"]
    svg = heat_map(counts, ["a", "b", "c"], "matrix")
    assert svg.count("<rect") == 9
    assert re.findall(r'class="value"[^>]*>([^<]*)<', svg) == ["67", "33", "", "50", "50", "", "", "", "100"]


def test_histogram_counts_kept_and_changed_rows() -> None:
    values = np.array([0.0, 0.01, 0.5, 1.0, np.inf, np.nan])
    svg = histogram(values, np.array([False, False, True, False, True, True]), "margin", (0.0, 1.0))
    assert re.findall(r": (\d+) (kept|changed)<", svg) == [("2", "kept"), ("1", "kept"), ("1", "changed")]
    for few in ([], [0.3], [0.3, 0.3]):  # no interval to divide
        assert "<svg" in histogram(np.array(few), np.zeros(len(few), bool), "margin")


def test_every_axis_has_three_to_eight_ticks() -> None:
    nothing = np.zeros(2, bool)
    assert re.findall(r">([\d.]+)</text>", histogram(np.array([0, 0.3]), nothing, "margin"))[-4:] == [
        "0", "0.1", "0.2", "0.3",
    ]  # fmt: skip
    for low, high in itertools.combinations([k / 100 for k in range(101)], 2):
        ticks = _ticks(low, high)
        assert 3 <= len(ticks) <= 8, (low, high)
        assert low - 1e-9 <= ticks[0] and ticks[-1] <= high + 1e-9, (low, high)


def test_labels_become_numbers_and_a_digest() -> None:
    given, suggested, names = encode_labels(["b", "a", "b"], ["a", "a", "c"])
    assert (given.tolist(), suggested.tolist(), names) == ([1, 0, 1], [0, 0, 2], ["a", "b", "c"])
    assert labels_digest(given, names) == hashlib.sha256(b"b\na\nb\n").hexdigest()
    assert encode_labels([0, 2], [1, 2], num_classes=4)[2] == ["0", "1", "2", "3"]
    given, _, names = encode_labels([-1, 10**9], [-1, -1])  # numbers that are no places
    assert (given.tolist(), names) == ([0, 1], ["-1", "1000000000"])
    with pytest.raises(ValueError, match="wanted a name for each label up to 2, got 2"):
        encode_labels([0, 2], [1, 2], ["a", "b"])
    with pytest.raises(TypeError, match="class_names: wanted labels that are class numbers"):
        encode_labels(["a"], ["b"], ["a", "b"])
    with pytest.raises(ValueError, match="two columns"):
        encode_labels([0, 1], [0])


def test_decision_graphs_are_those_of_density_peaks() -> None:
    x, y = clustered(120, 8, 3, seed=1)
    prototypes = pe.select_prototypes(x, y, prototypes_per_class=4, backend="cpu")
    graphs = decision_graphs(x, y, prototypes, backend="cpu")
    assert sorted(graphs) == [0, 1, 2]
    for c, (rho, eta, marked) in graphs.items():
        peaks = pe.density_peaks(x[y == c], backend="cpu")
        assert rho.tolist() == peaks.rho.tolist()
        assert eta.tolist() == peaks.eta.tolist()
        assert np.flatnonzero(y == c)[marked].tolist() == sorted(prototypes.indices[c].tolist())


def test_decision_graphs_sample_skip_and_keep_prototypes() -> None:
    x, y = clustered(300, 8, 3, seed=1)
    y[y == 2] = 1
    y[0] = 2  # a class of one has no graph
    x[np.flatnonzero(y == 1)[:3]] = [[0] * 8, [np.nan] * 8, [np.inf] * 8]
    prototypes = pe.select_prototypes(x, y, backend="cpu", on_bad_rows="keep-label")
    graphs = decision_graphs(x, y, prototypes, samples_per_class=20, backend="cpu")
    assert sorted(graphs) == [0, 1]
    assert [len(graphs[c][0]) <= 20 and int(graphs[c][2].sum()) == 8 for c in (0, 1)] == [True, True]
    assert list(decision_graphs(x, y, classes=[1], samples_per_class=20)) == [1]
    with pytest.raises(ValueError, match="prototypes: wanted rows of the 100 given"):
        decision_graphs(x[200:], y[200:], prototypes)


def test_decision_graphs_keep_the_first_200_prototypes_of_each_class() -> None:
    x, y = clustered(700, 8, 2, seed=1)
    picks = np.full((2, 300), -1)
    for c, count in ((0, 300), (1, 250)):
        picks[c, :count] = np.random.default_rng(c).permutation(np.flatnonzero(y == c))[:count]
    prototypes = SimpleNamespace(indices=picks, transform=None)
    graphs = decision_graphs(x, y, prototypes, samples_per_class=200, backend="cpu")
    for c, (rho, _, marked) in graphs.items():
        assert marked.all()
        assert rho.tolist() == pe.density_peaks(x[np.sort(picks[c, :200])], backend="cpu").rho.tolist()
    more = decision_graphs(x, y, prototypes, samples_per_class=220, backend="cpu")
    assert all(marked.sum() >= 200 for *_, marked in more.values())


def test_notebook_shows_numbers_a_table_and_three_figures() -> None:
    found = pe.Corrections(
        *(np.asarray(v) for v in (SUGGESTED, GIVEN, [0.5] * 6, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])),
        np.not_equal(GIVEN, SUGGESTED),
    )
    html = found._repr_html_()
    assert "6 rows, 3 classes, 2 labels changed (33.3 %)" in html
    assert html.count("<svg") == 3
    assert re.findall(r"<tr><td>(\d)</td>", html) == ["4", "1"]  # larger margin first
    assert "<script" not in html
    words = np.array([HOSTILE, "b"])
    hostile = pe.Corrections(
        words[[1, 1]], words[[0, 1]], np.ones(2), np.array([np.nan, np.inf]), np.array([True, False])
    )
    assert "<img" not in hostile._repr_html_()
    nothing = pe.Corrections(*(np.empty(0, int) for _ in range(4)), np.empty(0, bool))
    assert "0 rows" in nothing._repr_html_()
    many = np.arange(40)
    assert (
        "12 classes with most changes" in pe.Corrections(many, many[::-1], many, many, many != many[::-1])._repr_html_()
    )
