"""The paper's tables: what counts as one run, what is done again, and what the tables show of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmark_house import ROOT  # puts benchmarks/ on the path
from proto_trainer import TrainingDiverged, TrainResult, load_dataset, make_config
from proto_trainer.methods import METHODS, read_verified

import paper_curves  # isort: skip
import paper_report  # isort: skip
import paper_runs  # isort: skip
import paper_tables  # isort: skip
import report  # isort: skip
import training_tables  # isort: skip
from paper_numbers import PAPER  # isort: skip
from paper_variants import CLEAN, NOISY, TABLES, VERIFIED, Variant  # isort: skip
from rows import append_rows, read_rows  # isort: skip

ABOUT = {"date": "2031-05-06T07:08:09+00:00", "commit": "abc", "device": "a machine", "command": "python x"}


def series(out, table="methods", *, seeds="0", noise=("symmetric:0.4",), more=()):
    """Run the command on 200 digits for 2 epochs; its exit status."""
    arguments = [table, "--data", "digits", "--images", "200", "--epochs", "2", "--threads", "1", "--out", str(out)]
    return paper_tables.main([*arguments, "--seeds", *seeds.split(), "--noise", *noise, *more])


@pytest.fixture
def trained(monkeypatch):
    """Training that takes no time: the configurations that it was called with."""
    calls = []

    def fake(config):
        calls.append(config)
        accuracy = {"ce": 0.5, "smp": 0.6}.get(config.method, 0.4) + config.seed / 10
        rows = [{"test_accuracy": accuracy - 0.1, "label_accuracy": 0.6}]
        rows += [{"test_accuracy": accuracy, "label_accuracy": 0.7 + epoch / 100} for epoch in range(config.epochs - 1)]
        return TrainResult(rows, None, load_dataset("digits", images=config.images).train.with_noise(torch.zeros(200)))

    monkeypatch.setattr(paper_runs, "train", fake)
    return calls


def made(
    method="smp", *, data="digits", noise="symmetric:0.4", seed=0, images=200, supervision=NOISY, more=None, **cells
):
    """A row as a run leaves it."""
    settings = make_config(data, "unused", method=method, images=images, seed=seed, **(more or {})).identity()
    settings["noise"] = noise
    row = {
        **ABOUT, "threads": 1, "data": data, "method": method, "noise": noise, "seed": seed, "supervision": supervision,
        "num_images": images or 60_000, "settings": settings, "verified": None, "outcome": "ok", "seconds": 90.0,
        "epochs": settings["epochs"], "clean_epochs": 0, "start_epoch": settings["start_epoch"],
        "test_accuracy": 0.5, "test_accuracy_best": 0.5, "test_accuracy_first": 0.5, "label_accuracy_given": 0.6,
        "label_accuracy_first": None, "label_accuracy_last": None, "label_accuracy_least": None,
        "test_accuracy_by_epoch": [0.4, 0.5], "label_accuracy_by_epoch": [0.6, 0.6],
    }  # fmt: skip
    return row | cells


def test_series_trains_and_tells(tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    assert series(out, seeds="0 1", more=["--methods", "ce", "smp"]) == 0
    rows = read_rows(out)
    assert [(row["method"], row["seed"], row["outcome"]) for row in rows] == [
        ("ce", 0, "ok"), ("smp", 0, "ok"), ("ce", 1, "ok"), ("smp", 1, "ok"),
    ]  # fmt: skip
    ce, smp = rows[:2]
    assert ce["num_images"] == 200 and ce["threads"] == 1 and ce["settings"]["images"] == 200
    assert ce["test_accuracy_by_epoch"][-1] == ce["test_accuracy"] <= ce["test_accuracy_best"]
    assert len(smp["label_accuracy_by_epoch"]) == 2 and smp["label_accuracy_first"] == smp["label_accuracy_by_epoch"][0]
    assert ce["label_accuracy_first"] is None and ce["label_accuracy_given"] == smp["label_accuracy_given"] < 0.7
    assert {"commit", "date", "versions", "command", "seconds"} <= ce.keys()
    told = capsys.readouterr().out
    assert "ce, symmetric:0.4, seed 0: test accuracy" in told and "| self-correction |" in told


def test_series_goes_on_where_it_stopped(tmp_path, trained, capsys):
    out = tmp_path / "rows.jsonl"
    assert series(out, seeds="0", more=["--methods", "ce", "smp"]) == 0
    assert series(out, seeds="0 1", more=["--methods", "ce", "smp", "forward"]) == 0
    assert [(c.method, c.seed) for c in trained] == [
        ("ce", 0), ("smp", 0), ("forward", 0), ("ce", 1), ("forward", 1), ("smp", 1),
    ]  # fmt: skip
    assert "smp, symmetric:0.4, seed 0: done before" in capsys.readouterr().out
    assert len(read_rows(out)) == 6


def test_series_of_one_line_by_its_name(tmp_path, trained):
    assert series(tmp_path / "rows.jsonl", table="selectors", more=["--methods", "density contrast"]) == 0
    assert [config.selector for config in trained] == ["density-contrast"]


def test_series_sees_what_another_process_finished_meanwhile(tmp_path, trained, monkeypatch):
    out, other = tmp_path / "rows.jsonl", tmp_path / "other.jsonl"
    assert series(other, more=["--methods", "smp"]) == 0
    (row,) = read_rows(other)
    fake = paper_runs.train

    def train_while_another_does_too(config):
        append_rows(out, [row])
        return fake(config)

    monkeypatch.setattr(paper_runs, "train", train_while_another_does_too)
    trained.clear()
    assert series(out, more=["--methods", "ce", "smp"]) == 0
    assert [config.method for config in trained] == ["ce"]
    assert [row["method"] for row in read_rows(out)] == ["smp", "ce"]


def test_run_of_two_tables_is_done_once(tmp_path, trained):
    out = tmp_path / "rows.jsonl"
    for table in ("methods", "samples", "selectors", "label-accuracy", "alpha", "prototypes"):
        assert series(out, table, more=["--supervision", "noisy", "--epochs", "3"]) == 0
    lines = [line for name in TABLES if name != "extra" for line in TABLES[name].variants if line.supervision == NOISY]
    shared = len([line for line in lines if line.has(made("smp"))])
    assert shared == 6 and len(trained) == len(lines) - (shared - 1)
    assert len({paper_runs.row_key(row) for row in read_rows(out)}) == len(trained)


def test_key_is_what_decides_the_outcome(tmp_path):
    run = paper_runs.Run(Variant("smp"), "digits", "symmetric:0.4", 0, images=200)
    same = [
        replace(run, variant=Variant("another line", settings={"alpha": 0.5})),
        replace(run, noise="symmetric:0.40"),
        replace(run, root=tmp_path),
    ]
    others = [
        replace(run, seed=1), replace(run, images=201), replace(run, images=None), replace(run, epochs=7),
        replace(run, noise="none"), replace(run, variant=Variant("smp", "ce")),
        replace(run, variant=Variant("smp", settings={"alpha": 0.25})),
        replace(run, variant=Variant("smp", supervision=VERIFIED)),
        replace(run, variant=Variant("smp", supervision=CLEAN)),
    ]  # fmt: skip
    assert {other.key() for other in same} == {run.key()}
    assert len({other.key() for other in [run, *others]}) == 1 + len(others)


def test_key_of_a_row_outlives_new_settings():
    row = json.loads(json.dumps(made("smp", noise="symmetric:0.4")))
    run = paper_runs.Run(Variant("smp"), "digits", "symmetric:0.4", 0, images=200)
    assert paper_runs.row_key(row) == run.key()
    del row["settings"]["min_margin"]
    row["settings"]["no_longer_counted"] = 1
    assert paper_runs.row_key(row) == run.key()
    assert len(paper_report.settings_groups("methods", [row, made("ce")])) == 1
    row["settings"]["min_margin"] = 0.1
    assert paper_runs.row_key(row) != run.key()


def test_joint_gets_the_weights_of_its_authors(trained, tmp_path):
    noise = ("symmetric:0.2", "pairflip:0.4")
    assert series(tmp_path / "rows.jsonl", noise=noise, more=["--methods", "joint", "--epochs", "3"]) == 0
    assert [(c.prior_weight, c.entropy_weight) for c in trained] == [(1.2, 0.8), (0.8, 0.4)]


def test_diverged_run_is_a_cell_and_final_a_failed_one_is_tried_again(tmp_path, trained, monkeypatch, capsys):
    out, fake, fail = tmp_path / "rows.jsonl", paper_runs.train, True

    def sometimes(config):
        if config.method == "forward":
            raise TrainingDiverged("the loss is nan in epoch 1")
        if config.method == "ce" and fail:
            raise OSError(28, "No space left on device", str(config.out))
        return fake(config)

    monkeypatch.setattr(paper_runs, "train", sometimes)
    assert series(out, more=["--methods", "ce", "forward", "smp"]) == 0
    told = capsys.readouterr().out
    assert "| forward correction | diverged: the loss is nan in epoch 1 |" in told
    assert "| cross-entropy | failed: OSError: " in told and "| self-correction | 0.600 |" in told
    rows = read_rows(out)
    assert [row["outcome"] for row in rows] == ["failed", "diverged", "ok"]
    assert str(tmp_path) not in rows[0]["reason"] and "/tmp" not in rows[0]["reason"]
    fail = False
    assert series(out, more=["--methods", "ce", "forward", "smp"]) == 0
    assert [(row["method"], row["outcome"]) for row in read_rows(out)[3:]] == [("ce", "ok")]
    assert "| cross-entropy | 0.500 |" in capsys.readouterr().out


def test_bad_settings_end_before_the_first_run(tmp_path, trained, capsys):
    out = tmp_path / "rows.jsonl"
    assert series(out, noise=["symmetric:1.4"]) == 2
    assert "noise rate must lie in 0..1" in capsys.readouterr().err
    assert series(out, more=["--methods", "ce", "nothing"]) == 2
    assert "got nothing" in capsys.readouterr().err
    assert series(out, table="samples", more=["--supervision", "clean"]) == 2
    assert "leave no line of the table samples" in capsys.readouterr().err
    assert series(out, more=["--images", "100000", "--methods", "ce"]) == 2
    assert "images must lie in 1..1347" in capsys.readouterr().err
    assert trained == [] and not out.exists()


def test_verified_and_clean_files_tell_the_truth(tmp_path):
    run = paper_runs.Run(Variant("x", "smp", CLEAN), "digits", "pairflip:0.4", 3, images=400, epochs=1)
    splits = load_dataset("digits", images=400)
    files, told = paper_runs._supervision(run, splits, tmp_path)
    result = paper_runs.train(run.config(tmp_path / "run", **files))  # as the run itself sees its labels
    truth, given = result.train_set.truth, result.train_set.given
    labels = read_verified(files["verified"], result.train_set)
    assert len(labels.right) == 40 and torch.equal(labels.right, (truth == given)[labels.rows])
    lines = np.loadtxt(files["clean"], delimiter=",", skiprows=1, dtype=int)
    assert lines[:, 0].tolist() == labels.rows.tolist() and lines[:, 1].tolist() == truth[labels.rows].tolist()
    assert told == f"40 images, a seeded tenth, {int(labels.right.sum())} right"
    assert len(result.rows) == 1 + result.rows[-1]["epoch"] and result.rows[-1]["epoch"] == 1  # one more: fine-tuning


@pytest.mark.parametrize(
    ("method", "supervision", "options"),
    [
        ("ce", NOISY, []),
        ("ce", CLEAN, ["clean"]),
        ("forward", CLEAN, ["clean", "verified"]),
        ("smp", VERIFIED, ["verified"]),
    ],
)
def test_supervision_gives_each_method_what_it_takes(tmp_path, method, supervision, options):
    run = paper_runs.Run(Variant("x", method, supervision), "digits", "symmetric:0.4", 0)
    files, told = paper_runs._supervision(run, load_dataset("digits"), tmp_path)
    assert sorted(files) == options and (told is None) == (not options)


def test_no_truth_to_verify_with_is_a_failed_row():
    run = paper_runs.Run(Variant("x", "cleannet-hard", VERIFIED), "digits", "none", 0, images=200, epochs=1)
    row = paper_runs.do(run, load_dataset("digits", images=200))
    assert row["outcome"] == "failed" and "neither verified labels nor the truth" in row["reason"]


def test_table_mean_and_spread_by_hand():
    rows = [made("ce", seed=s, test_accuracy=v) for s, v in enumerate((0.80, 0.84, 0.85))]
    rows += [made("smp", seed=s, test_accuracy=v) for s, v in enumerate((0.7, 0.9))]
    table = paper_report.table_of("methods", rows)
    deviation = math.sqrt((0.03**2 + 0.01**2 + 0.02**2) / 2)  # mean 0.83, divided by n - 1
    assert f"| cross-entropy | **0.830 ± {deviation:.3f}** |" in table
    assert "| self-correction | 0.800 ± 0.141 (2 of 3 seeds) |" in table
    assert paper_report.mean_and_spread([0.25]) == "0.250"


def test_table_does_not_hide_a_rival_that_is_best():
    rows = [made("smp", test_accuracy=0.8, label_accuracy_last=0.9), made("forward", test_accuracy=0.9)]
    table = paper_report.table_of("methods", rows)
    assert "| forward correction | **0.900** |" in table and "| self-correction | 0.800 |" in table


def test_table_parts_noises_and_parts_of_the_data():
    rows = [
        made("ce", noise=noise, images=images, test_accuracy=accuracy)
        for noise, images, accuracy in (
            ("pairflip:0.4", 200, 0.1), ("symmetric:0.4", 200, 0.2), ("symmetric:0.4", 300, 0.3),
        )
    ]  # fmt: skip
    table = paper_report.table_of("methods", rows)
    order = ["300 training images", "symmetric noise, 40%", "0.300", "200 training images", "symmetric noise", "0.200"]
    places, at = [], 0
    for text in [*order, "pair-flip noise, 40%", "0.100"]:
        at = table.index(text, at)
        places.append(at)
    assert table.count("| cross-entropy |") == 3
    assert "--noise symmetric:0.4 pairflip:0.4 --seeds 0 --images 200`" in table


def test_newest_row_of_a_run_counts():
    rows = [made("ce", test_accuracy=0.2, date="2031-01-02"), made("ce", test_accuracy=0.1, date="2031-01-01")]
    assert "| cross-entropy | 0.200 |" in paper_report.table_of("methods", rows)


def test_table_without_history_names_no_commit():
    assert "commit abc" in paper_report.table_of("methods", [made("ce")])
    assert "commit" not in paper_report.table_of("methods", [made("ce", commit=None)])


def test_table_of_a_setting_wants_two_values_of_it():
    rows = [made("smp"), made("smp", supervision=VERIFIED, verified="20 images, a seeded tenth, 9 right")]
    assert paper_report.table_of("samples", rows) == ""
    table = paper_report.table_of("samples", [*rows, made("smp", more={"samples_per_class": 320})])
    assert [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| m = ")] == [
        "| m = 320", "| m = 1280", "| m = 1280 + verified",
    ]  # fmt: skip
    assert "(20 images, a seeded tenth)" in table


def test_paper_numbers_stand_beside_its_own_data_only():
    settings = {"data": "clothing1m", "images": None, "noise": "none"}
    rows = [made("smp", **settings), made("ce", **settings)]
    table = paper_report.table_of("methods", rows)
    assert "| paper: test accuracy, last epoch |" in table
    assert [line.split(" | ")[-1] for line in table.splitlines() if line.startswith("| self-")] == ["0.7445 |"]
    assert [line.split(" | ")[-1] for line in table.splitlines() if line.startswith("| cross-")] == ["0.6954 |"]
    labels = paper_report.table_of("label-accuracy", rows)
    assert "0.6174 | 0.7438 | 0.7736 |" in labels  # ours are unknown: nobody has the truth
    for other in ({"data": "digits", "noise": "none"}, {"data": "clothing1m", "noise": "symmetric:0.4"}):
        assert "paper" not in paper_report.table_of("methods", [made("smp", **other)]).replace("paper_tables", "")


def test_paper_numbers_belong_to_lines_and_columns_that_exist():
    for tables in PAPER.values():
        for name, lines in tables.items():
            assert set(lines) <= {variant.line for variant in TABLES[name].variants}
            assert {column for numbers in lines.values() for column in numbers} <= set(TABLES[name].columns)


def test_tables_cover_every_method():
    assert {variant.method for variant in TABLES["methods"].variants} == set(METHODS) == set(paper_report.NAMES)
    assert set(METHODS) == set(paper_curves.COLORS)


def test_report_writes_results_with_curves(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/results.md").write_text((ROOT / "docs/results.md").read_text())
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/README.md").write_text("<!-- gpu_status:begin -->\n<!-- gpu_status:end -->\n")
    report.update(tmp_path, tmp_path / "results", check=False)
    rows = [made("smp", seed=s, label_accuracy_last=0.8) for s in (0, 1)] + [made("ce", noise="pairflip:0.4")]
    append_rows(tmp_path / "results/paper_tables.jsonl", rows)
    problems = report.update(tmp_path, tmp_path / "results", check=True)
    assert [problem.split(":")[0] for problem in problems] == [
        "docs/results.md", "docs/results.md",
        "docs/images/curves_digits_200_symmetric-0.4.png", "docs/images/curves_digits_200_pairflip-0.4.png",
    ]  # fmt: skip
    assert report.update(tmp_path, tmp_path / "results", check=False) == []
    assert report.update(tmp_path, tmp_path / "results", check=True) == []
    text = (tmp_path / "docs/results.md").read_text()
    assert "](images/curves_digits_200_symmetric-0.4.png)" in text and "| cross-entropy | 0.500 |" in text
    append_rows(tmp_path / "results/paper_tables.jsonl", [made("ce", seed=1)])
    assert len(report.update(tmp_path, tmp_path / "results", check=True)) == 2  # the methods and one picture


def test_readme_table_shows_whole_runs_on_all_images():
    fashion = {"data": "fashion-mnist", "images": None}
    rows = [made(m, seed=s, test_accuracy=0.2 + s / 10, **fashion) for m in ("ce", "smp") for s in (0, 1)]
    assert training_tables.training_summary([]) == ""
    table = training_tables.training_summary(rows)
    assert table.count("| 0.250 ± 0.071 |") == 2 and "density contrast" not in table
    assert "paper_tables.py methods --data fashion-mnist" in table and "--methods ce smp`." in table
    others = [
        made("smp", seed=2, test_accuracy=0.9, data="fashion-mnist", images=500),
        made("smp", seed=2, test_accuracy=0.9, more={"epochs": 3}, **fashion),
        made("smp", seed=2, test_accuracy=0.9, supervision=VERIFIED, **fashion),
        made("smp", seed=2, test_accuracy=0.9, noise="symmetric:0.2", **fashion),
        made("smp", seed=2, test_accuracy=0.9, outcome="diverged", **fashion),
    ]
    assert training_tables.training_summary([*rows, *others]) == table
    contrast = made("smp", test_accuracy=0.7, more={"selector": "density-contrast"}, **fashion)
    table = training_tables.training_summary([*rows, contrast])
    assert "| self-correction, density contrast (1 of 2 seeds) | 0.700 |" in table
    assert "paper_tables.py selectors --data fashion-mnist" in table and '--methods "density contrast"`.' in table
