"""The quality benchmark: its numbers by hand, what a method may see, what is done again, and what the tables say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from benchmark_house import ROOT  # puts benchmarks/ on the path
from proto_trainer import ConfigError

import bench_quality  # isort: skip
import image_banks  # isort: skip
import quality_methods  # isort: skip
import quality_problems  # isort: skip
import quality_report  # isort: skip
import quality_runs  # isort: skip
import report  # isort: skip
from quality_methods import METHODS, Inputs, Verdict  # isort: skip
from quality_metrics import best_threshold, change, detection, recall_within  # isort: skip
from rows import append_rows, read_rows  # isort: skip

ABOUT = {"date": "2031-05-06T07:08:09+00:00", "commit": "abc", "device": "a machine", "command": "python x"}


def clusters(num_samples=300, num_classes=3, seed=0):
    """Features of three far corners, with a tenth of the labels one further on: features, labels, truth."""
    rng = np.random.default_rng(seed)
    truth = np.arange(num_samples) % num_classes
    features = 6 * np.eye(num_classes, 8, dtype="f4")[truth] + rng.standard_normal((num_samples, 8), dtype="f4")
    wrong = rng.random(num_samples) < 0.1
    return features, np.where(wrong, (truth + 1) % num_classes, truth), truth


def problem(**other):
    features, labels, truth = clusters()
    whole = quality_problems.Problem("made", "corners", "tenth", None, "1234", features, labels, truth, 3)
    return replace(whole, **other)


def test_detection_by_hand_with_a_tie():
    wrong, suspicion = np.array([True, False, True, False]), np.array([3.0, 2.0, 2.0, -np.inf])
    found = detection(wrong, suspicion)
    assert found["auroc"] == pytest.approx((1 + 1 + 0.5 + 1) / 4)  # a tie counts half
    assert found["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)  # both tied rows come at once
    assert found["recall_share"] == pytest.approx((1 + 0.5) / 2)  # one of the two tied rows, either one
    assert found["recall_budget"] == 0.0  # 5 % of four rows is none


def test_recall_within_a_budget():
    wrong, suspicion = np.arange(100) % 10 == 0, -np.arange(100.0)
    assert recall_within(wrong, suspicion, 11) == pytest.approx(0.2)  # rows 0 and 10
    assert recall_within(wrong, np.zeros(100), 30) == pytest.approx(0.3)  # all tie: what chance finds
    assert recall_within(wrong, suspicion, 100) == 1.0


def test_detection_without_wrong_labels_has_no_numbers_and_nan_is_refused():
    none = detection(np.zeros(4, bool), np.arange(4.0))
    assert set(none.values()) == {None}
    with pytest.raises(ValueError, match="no NaN, got 1"):
        detection(np.array([True, False]), np.array([np.nan, 1.0]))


def test_change_by_hand():
    truth, given, suggested = np.array([0, 1, 2, 0]), np.array([0, 0, 0, 0]), np.array([1, 1, 2, 0])
    found = change(truth, given, suggested, np.array([True, True, False, True]))  # the last suggests what is given
    assert found == {"accuracy": 0.5, "share_changed": 0.5, "right": 0.5}
    assert change(truth, given, suggested, np.zeros(4, bool)) == {"accuracy": 0.5, "share_changed": 0.0, "right": None}


def test_best_threshold_does_not_part_ties():
    truth, given = np.array([1, 1, 0, 0, 1]), np.zeros(5, int)
    suggested = np.ones(5, int)
    assert best_threshold(truth, given, suggested, np.array([5, 4, 3, 2, 1.0])) == {
        "best_accuracy": pytest.approx(0.8), "best_share": 0.4,
    }  # fmt: skip
    tied = best_threshold(truth, given, suggested, np.array([5, 4, 4, 4, 1.0]))  # one more right, then one against two
    assert tied == {"best_accuracy": pytest.approx(0.6), "best_share": 0.2}
    wrong = best_threshold(np.zeros(5, int), given, suggested, np.arange(5.0))  # every change does harm
    assert wrong == {"best_accuracy": 1.0, "best_share": 0.0}


def test_neighbor_shares_leave_the_row_itself_out():
    pytest.importorskip("faiss")
    features = np.repeat(np.eye(3, dtype="f2"), 30, axis=0)  # more duplicates of every row than neighbors asked for
    labels = np.repeat(np.arange(3), 30)
    labels[0] = 1
    shares = quality_methods.neighbor_shares(Inputs(features, labels, 3))
    assert shares.shape == (90, 3) and np.allclose(shares.sum(1), 1)
    assert shares[0].tolist() == [1.0, 0.0, 0.0]  # its own wrong label has no vote
    assert (shares[30:60, 1] == 1).all() and (shares[1:30, 1] <= 1 / quality_methods.NEIGHBORS).all()


def test_vote_with_a_tie_keeps_the_given_label():
    scores, labels = np.array([[0.5, 0.5], [0.5, 0.5], [0.2, 0.8]]), np.array([1, 0, 0])
    assert quality_methods._winner(scores, labels).tolist() == [1, 0, 1]


@pytest.mark.parametrize("name", [name for name in METHODS if name != "network"])
def test_method_finds_and_mends_easy_errors(name):
    if "cleanlab" in name:
        pytest.importorskip("cleanlab")
    if "neighbor" in name:
        pytest.importorskip("faiss")
    features, labels, truth = clusters()
    before = features.copy(), labels.copy()
    verdict = METHODS[name].call(Inputs(features, labels, 3))
    assert (features == before[0]).all() and (labels == before[1]).all()
    numbers = quality_runs.measure(problem(), verdict)
    assert all(score["auroc"] > 0.95 and score["best_accuracy"] > 0.95 for score in numbers["scores"].values())
    assert numbers["default"]["accuracy"] > 0.95 > (labels == truth).mean()
    assert json.loads(json.dumps(numbers)) == numbers
    assert (verdict.told.get("expected") is not None) == (name == "evidence")


def test_network_learns_and_repeats():
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    pixels = (rng.integers(0, 60, (64, 1, 8, 8)) + 180 * labels[:, None, None, None]).astype(np.uint8)
    logits, features = image_banks.train_network(pixels, labels, 2, seed=0, epochs=12)
    again, _ = image_banks.train_network(pixels, labels, 2, seed=0, epochs=12)
    assert (logits == again).all() and logits.shape == (64, 2) and features.dtype == np.float16
    assert (logits.argmax(1) == labels).mean() > 0.9


def test_banks_of_images_are_made_once(tmp_path, monkeypatch):
    made = []
    real = image_banks.filter_bank
    monkeypatch.setattr(quality_problems, "filter_bank", lambda pixels: made.append(1) or real(pixels))

    def problems(seed):
        return list(
            quality_problems.from_images("digits", None, "filters", ["none", "pairflip:0.4"], seed, tmp_path, 200)
        )

    (clean, noisy), (_, other) = problems(0), problems(1)
    assert made == [1] and clean.features.shape == (200, 200) and np.isfinite(clean.features).all()
    assert (clean.features == other.features).all() and clean.pixels.shape == (200, 1, 8, 8)
    assert (clean.labels == clean.truth).all() and clean.noise_seed is None
    assert 0.5 < (noisy.labels == noisy.truth).mean() < 0.7 and (noisy.labels != other.labels).any()
    assert (noisy.truth == clean.truth).all() and (noisy.noise_seed, other.noise_seed) == (0, 1)
    nearest = np.corrcoef(clean.features.astype("f4")) - 2 * np.eye(200)
    assert (clean.truth[nearest.argmax(1)] == clean.truth).mean() > 0.8  # features that tell digits apart


def test_problems_from_files(tmp_path):
    pd = pytest.importorskip("pandas")
    features, labels, truth = clusters()
    np.save(tmp_path / "bank.npy", features)
    pd.DataFrame({"right": truth.astype("i1"), "given": labels}).to_parquet(tmp_path / "labels.parquet")
    arguments = ("mine", tmp_path / "bank.npy", tmp_path / "labels.parquet", "right")
    clean, noisy = quality_problems.from_files(*arguments, ["right", "given"])
    assert (noisy.labels == labels).all() and (noisy.truth == truth).all() and noisy.setting == "given"
    assert (clean.labels == truth).all() and clean.digest != noisy.digest and clean.num_classes == 3
    with pytest.raises(ConfigError, match=r"wanted the columns nobody, got a file with right, given"):
        quality_problems.from_files(*arguments, ["nobody"])
    np.save(tmp_path / "bank.npy", features[:50])
    with pytest.raises(ConfigError, match="each of the 50 rows of features, got 300"):
        quality_problems.from_files(*arguments, ["given"])


def test_run_in_a_process_of_its_own(tmp_path):
    it = problem()
    quality_runs.write_inputs(it, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"features.npy", "labels.npy"}  # and not the truth
    row = quality_runs.do(it, "published", 1, 1, tmp_path)
    assert row["outcome"] == "ok", row
    assert row["seconds"] > 0 and row["cpu_seconds"] > 0 and row["seed"] == 1 and row["threads"] == 1
    assert row["memory_peak_bytes"] is None or row["memory_peak_bytes"] > row["memory_growth_bytes"] >= 0
    here = quality_runs.measure(it, METHODS["published"].call(Inputs(it.features, it.labels, 3, seed=1)))
    assert row["scores"] == here["scores"] and row["default"] == here["default"]


def test_run_that_fails_is_a_row_and_is_tried_again(tmp_path):
    it = problem(features=np.full((300, 8), np.nan, "f4"))
    quality_runs.write_inputs(it, tmp_path)
    row = quality_runs.do(it, "published", 0, 1, tmp_path)
    assert row["outcome"] == "failed" and "ValueError" in row["reason"] and str(tmp_path) not in row["reason"]
    assert quality_runs.finished([row]) == set() != quality_runs.finished([{**row, "outcome": "ok"}])


def test_score_of_nan_is_a_failure(tmp_path, monkeypatch):
    it = problem()

    def child(*_, **__):
        np.savez(
            tmp_path / "verdict.npz", suggested=it.labels, changed=it.labels < 0, **{"score s": np.full(300, np.nan)}
        )
        told = json.dumps({"cost": {}, "scores": ["s"], "told": {}})
        return quality_runs.subprocess.CompletedProcess([], 0, told, "")

    monkeypatch.setattr(quality_runs.subprocess, "run", child)
    row = quality_runs.do(it, "published", 0, 1, tmp_path)
    assert row["outcome"] == "failed" and "NaN" in row["reason"]


def test_key_holds_what_decides_the_outcome():
    def key(method="evidence", seed=0, threads=1, **other):
        return quality_runs.key(quality_runs.identity(problem(**other), method, seed, threads))

    others = [key(seed=1), key(threads=2), key("published"), key(digest="5678"), key(setting="fifth"), key(data="x")]
    assert len({key(), *others, key(bank="network"), key(noise_seed=0)}) == 9
    assert key() == key() and key("neighbor-vote", seed=1) == key("neighbor-vote")  # the seed is nothing to it
    assert key("neighbor-vote", noise_seed=1) != key("neighbor-vote", noise_seed=0)


@pytest.fixture
def counted(monkeypatch):
    """Runs that take no time; which they were."""
    calls = []

    def fake(it, method, seed, threads, folder):
        assert (folder / "labels.npy").exists()
        calls.append((it.setting, method, seed))
        row = {**made(method), **quality_runs.identity(it, method, seed, threads)}
        row = {name: value for name, value in row.items() if name not in ABOUT}
        return row if method != "cleanlab-logistic" else {**row, "outcome": "failed", "reason": "no such module"}

    monkeypatch.setattr(bench_quality, "do", fake)
    return calls


@pytest.fixture(autouse=True)
def few_filters(monkeypatch):
    monkeypatch.setattr(image_banks, "FILTERS", 24)


def series(tmp_path, *more):
    arguments = ["--data", "digits", "--images", "100", "--threads", "1", "--cache", str(tmp_path / "banks")]
    return bench_quality.main([*arguments, "--out", str(tmp_path / "rows.jsonl"), *more])


def test_series_goes_on_where_it_stopped(tmp_path, counted, capsys):
    first = ("--noise", "none", "symmetric:0.2", "--methods", "evidence", "neighbor-vote")
    assert series(tmp_path, *first, "--seeds", "0") == 0
    assert series(tmp_path, *first, "--seeds", "0", "1") == 0
    assert counted == [
        ("none", "evidence", 0), ("none", "neighbor-vote", 0),
        ("symmetric:0.2", "evidence", 0), ("symmetric:0.2", "neighbor-vote", 0),
        ("none", "evidence", 1), ("symmetric:0.2", "evidence", 1), ("symmetric:0.2", "neighbor-vote", 1),
    ]  # fmt: skip
    assert "none: neighbor-vote, seed 1: done before" in capsys.readouterr().out
    rows = read_rows(tmp_path / "rows.jsonl")
    assert len(rows) == 7 and all({"commit", "date", "versions", "command"} <= row.keys() for row in rows)


def test_series_again_and_after_a_failure(tmp_path, counted):
    chosen = ("--noise", "none", "--seeds", "0", "--methods", "evidence", "cleanlab-logistic", "published")
    assert series(tmp_path, *chosen) == 0  # a rival's failure is its row's
    assert series(tmp_path, *chosen) == 0
    assert series(tmp_path, *chosen, "--again", "evidence") == 0
    assert [method for _, method, _ in counted] == [
        "evidence", "cleanlab-logistic", "published", "cleanlab-logistic", "evidence", "cleanlab-logistic",
    ]  # fmt: skip


def test_series_says_when_ours_failed(tmp_path, monkeypatch):
    failed = {"outcome": "failed", "reason": "broken"}
    monkeypatch.setattr(bench_quality, "do", lambda it, *run: {**quality_runs.identity(it, *run[:3]), **failed})
    assert series(tmp_path, "--noise", "none", "--seeds", "0", "--methods", "published") == 0
    assert series(tmp_path, "--noise", "none", "--seeds", "0", "--methods", "evidence") == 1


def test_series_refuses_what_it_cannot_do(tmp_path, capsys):
    assert series(tmp_path, "--noise", "pairwise:0.4") == 2
    assert "noise kind" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bench_quality.main([])
    with pytest.raises(SystemExit):
        bench_quality.main(["--features", "x.npy"])
    assert "--labels" in capsys.readouterr().err


def made(method="evidence", auroc=0.9, accuracy=0.95, *, expected=None, right=0.9, **cells):
    """A row as a run leaves it."""
    names = ("self confidence", "normalized margin") if "cleanlab" in method else ("score",)
    numbers = {"auroc": auroc, "average_precision": 0.7, "recall_budget": 0.2, "recall_share": 0.8}
    policy = {"accuracy": accuracy, "share_changed": 0.1, "right": right, "expected": expected}
    row = {
        **ABOUT, "data": "digits", "bank": "filters", "setting": "symmetric:0.2", "noise_seed": 0, "digest": "",
        "num_samples": 1000, "method": method, "seed": 0, "settings": {}, "threads": 2, "dim": 64, "dtype": "float16",
        "num_classes": 10, "given_accuracy": 0.8, "load": 0.1, "outcome": "ok", "seconds": 2.0, "cpu_seconds": 3.0,
        "memory_growth_bytes": 4_000_000, "memory_peak_bytes": 5_000_000, "noise": None, "note": None,
        "scores": {name: {**numbers, "best_accuracy": 0.97, "best_share": 0.1} for name in names},
        "default": policy, "all": {**policy, "expected": None},
    }  # fmt: skip
    return {**row, **cells}


def line(text, name):
    (found,) = [row for row in text.splitlines() if f"| {name} |" in row]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_table_shows_mean_and_spread_and_who_is_best():
    rows = [made(auroc=a, accuracy=c, seed=s, noise_seed=s) for s, a, c in ((0, 0.9, 0.95), (1, 0.92, 0.97))]
    rows += [made("neighbor-vote", 0.95, 0.9, seed=None, noise_seed=s) for s in (0, 1)]
    text = quality_report.quality_tables(rows)
    ours, vote = line(text, "evidence (ours)"), line(text, "vote of nearest neighbors")
    assert ours[0] == "symmetric, 20%: 0.8000 right" and vote[0] == ""
    assert ours[2] == "0.9100 ± 0.0141" and vote[2] == "**0.9500 ± 0.0000**"
    assert ours[6] == "**0.9600 ± 0.0141**" and vote[6] == "0.9000 ± 0.0000"
    assert "1 of 1 settings: symmetric, 20% (vote of nearest neighbors: 0.9500, ours 0.9100)." in text
    assert "more right labels by default in none of 1 settings." in text


def test_table_says_where_expectation_fails_and_labels_get_worse():
    rows = [
        made(expected=0.96, right=0.9),
        made(expected=0.94, right=0.9, setting="pairflip:0.4", accuracy=0.79),
        made("published", setting="pairflip:0.4", accuracy=0.5),
        made(setting="instance:0.4", accuracy=0.8, right=None, note="all classes swapped"),
    ]
    text = quality_report.quality_tables(rows)
    assert "Of 3 runs, expected and really right changes differ by more than 5 points in 1 run: " in text
    assert "in 1 run: symmetric, 20%, seed 0 (0.960 expected, 0.900 right)." in text
    assert "made labels worse in 1 run: pair-flip, 40%, seed 0 (0.8000 to 0.7900)." in text
    assert "with a reason, in 1 run: instance-dependent, 40%, seed 0 (all classes swapped)." in text


def test_table_without_rivals_speaks_of_our_expectations_only():
    text = quality_report.quality_tables([made(seed=s, noise_seed=s) for s in (3, 4)])
    assert "Another method" not in text and "Of 2 runs, expected" in text and "over seeds 3, 4. " in text
    assert "Of " not in quality_report.quality_tables([made("published")])


def test_table_of_clean_labels_and_of_a_second_score():
    none = dict.fromkeys(("auroc", "average_precision", "recall_budget", "recall_share"))
    clean = made(setting="none", noise_seed=None, given_accuracy=1.0)
    clean["scores"] = {"score": {**none, "best_accuracy": 1.0, "best_share": 0.0}}
    text = quality_report.quality_tables([made(), made("cleanlab-logistic", 0.8), clean])
    first, second = [row for row in text.splitlines() if "evidence (ours)" in row]
    assert first.startswith("| clean labels: 1.0000 right | evidence (ours) |  |") and "symmetric" in second
    again = line(text, "same, normalized margin")
    assert again[2] == "0.8000" and again[6:8] == ["", ""]


def test_failed_rival_is_a_cell_until_it_is_made_good():
    rows = [made(), {**made("cleanlab-neighbors"), "outcome": "failed", "reason": "no module | cleanlab"}]
    text = quality_report.quality_tables(rows)
    assert line(text, "cleanlab, nearest neighbors")[2] == "failed"
    assert "Not finished: cleanlab, nearest neighbors: no module / cleanlab." in text
    assert "cleanlab" not in quality_report.quality_cost(rows)
    later = {**made("cleanlab-neighbors", 0.85), "date": "2032-01-01T00:00:00+00:00"}
    text = quality_report.quality_tables([*rows, later])
    assert line(text, "cleanlab, nearest neighbors")[2] == "0.8500" and "Not finished" not in text


def test_cost_shows_the_middle_and_the_ends():
    rows = [made(seconds=s, seed=i, memory_growth_bytes=int(s * 1e6)) for i, s in enumerate((1.0, 2.0, 9.0))]
    cells = line(quality_report.quality_cost(rows), "evidence (ours)")
    assert cells == ["evidence (ours)", "2 (1 to 9)", "3 (3 to 3)", "9 MB", "5 MB", "3"]


def test_picture_leaves_out_parts_of_a_data_set():
    quality_plots = pytest.importorskip("quality_plots")
    whole = [made(bank="filters"), made(bank="network"), made(threads=1), made(data="other", num_samples=500)]
    parts = [made(num_samples=900), made(num_samples=900, bank="network")]
    assert sorted(map(str, quality_plots.shown([*parts, *whole]))) == sorted(map(str, whole))


def test_report_puts_tables_and_picture_where_they_belong(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/quality.md").write_text((ROOT / "docs/quality.md").read_text())
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/README.md").write_text("<!-- gpu_status:begin -->\n<!-- gpu_status:end -->\n")
    append_rows(tmp_path / "bench_quality.jsonl", [made(), made("published", 0.8), made(data="other", digest="1")])
    assert report.update(tmp_path, tmp_path, check=False) == []
    assert report.update(tmp_path, tmp_path, check=True) == []
    assert "| evidence (ours) |" in (tmp_path / "docs/quality.md").read_text()
    append_rows(tmp_path / "bench_quality.jsonl", [made("network", 0.7)])
    assert report.update(tmp_path, tmp_path, check=True) == [
        "docs/quality.md: the table quality does not show the newest rows",
        "docs/quality.md: the table quality_cost does not show the newest rows",
        "docs/images/quality.png: does not show the newest rows",
    ]


def test_verdict_of_no_change_expects_nothing():
    it = problem(labels=clusters()[2])
    verdict = METHODS["evidence"].call(Inputs(it.features, it.labels, 3))
    numbers = quality_runs.measure(it, verdict)
    assert isinstance(verdict, Verdict) and numbers["default"]["expected"] is None and numbers["noise"] < 0.05
    assert numbers["default"] == {"accuracy": 1.0, "share_changed": 0.0, "right": None, "expected": None}
