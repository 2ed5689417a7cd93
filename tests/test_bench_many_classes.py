"""The benchmark of many classes: its problems are what they say, and it prints what it finds."""

from __future__ import annotations

import re

import benchmark_house  # noqa: F401 - finds the benchmarks
import numpy as np
import pytest

import many_classes  # isort: skip
from many_classes import Setting, problem  # isort: skip


@pytest.mark.parametrize("kind", ["symmetric", "pairflip"])
def test_problem_has_the_noise_it_is_asked_for(kind):
    setting = Setting(20, 500, 0.5, kind, 0.3)
    features, truth, given = problem(setting)
    assert features.shape == (10_000, many_classes.DIM) and features.dtype == np.float32
    np.testing.assert_array_equal(np.bincount(truth), np.full(20, 500))
    wrong = given != truth
    assert wrong.mean() == pytest.approx(0.3 * (19 / 20 if kind == "symmetric" else 1), abs=0.02)
    if kind == "pairflip":
        np.testing.assert_array_equal(given[wrong], (truth[wrong] + 1) % 20)


def test_a_line_for_each_setting_says_what_became_of_the_labels(monkeypatch, capsys):
    monkeypatch.setattr(many_classes, "SETTINGS", (Setting(30, 60, 0.8, "symmetric", 0.3),))
    many_classes.main()
    line = capsys.readouterr().out
    before, after = map(float, re.findall(r"right (0\.\d+) -> (0\.\d+) in", line)[0])
    assert line.startswith("30 x 60, 30% symmetric: ") and after > before + 0.15
    right, expected = map(float, re.findall(r"changes right (0\.\d+|1\.0+), expected (0\.\d+|1\.0+);", line)[0])
    assert right > 0.9 and abs(right - expected) < 0.1
