"""The benchmark house: its arithmetic, its checks, its rows and its reports. Nothing here is timed in earnest."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))  # its files are scripts, not a package

import bench_density  # noqa: E402
import bench_score  # noqa: E402
import checks  # noqa: E402
import harness  # noqa: E402
import machine  # noqa: E402
import plots  # noqa: E402
import report  # noqa: E402
import tables  # noqa: E402

import proto_engine as pe  # noqa: E402

linux = pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="takes Linux's clear_refs")
needs_cpu = pytest.mark.skipif(pe.backends()["cpu"] is not None, reason="the native module was not built")


def variant(name, call=lambda inputs: None, threads=1, **more):
    return harness.Variant(name, "task", "ours", threads, call, **more)


def bench(tmp_path, variants, check=lambda v, result: None):
    """A benchmark whose inputs are the sizes themselves."""
    return harness.Bench(
        name="bench_test",
        script=tmp_path / "unused.py",
        sizes=("m", "dim"),
        prepare=lambda case, folder: None,
        inputs=lambda case, folder: case,
        tiny=lambda case: {**case, "m": 1},
        variants=lambda case: variants,
        checker=lambda case, inputs: check,
        work=lambda case: {"flops": 2e9, "bytes": None},
    )


@pytest.fixture
def no_children(monkeypatch):
    """Memory is not measured: every variant grows by 3 MB, to a peak of 7 MB."""
    monkeypatch.setattr(harness, "memory_in_child", lambda *_: [3_000_000, 7_000_000])


# timing


def test_summary_percentiles_and_rates():
    times = [5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 11.0, 7.0, 8.0, 9.0, 10.0]
    got = harness.summary(times, flops=12e9, bytes=3e9)
    assert (got["median_s"], got["p10_s"], got["p90_s"], got["repeats"]) == (6.0, 2.0, 10.0, 11)
    assert (got["gflop_per_s"], got["gb_per_s"]) == (2.0, 0.5)
    assert got["times_s"] == times
    between = harness.summary([1.0, 2.0], flops=None, bytes=None)
    assert between["median_s"] == 1.5 and between["p90_s"] == pytest.approx(1.9)
    assert between["gflop_per_s"] is None and between["gb_per_s"] is None


def test_timing_interleaves_and_each_round_starts_one_further():
    said = []
    variants = [variant(name, lambda inputs, name=name: said.append(name)) for name in "abc"]
    times = harness.time_interleaved(variants, None, repeats=4, flush=lambda: said.append("-"))
    assert "".join(said) == "-a-b-c" + "-b-c-a" + "-c-a-b" + "-a-b-c"
    assert {key: len(t) for key, t in times.items()} == {v.key: 4 for v in variants}
    assert all(t >= 0 for series in times.values() for t in series)


def test_timing_gives_each_variant_its_threads(monkeypatch):
    monkeypatch.setenv("PROTO_ENGINE_NUM_THREADS", "5")
    seen = {}
    variants = [
        variant(str(n), lambda inputs, n=n: seen.update({n: os.environ["PROTO_ENGINE_NUM_THREADS"]}), threads=n)
        for n in (1, 2)
    ]
    harness.time_interleaved(variants, None, repeats=1, flush=lambda: None)
    assert seen == {1: "1", 2: "2"}
    assert os.environ["PROTO_ENGINE_NUM_THREADS"] == "5"


# one case


def test_run_case_wrong_result_stops_before_any_timing(tmp_path, no_children):
    calls = []

    def check(v, result):
        if v.name == "wrong":
            raise harness.CheckFailed("wrong: off by 1")

    variants = [variant(name, lambda inputs, name=name: calls.append(name)) for name in ("right", "wrong", "unseen")]
    with pytest.raises(harness.CheckFailed, match="off by 1"):
        harness.run_case(bench(tmp_path, variants, check), {"m": 2, "dim": 3}, variants, {}, tmp_path, repeats=3)
    assert calls == ["right", "wrong"]


def test_run_case_rows_hold_everything_and_out_of_memory_is_one(tmp_path, no_children):
    variants = [variant("small"), variant("huge", lambda inputs: 1 / 0, needs_bytes=2**60)]
    common = machine.provenance(["--size", "2x3", "--dir", str(tmp_path)])
    house = bench(tmp_path, variants)
    small, huge = harness.run_case(house, {"m": 2, "dim": 3}, variants, common, tmp_path, repeats=3)
    assert small["outcome"] == "ok" and len(small["times_s"]) == small["repeats"] == 3
    assert (small["memory_growth_bytes"], small["memory_peak_bytes"]) == (3_000_000, 7_000_000)
    assert huge["outcome"] == harness.OUT_OF_MEMORY and huge["needs_bytes"] == 2**60
    for row in (small, huge):
        assert row["case"] == {"m": 2, "dim": 3}
        assert {"date", "commit", "dirty", "command", "device", "driver", "versions", "threads", "bench"} <= set(row)
        assert str(tmp_path) not in json.dumps(row)  # no folder of this machine in a row
        assert "out of memory" in harness.describe(row) or "+3 MB" in harness.describe(row)


def test_run_case_killed_child_is_out_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "memory_in_child", lambda *_: harness.OUT_OF_MEMORY)
    variants = [variant("greedy", lambda inputs: 1 / 0)]
    (row,) = harness.run_case(bench(tmp_path, variants), {"m": 2, "dim": 3}, variants, {}, tmp_path, repeats=1)
    assert row["outcome"] == harness.OUT_OF_MEMORY


# memory


@linux
def test_peak_memory_counts_what_the_call_touches():
    size = 48 * 2**20
    growth, peak = machine.peak_memory(lambda: np.ones(size, dtype=np.uint8).sum())
    slack = 2**20  # the kernel counts pages for each processor first and adds them up now and then
    assert size - slack <= growth <= size + 16 * slack
    assert peak >= growth
    again, _ = machine.peak_memory(lambda: None)  # the mark was set down
    assert again < size // 2


@linux
@needs_cpu
def test_memory_in_child_starts_from_loaded_inputs(tmp_path):
    case = {"m": 2000, "dim": 512}  # 4 MB of features, S would be 16 MB
    of = {v.key: v for v in bench_density.variants(case)}
    for name in ("full", "tiny"):
        (tmp_path / name).mkdir()
    ours, _ = harness.memory_in_child(bench_density.BENCH, case, of["cpu/select_prototypes/1"], tmp_path)
    product = next(v for v in of.values() if v.name == "numpy.matmul")
    whole, peak = harness.memory_in_child(bench_density.BENCH, case, product, tmp_path)
    assert 15e6 < whole < 20e6 < peak
    assert ours < 15e6


# rows


def test_rows_append_whole_lines_and_come_back(tmp_path):
    path = tmp_path / "results" / "bench_test.jsonl"
    assert harness.read_rows(path) == []
    harness.append_rows(path, [{"a": 1}, {"a": 2}])
    harness.append_rows(path, [{"a": 3, "text": "größe\n"}])
    assert path.read_bytes().count(b"\n") == 3
    assert harness.read_rows(path) == [{"a": 1}, {"a": 2}, {"a": 3, "text": "größe\n"}]


def test_rows_refuse_what_is_no_json(tmp_path):
    path = tmp_path / "bench_test.jsonl"
    with pytest.raises(ValueError, match="JSON"):
        harness.append_rows(path, [{"a": 1}, {"a": float("nan")}])
    assert not path.exists()
    path.write_text('{"a": 1}\n{"a": 2')  # a writer was interrupted
    harness.append_rows(path, [{"a": 3}])
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        harness.read_rows(path)
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1: wanted an object, got list"):
        harness.read_rows(path)


# the command line


@needs_cpu
@pytest.mark.parametrize("module", [bench_density, bench_score], ids=["density", "score"])
def test_benchmark_runs_its_quick_case(module, tmp_path, no_children, capsys):
    out = tmp_path / "rows.jsonl"
    arguments = ["--quick", "--only", "cpu", "--only", "numpy.matmul", "--dir", str(tmp_path), "--out", str(out)]
    assert harness.main(module.BENCH, module.CASES, module.QUICK, arguments) == 0
    rows = harness.read_rows(out)
    assert {row["variant"] for row in rows} == {"cpu", "numpy.matmul"}
    assert all(row["outcome"] == "ok" and row["gflop_per_s"] > 0 and row["case"] == module.QUICK[0] for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == len(rows)
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]  # the inputs' files are gone


@pytest.mark.parametrize("size", ["12", "12x", "12x0", "axb", "1x2x3", "-1x2"])
def test_benchmark_refuses_bad_size(size, capsys):
    with pytest.raises(SystemExit) as stopped:
        harness.main(bench_density.BENCH, [], [], [f"--size={size}"])
    assert stopped.value.code == 2
    assert "--size: wanted mxdim in whole numbers" in capsys.readouterr().err


def test_benchmark_refuses_unknown_variant(capsys):
    with pytest.raises(SystemExit):
        harness.main(bench_density.BENCH, [], [{"m": 8, "dim": 2}], ["--quick", "--only", "gpu"])
    assert "--only: wanted some of" in capsys.readouterr().err


def test_density_variants_leave_slow_ones_out_of_large_cases():
    small = {v.key for v in bench_density.variants({"m": 4096, "dim": 512})}
    large = bench_density.variants({"m": 60000, "dim": 256})
    assert {v.key for v in large} < small
    assert {v.name for v in large} >= {"torch.mm", "torch dense"}
    assert next(v for v in large if v.name == "torch dense").needs_bytes == 16 * 60000**2


# what is right


@pytest.fixture(scope="module")
def chosen():
    """A class of features and what the float64 reference says of it."""
    x = bench_density.Inputs({"m": 300, "dim": 24}).x
    x[7] = x[3]  # a duplicate row
    peaks = pe.density_peaks(x, cutoff_quantile=checks.QUANTILE, backend="reference", full_eta=False)
    picks = pe.select_prototypes(x, np.zeros(300, dtype=int), samples_per_class=None, backend="reference").indices[0]
    return x, checks.Selected(peaks.cutoff, peaks.rho, picks)


def test_selection_truth_confirms_the_reference(chosen):
    x, reference = chosen
    truth = checks.SelectionTruth(x, reference)
    assert truth.picks.tolist() == reference.picks.tolist()
    truth.same(reference, "reference")


def test_selection_truth_refuses_a_wrong_claim(chosen):
    x, reference = chosen
    with pytest.raises(harness.CheckFailed, match="wanted rank"):
        checks.SelectionTruth(x, dataclasses.replace(reference, cutoff=reference.cutoff + 1e-6))
    wrong = reference.rho.copy()
    wrong[11] += 2
    with pytest.raises(harness.CheckFailed, match="1 of 300 rows"):
        checks.SelectionTruth(x, dataclasses.replace(reference, rho=wrong))


def test_selection_truth_tells_exact_close_and_wrong_apart(chosen):
    x, reference = chosen
    truth = checks.SelectionTruth(x, reference)
    rounded = dataclasses.replace(reference, cutoff=float(np.float32(reference.cutoff)))
    truth.close(rounded, "rounded")
    with pytest.raises(harness.CheckFailed, match="rounded: cutoff"):
        truth.same(rounded, "rounded")
    with pytest.raises(harness.CheckFailed, match="cutoff off by"):
        truth.close(dataclasses.replace(reference, cutoff=reference.cutoff + 1e-3), "far")
    rho = reference.rho.copy()
    rho[5] += 100
    with pytest.raises(harness.CheckFailed, match="densities of 1 rows"):
        truth.close(dataclasses.replace(reference, rho=rho), "rho")
    picks = reference.picks.copy()
    picks[-1] = np.argmin(reference.rho)
    for judge in (truth.same, truth.close):
        with pytest.raises(harness.CheckFailed, match="pick"):
            judge(dataclasses.replace(reference, picks=picks), "picks")
    with pytest.raises(harness.CheckFailed, match="7 picks, 8 wanted"):
        truth.close(dataclasses.replace(reference, picks=picks[:-1]), "few")


@pytest.mark.parametrize("chunk_bytes", [64 * 2**20, 40_000], ids=["one chunk", "many chunks"])
def test_torch_baselines_agree_with_the_reference(chosen, chunk_bytes, monkeypatch):
    torch = pytest.importorskip("torch")
    import baselines

    monkeypatch.setattr(baselines, "CHUNK_BYTES", chunk_bytes)
    x, reference = chosen
    truth = checks.SelectionTruth(x, reference)
    for pipeline in (baselines.torch_dense, baselines.torch_chunked):
        found = pipeline(torch.from_numpy(x))
        truth.close(found, pipeline.__name__)
        assert found.rho.dtype == np.int64 and len(found.picks) == 8


def test_torch_baseline_always_takes_the_densest_row():
    torch = pytest.importorskip("torch")
    import baselines

    x = torch.ones(20, 4) + 1e-4 * torch.arange(20)[:, None] * torch.eye(4)[0]  # all but equal rows
    for pipeline in (baselines.torch_dense, baselines.torch_chunked):
        found = pipeline(x)
        assert found.picks.tolist() == [int(found.rho.argmax())]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("score")
    bench_score.prepare({"num_samples": 900, "dim": 16, "num_classes": 7}, folder)
    inputs = bench_score.Inputs(folder)
    return inputs, checks.ScoreTruth(inputs.open(), inputs.prototypes.folded)


def test_score_truth_confirms_the_reference_and_torch(scored, monkeypatch):
    pytest.importorskip("torch")
    import baselines

    inputs, truth = scored
    monkeypatch.setattr(baselines, "CHUNK_BYTES", 16 * 4 * 100)  # 100 rows a chunk
    exact = bench_score.correct(inputs, "reference")
    truth.check(exact.labels, exact.score, exact.margin, exact=True, name="reference")
    rounded = bench_score.plain_torch(inputs)
    truth.check(rounded.labels, rounded.score, rounded.margin, exact=False, name="torch")
    np.testing.assert_array_equal(rounded.changed, exact.changed)
    with pytest.raises(harness.CheckFailed, match="score is off"):
        truth.check(rounded.labels, rounded.score, rounded.margin, exact=True, name="torch")


def test_score_truth_refuses_a_wrong_label(scored):
    inputs, truth = scored
    exact = bench_score.correct(inputs, "reference")
    labels = exact.labels.copy()
    labels[13] = (labels[13] + 1) % 7
    with pytest.raises(harness.CheckFailed, match=r"1 labels are wrong, first at rows \[13\]"):
        truth.check(labels, exact.score, exact.margin, exact=True, name="wrong")


def test_score_rooflines_walk_over_the_whole_file(scored, monkeypatch):
    pytest.importorskip("torch")
    inputs, _ = scored
    monkeypatch.setattr(bench_score, "DEFAULT_CHUNK_BYTES", 16 * 4 * 250)
    check = bench_score.checker({}, inputs)
    products = [v for v in bench_score.variants({}) if v.role == "roofline"]
    assert {v.name for v in products} == {"torch.mm", "numpy.matmul", "numpy.copyto"}
    for v in products:
        result = v.call(inputs)
        assert len(result) == 900 % 250
        check(v, result)
        with pytest.raises(harness.CheckFailed):
            check(v, result + 1)


# reports


def density_rows(date="2031-05-06T07:08:09+00:00", median=2.0, sizes=((1000, 8), (2000, 8))):
    """Rows as a run would leave them."""
    rows = []
    for m, dim in sizes:
        for name, task, role, factor in [
            ("torch.mm", tables.PRODUCTS[0], "roofline", 1.0),
            ("cpu", tables.SELECT, "ours", 0.5),
            ("torch dense", tables.SELECT, "baseline", 4.0),
        ]:
            times = [factor * median * t for t in (0.9, 1.0, 1.1)]
            row = {"bench": "bench_density", "date": date, "commit": "abc", "dirty": False, "device": "a machine"}
            row |= {"command": "python x", "versions": {"torch": "2.0"}, "case": {"m": m, "dim": dim}}
            row |= {"variant": name, "task": task, "role": role, "threads": 2, "outcome": "ok"}
            row |= harness.summary(times, flops=2.0 * m * m * dim, bytes=None)
            rows.append({**row, "memory_growth_bytes": 12_000_000, "memory_peak_bytes": 99_000_000})
    return rows


@pytest.fixture
def site(tmp_path):
    """A README with a place for the tables, and rows of a density run."""
    (tmp_path / "benchmarks").mkdir()
    for file in ("README.md", "benchmarks/README.md"):
        (tmp_path / file).write_text(
            "# Title\n\n<!-- bench_density:begin -->\nold\n<!-- bench_density:end -->\n\nText.\n"
        )
    harness.append_rows(tmp_path / "results" / "bench_density.jsonl", density_rows())
    return tmp_path


def test_report_writes_tables_and_plots_and_is_idempotent(site):
    pytest.importorskip("matplotlib")
    files = ["README.md", "benchmarks/README.md", "docs/images/bench_density.png"]
    assert report.update(site, site / "results", check=False) == []
    first = {file: (site / file).read_bytes() for file in files}
    assert report.update(site, site / "results", check=False) == []
    assert {file: (site / file).read_bytes() for file in files} == first
    assert report.update(site, site / "results", check=True) == []
    text = first["README.md"].decode()
    assert text.startswith("# Title\n\n<!-- bench_density:begin -->\n") and text.endswith("end -->\n\nText.\n")
    assert "| 1,000 x 8 | 2 s, 12 MB | 1 s, 12 MB | 8 s, 12 MB | 0.50 | 8.00 |" in text
    assert "1.8 s to" not in text and "0.008 GFLOP/s" in first["benchmarks/README.md"].decode()
    assert not (site / "docs/images/bench_score.png").exists()  # nothing measured, nothing drawn


def test_report_check_finds_a_changed_number_and_changes_nothing(site):
    pytest.importorskip("matplotlib")
    report.update(site, site / "results", check=False)
    readme = site / "README.md"
    forged = readme.read_text().replace("| 0.50 |", "| 0.40 |", 1)
    readme.write_text(forged)
    assert report.update(site, site / "results", check=True) == [
        "README.md: the table bench_density does not show the newest rows"
    ]
    assert readme.read_text() == forged


def test_report_check_finds_rows_that_are_not_shown(site):
    pytest.importorskip("matplotlib")
    report.update(site, site / "results", check=False)
    harness.append_rows(site / "results" / "bench_density.jsonl", density_rows("2031-05-07T00:00:00+00:00", median=3.0))
    problems = report.update(site, site / "results", check=True)
    assert [problem.split(":")[0] for problem in problems] == [
        "README.md",
        "benchmarks/README.md",
        "docs/images/bench_density.png",
    ]


def test_report_rows_without_a_place_are_a_problem(site):
    pytest.importorskip("matplotlib")
    (site / "README.md").write_text("# Title\n")
    problems = report.update(site, site / "results", check=False)
    assert problems == ["README.md: no place for the rows, wanted one <!-- bench_density:begin --> and :end"]
    assert (site / "README.md").read_text() == "# Title\n"


def test_report_without_rows_leaves_no_number(site):
    (site / "results" / "bench_density.jsonl").unlink()
    assert len(report.update(site, site / "results", check=True)) == 2  # "old" has no row behind it
    assert report.update(site, site / "results", check=False) == []
    assert "<!-- bench_density:begin -->\n<!-- bench_density:end -->" in (site / "README.md").read_text()


def test_newest_takes_a_case_from_one_run_only():
    old = density_rows("2031-01-01T00:00:00+00:00", median=1.0)
    new = density_rows("2031-01-02T00:00:00+00:00", median=5.0, sizes=[(1000, 8)])[:2]  # no torch dense
    cases = tables.newest([*new, *old])["a machine"]
    assert [(case[0]["case"]["m"], len(case), case[0]["median_s"]) for case in cases] == [
        (1000, 2, 5.0),
        (2000, 3, 1.0),
    ]


def test_tables_show_out_of_memory_as_a_cell():
    rows = density_rows()
    rows[-1] = {k: v for k, v in rows[-1].items() if not k.endswith("_s") and "memory" not in k}
    rows[-1] |= {"outcome": harness.OUT_OF_MEMORY, "needs_bytes": 64_000_000, "available_bytes": 1}
    last = tables.density_summary(rows).splitlines()[-3]  # a picture follows
    assert last == "| 2,000 x 8 | 2 s, 12 MB | 1 s, 12 MB | out of memory (64 MB) | 0.50 |  |"
    assert "out of memory (needs 64 MB)" in tables.full_table(rows)


def test_claims_say_whether_they_hold():
    rows = density_rows(sizes=[(16384, 512)])
    told = report.claims(rows, [])
    assert [line.split(":")[0] for line in told] == ["holds", "holds"]
    rows[1]["median_s"] = 1.9
    told = report.claims(rows, [])
    assert told[0].startswith("DOES NOT HOLD: cpu / torch.mm(X, X.T, out=S) at most 0.8, measured 0.95")
    assert told[1].startswith("holds")


def test_plot_is_a_picture_that_knows_its_rows(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    rows = density_rows()
    path = tmp_path / "images" / "density.png"
    assert plots.shown_digest(path) is None
    plots.plot_density(rows, path)
    assert plots.shown_digest(path) == plots.digest(rows) != plots.digest(rows[:3])
    with image.open(path) as picture:
        assert picture.width > 600 and len(np.unique(np.asarray(picture))) > 10


def test_readmes_and_plots_show_the_measured_rows():
    assert report.update(ROOT, harness.RESULTS, check=True) == []
