"""bench_correction: both variants on the host, and a check that sees a single wrong label."""

from __future__ import annotations

import pytest
from benchmark_house import QuietHost

import command  # isort: skip
import rows  # isort: skip
from claims import claims  # isort: skip
from bench_correction import BENCH, EVALUATION, PHASE  # isort: skip
from parts import CheckFailed  # isort: skip


@pytest.fixture
def inputs(tmp_path):
    case = BENCH.host.quick[0]
    return case, BENCH.host.inputs(case, tmp_path, QuietHost())


def variant_of(task, case):
    (found,) = (v for v in BENCH.host.variants(case, QuietHost()) if v.task == task)
    return found


def test_correction_benchmark_runs_on_the_host(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "Host", QuietHost)
    out = tmp_path / "rows.jsonl"
    assert command.main(BENCH, ["--quick", "--out", str(out)]) == 0
    found = rows.read_rows(out)
    assert [(row["task"], row["role"], row["outcome"]) for row in found] == [
        (EVALUATION, "roofline", "ok"),
        (PHASE, "ours", "ok"),
    ]
    assert all(row["median_s"] > 0 for row in found)


def test_check_sees_a_wrong_label_and_a_wrong_accuracy(inputs):
    case, made = inputs
    check = BENCH.host.checker(case, made)
    phase, evaluation = variant_of(PHASE, case), variant_of(EVALUATION, case)
    labels, share = phase.call(made), evaluation.call(made)
    check(phase, labels)
    check(evaluation, share)
    labels[7] = (labels[7] + 1) % case["num_classes"]
    with pytest.raises(CheckFailed, match="1 labels differ"):
        check(phase, labels)
    with pytest.raises(CheckFailed, match="accuracy"):
        check(evaluation, share + 1 / case["num_samples"])


@pytest.mark.parametrize(("phase", "verdict"), [(1.04, "holds"), (1.06, "DOES NOT HOLD")])
def test_claim_compares_the_phase_with_the_evaluation(phase, verdict):
    shared = {"device": "here", "date": "now", "case": {"num_samples": 5, "num_classes": 2}, "threads": 2, "on": "host"}
    made = [
        {**shared, "variant": "accuracy", "task": EVALUATION, "outcome": "ok", "median_s": 1.0},
        {**shared, "variant": "LabelCorrector", "task": PHASE, "outcome": "ok", "median_s": phase},
    ]
    (line,) = claims({"bench_correction": made})
    assert line.startswith(f"{verdict}: correction phase / evaluation pass at most 1.05, measured {phase}")
