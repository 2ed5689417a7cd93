"""The README's section about GPUs: tables, charts and claims, made of rows, and of nothing where there are none."""

from __future__ import annotations

import re

import pytest
from benchmark_house import BENCHES, StandIn

import claims  # isort: skip
import gpu_plots  # isort: skip
import gpu_tables  # isort: skip
import harness  # isort: skip
import plots  # isort: skip
import report  # isort: skip
import rows  # isort: skip
import tables  # isort: skip

DENSITY, SELECT = "density_peaks", "select_prototypes"


def row(bench, case, variant, task, role, median, *, flops=None, bytes=None, **more):
    """A row as a run on a GPU would leave it."""
    made = {"bench": bench, "date": "2031-05-06T07:08:09+00:00", "commit": "abc", "dirty": False, "command": "python x"}
    made |= {**StandIn().about(), "device": "a GPU", "versions": {"torch": "2.0"}, "case": case, "variant": variant}
    made |= {"task": task, "role": role, "threads": 1, "outcome": "ok", "clock": "wall" if task == SELECT else "events"}
    made |= harness.summary([median * t for t in (0.9, 1.0, 1.1)], flops=flops, bytes=bytes)
    return {**made, "memory_growth_bytes": 12_000_000, "memory_peak_bytes": 99_000_000, **more}


def density_rows(product=0.03, cuda=0.015, sizes=((71000, 2048), (16384, 2048), (71000, 512)), dtype="float16"):
    made = []
    for m, dim in sizes:
        case, flops = {"m": m, "dim": dim, "dtype": dtype}, 2.0 * m * m * dim
        for variant, task, role, median in [
            ("torch.mm", "S = X X^T", "roofline", product),
            ("torch.mm TF32", "S = X X^T", "roofline", product / 7),
            ("torch copy", "copy", "roofline", 1e-4),
            ("cuda", DENSITY, "ours", cuda),
            ("cuda mma", DENSITY, "ours", 2 * cuda),
            ("torch chunked", DENSITY, "baseline", 0.4),
        ]:
            made.append(row("bench_density", case, variant, task, role, median, flops=flops))
        lost = {"outcome": rows.OUT_OF_MEMORY, "needs_bytes": 80_000_000_000, "reason": None}
        made.append(row("bench_density", case, "torch dense", DENSITY, "baseline", 1.0, **lost))
    return made


def engine_rows():
    made = []
    for classes, m, dim, cuda in ((14, 1280, 2048, 1.2e-3), (14, 71000, 2048, 0.7), (1, 10**6, 1024, 5.0)):
        case = {"num_classes": classes, "m": m, "dim": dim, "dtype": "float16"}
        made.append(row("bench_engine", case, "torch.bmm", "S = X X^T, all classes", "roofline", 1e-3, flops=1e12))
        made.append(row("bench_engine", case, "cuda", SELECT, "ours", cuda, flops=1e12))
        for name, median in (("torch dense, batched", 0.02), ("torch dense, batched sort", 0.012)):
            made.append(row("bench_engine", case, name, SELECT, "baseline", median, flops=1e12))
    return made


def score_rows():
    case = {"num_samples": 10**6, "dim": 2048, "num_classes": 14, "dtype": "float16"}
    bank = 2.0 * 10**6 * 2048
    return [
        row("bench_score", case, "torch copy", "copy", "roofline", 4e-3, bytes=2 * bank),
        row("bench_score", case, "cuda", "correct_labels", "ours", 2e-3, bytes=bank),
        row("bench_score", case, "torch copy", "copy to the device", "roofline", 0.1, bytes=bank),
        row("bench_score", case, "cuda", "correct_labels, pinned bank", "ours", 0.2, bytes=bank),
    ]


@pytest.fixture
def site(tmp_path):
    """READMEs with places for everything, and rows of GPU runs."""
    (tmp_path / "benchmarks").mkdir()
    for file in ("README.md", "benchmarks/README.md"):
        places = [f"<!-- {name}:begin -->\n<!-- {name}:end -->\n" for name in (*BENCHES, "gpu", "gpu_status")]
        (tmp_path / file).write_text("# Title\n\n" + "\n".join(places))
    for made in (density_rows(), engine_rows(), score_rows()):
        rows.append_rows(tmp_path / "results" / f"{made[0]['bench']}.jsonl", made)
    return tmp_path


def section(text, name):
    return re.search(rf"<!-- {name}:begin -->\n(.*?)<!-- {name}:end -->", text, re.DOTALL).group(1)


def test_gpu_rows_make_a_section_and_charts(site):
    pytest.importorskip("matplotlib")
    assert report.update(site, site / "results", check=False) == []
    assert report.update(site, site / "results", check=True) == []
    readme = (site / "README.md").read_text()
    shown = section(readme, "gpu")
    assert "a GPU, driver 1.2, CUDA 99.9; medians of 3 interleaved calls" in shown
    assert "| 71,000 x 2,048 float16 | 30 ms, 688 TFLOP/s, 12 MB | 15 ms, 1,377 TFLOP/s, 12 MB |" in shown
    assert "| out of memory (80.0 GB) |" in shown and shown.count("| 2.00 |") == 2
    assert "| 14 x 1,280 x 2,048 float16 |" in shown and "| 12 ms, 83.3 TFLOP/s, 12 MB | 0.83 | 10.00 |" in shown
    assert "| 4 ms, 2,048 GB/s, 12 MB | 2 ms, 2,048 GB/s, 12 MB |" in shown and "| 1.00 |  | 0.50 |" in shown
    assert section(readme, "bench_density") == ""  # nothing was measured on a host
    status = section((site / "benchmarks/README.md").read_text(), "gpu_status")
    assert status == "Rows of GPUs: a GPU.\n"
    assert "No benchmark has run on a GPU yet" in gpu_tables.gpu_status([])
    full = section((site / "benchmarks/README.md").read_text(), "bench_density")
    assert "| 71,000 x 512 float16 | cuda mma | density_peaks | 30 ms |" in full
    assert "out of memory (needs 80.0 GB)" in full
    pictures = sorted(path.name for path in (site / "docs/images").iterdir())
    assert pictures == ["gpu_roofline.png", "gpu_time.png"]  # and none of a host


def test_gpu_rows_leave_the_sections_of_hosts_alone(site):
    pytest.importorskip("matplotlib")
    host = [{**r, "on": "cpu", "device": "a host", "case": {"m": 9, "dim": 4}} for r in density_rows()[:1]]
    assert tables.newest([*host, *density_rows()]).keys() == {"a host", "a GPU"}
    assert tables.full_table([*host, *density_rows()]) == tables.full_table(host) != ""
    assert gpu_tables.gpu_full_table(host) == gpu_tables.gpu_summary(host) == ""


def test_gpu_chart_shows_the_size_with_most_dimensions(tmp_path):
    pytest.importorskip("matplotlib")
    made = [*density_rows(), *density_rows(dtype="float32", sizes=((1280, 256),))]
    device, cases, dtype = gpu_plots._of_one_dtype(made)
    assert (device, dtype, len(cases)) == ("a GPU", "float16", 3)
    assert gpu_plots._most_common(cases, "m") == 71000 and gpu_plots._most_common(cases, "dim") == 2048
    case = next(c for c in cases if c[0]["case"]["m"] == 16384)
    assert gpu_plots._over_product(case, "cuda") == pytest.approx(2.0)
    assert gpu_plots._over_product(case, "torch dense") is None and gpu_plots._over_product(case, "cupy") is None
    for draw in (gpu_plots.plot_roofline, gpu_plots.plot_time):
        path = tmp_path / f"{draw.__name__}.png"
        draw(made, path)
        assert plots.shown_digest(path) == plots.digest(made)


def test_gpu_claims_say_whether_they_hold():
    told = claims.claims({made[0]["bench"]: made for made in (density_rows(), engine_rows(), score_rows())})
    assert [line.split(", measured")[0] for line in told] == [
        "holds: density and cutoff: torch.mm(X, X.T, out=S) / cuda at least 1.5",
        "holds: density and cutoff: workspace of cuda, MB at most 100",
        "holds: prototypes of one class of 1,000,000 x 1,024, s at most 6",
        "holds: prototypes at the paper's size, ms at most 1.5",
        "holds: at the paper's size: fastest plain torch / cuda at least 8",
        "DOES NOT HOLD: prototypes of 14 whole classes of 71,000 x 2,048, s at most 0.6",
        "holds: corrected labels, bank on the device: rate / rate of a copy at least 0.8",
        "DOES NOT HOLD: corrected labels, pinned bank: rate / rate of the copy to the device at least 0.8",
    ]
    assert claims.claims({"bench_density": density_rows(cuda=0.025)})[0].startswith("DOES NOT HOLD")
    failed = [{**r, "outcome": rows.FAILED} if r["variant"] == "cuda" else r for r in density_rows()]
    assert claims.claims({"bench_density": failed}) == []


def test_gpu_table_tells_why_there_is_no_time():
    made = density_rows(sizes=((1280, 2048),))
    made[3] |= {"outcome": rows.UNAVAILABLE, "reason": "no kernel image for this GPU", "needs_bytes": None}
    assert "| unavailable |" in gpu_tables.gpu_summary(made)
    assert "| unavailable |  |  |  | no kernel image for this GPU |" in gpu_tables.gpu_full_table(made)
