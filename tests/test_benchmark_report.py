"""Tables, plots and claims made of rows."""

from __future__ import annotations

import numpy as np
import pytest
from benchmark_house import ROOT

import claims  # isort: skip
import harness  # isort: skip
import plots  # isort: skip
import report  # isort: skip
import rows  # isort: skip
import tables  # isort: skip


def density_rows(date="2031-05-06T07:08:09+00:00", median=2.0, sizes=((1000, 8), (2000, 8))):
    """Rows as a run would leave them."""
    made = []
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
            made.append({**row, "memory_growth_bytes": 12_000_000, "memory_peak_bytes": 99_000_000})
    return made


@pytest.fixture
def site(tmp_path):
    """A README with a place for the tables, and rows of a density run."""
    (tmp_path / "benchmarks").mkdir()
    for file in ("README.md", "benchmarks/README.md"):
        (tmp_path / file).write_text(
            "# Title\n\n"
            + "<!-- gpu_status:begin -->\nold\n<!-- gpu_status:end -->\n\n" * (file != "README.md")
            + "<!-- bench_density:begin -->\nold\n<!-- bench_density:end -->\n\nText.\n"
        )
    rows.append_rows(tmp_path / "results" / "bench_density.jsonl", density_rows())
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
    rows.append_rows(site / "results" / "bench_density.jsonl", density_rows("2031-05-07T00:00:00+00:00", median=3.0))
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
    assert len(report.update(site, site / "results", check=True)) == 3  # "old" has no row behind it
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
    made = density_rows()
    made[-1] = {k: v for k, v in made[-1].items() if not k.endswith("_s") and "memory" not in k}
    made[-1] |= {"outcome": rows.OUT_OF_MEMORY, "needs_bytes": 64_000_000, "available_bytes": 1}
    last = tables.density_summary(made).splitlines()[-3]  # a picture follows
    assert last == "| 2,000 x 8 | 2 s, 12 MB | 1 s, 12 MB | out of memory (64 MB) | 0.50 |  |"
    assert "out of memory (needs 64 MB)" in tables.full_table(made)
    made[-1] |= {"outcome": rows.WRONG, "needs_bytes": None}
    assert tables.density_summary(made).splitlines()[-3].endswith("| wrong | 0.50 |  |")


def test_claims_say_whether_they_hold():
    made = density_rows(sizes=[(16384, 512)])
    told = claims.claims({"bench_density": made})
    assert [line.split(":")[0] for line in told] == ["holds", "holds"]
    made[1]["median_s"] = 1.9
    told = claims.claims({"bench_density": made})
    assert told[0].startswith("DOES NOT HOLD: cpu / torch.mm(X, X.T, out=S) at most 0.8, measured 0.95")
    assert told[1].startswith("holds")


def test_plot_is_a_picture_that_knows_its_rows(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    made = density_rows()
    path = tmp_path / "images" / "density.png"
    assert plots.shown_digest(path) is None
    plots.plot_density(made, path)
    assert plots.shown_digest(path) == plots.digest(made) != plots.digest(made[:3])
    with image.open(path) as picture:
        assert picture.width > 600 and len(np.unique(np.asarray(picture))) > 10


def test_readmes_and_plots_show_the_measured_rows():
    assert report.update(ROOT, rows.RESULTS, check=True) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(2e-6, "2 us"), (9.994e-4, "999 us"), (9.997e-4, "1 ms"), (0.0409, "40.9 ms"), (0.9997, "1 s"), (12.34, "12.3 s")],
)
def test_seconds_have_three_digits_and_no_exponent(value, text):
    assert tables.seconds(value) == text
