"""The command line of the benchmarks: every script on the host, and its GPU's side on a stand-in."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
from benchmark_house import BENCHES, ROOT, QuietHost, StandIn, house, variant

import proto_engine as pe

import command  # isort: skip
import gpu  # isort: skip
import rows  # isort: skip

needs_cpu = pytest.mark.skipif(pe.backends()["cpu"] is not None, reason="the native module was not built")


@pytest.fixture
def on_host(monkeypatch):
    monkeypatch.setattr(command, "Host", QuietHost)


@pytest.fixture
def on_stand_in(monkeypatch):
    place = StandIn()
    monkeypatch.setattr(command, "open_place", lambda device, *, brief: place)
    return place


def of(name):
    return importlib.import_module(name).BENCH


@needs_cpu
@pytest.mark.parametrize("name", BENCHES)
def test_benchmark_runs_its_quick_case_on_the_host(name, tmp_path, on_host, capsys):
    out = tmp_path / "rows.jsonl"
    arguments = ["--quick", "--without", "numba", "--dir", str(tmp_path), "--out", str(out)]
    assert command.main(of(name), arguments) == 0
    found = rows.read_rows(out)
    assert {"ours", "baseline", "roofline"} <= {row["role"] for row in found}
    assert "cpu" in {row["variant"] for row in found}
    for row in found:
        assert row["outcome"] == "ok" and row["median_s"] > 0 and row["case"] in of(name).host.quick, row
    assert len(capsys.readouterr().out.splitlines()) == len(found)
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]  # the inputs' files are gone


@pytest.mark.parametrize("name", BENCHES)
def test_benchmark_side_of_the_gpu_runs_on_a_stand_in(name, tmp_path, on_stand_in):
    """Our torch backend, plain torch and the rooflines, on tensors in host memory."""
    out = tmp_path / "rows.jsonl"
    without = [f"--without={other}" for other in ("torch.compile", "cupy dense", "cupy chunked", "keops")]
    assert command.main(of(name), ["--device", "cuda", "--quick", *without, "--out", str(out)]) == 0
    found = rows.read_rows(out)
    assert {row["role"] for row in found} == {"ours", "baseline", "roofline"}
    assert "torch" in {row["variant"] for row in found}
    for row in found:
        assert (row["outcome"], row.get("reason")) == ("ok", None), row
        assert rows.on_gpu(row) and row["case"]["dtype"] in command.DTYPES
    keys = [(str(row["case"]), row["variant"], row["task"]) for row in found]
    assert len(keys) == len(set(keys))  # a result of one variant is not taken for another's


@pytest.mark.parametrize("name", BENCHES)
def test_benchmark_cases_of_the_gpu_are_complete(name):
    side = of(name).gpu
    for case in (*side.cases, *side.quick, *side.gpu_check):
        assert list(case) == [*of(name).sizes, "dtype"]
    assert {case["dim"] for case in side.cases} == {256, 512, 1024, 2048}
    assert {case["dtype"] for case in side.cases} == set(command.DTYPES)
    largest = max(case.get("m", case.get("num_samples")) for case in side.cases)
    assert largest == (100000 if name == "bench_similarity" else 10**6)  # 4 m^2 bytes of a matrix
    assert side.gpu_check and all(case in side.cases for case in side.gpu_check)


@pytest.mark.parametrize("size", ["12", "12x", "12x0", "axb", "1x2x3", "-1x2"])
def test_benchmark_refuses_bad_size(size, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(house(tmp_path, []), [f"--size={size}"])
    assert stopped.value.code == 2
    assert "--size: wanted mxdim in whole numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quick", "--only", "gpu"], "--only, --without: wanted some of small"),
        (["--quick", "--without", "small"], "--only, --without: wanted some of small"),
        (["--repeats", "0"], "--repeats: wanted 1 or more, got 0"),
        (["--dtype", "float16"], "--dtype, --gpu-check: wanted with --device cuda only"),
        (["--gpu-check"], "--dtype, --gpu-check: wanted with --device cuda only"),
        (["--quick", "--dir", "missing"], "--dir: wanted a folder that exists, got missing"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_benchmark_refuses_bad_arguments(arguments, message, tmp_path, on_host, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(house(tmp_path, [variant("small")]), arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_benchmark_without_a_gpu_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    assert command.main(house(tmp_path, [variant("small")]), ["--device", "cuda", "--quick"]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("--device cuda: torch ") and told.err.count("\n") == 1 and not told.out


def test_benchmark_size_and_dtype_make_cases(tmp_path, on_stand_in, capsys):
    bench = house(tmp_path, [variant("small")])
    out = tmp_path / "rows.jsonl"
    base = ["--device", "cuda", "--out", str(out)]
    assert command.main(bench, [*base, "--size", "5x4"]) == 0
    assert command.main(bench, [*base, "--size", "5x4", "--dtype", "bfloat16", "--dtype", "float32"]) == 0
    dtypes = [row["case"]["dtype"] for row in rows.read_rows(out)]
    assert dtypes == ["float16", "bfloat16", "float32"]


@pytest.mark.parametrize(("role", "status"), [("ours", 1), ("roofline", 1), ("baseline", 0)])
def test_benchmark_status_tells_of_our_failures(role, status, tmp_path, on_host):
    import dataclasses

    bad = dataclasses.replace(variant("bad", lambda inputs: 1 / 0), role=role)
    assert command.main(house(tmp_path, [bad, variant("good")]), ["--quick"]) == status


def test_benchmark_stops_where_the_device_is_lost(tmp_path, on_stand_in, monkeypatch, capsys):
    def lost():
        raise command.DeviceLost("the GPU answers no more")

    monkeypatch.setattr(on_stand_in, "recover", lost)
    bench = house(tmp_path, [variant("bad", lambda inputs: 1 / 0), variant("good")])
    assert command.main(bench, ["--device", "cuda", "--quick"]) == 1
    assert "the GPU answers no more; leave the last variant out (--without)" in capsys.readouterr().err


def test_benchmark_gpu_check_ends_in_time_and_names_what_is_left(tmp_path, on_stand_in, monkeypatch, capsys):
    import dataclasses

    bench = house(tmp_path, [variant("a"), variant("slow to start")])
    cases = [{"m": m, "dim": 3, "dtype": "float16"} for m in (5, 6, 7)]
    side = dataclasses.replace(bench.gpu, gpu_check=cases, check_without=("slow to start",))
    clock = iter([0.0, 1.0, 30.0, 60.0])
    monkeypatch.setattr(command, "monotonic", lambda: next(clock))
    out = tmp_path / "rows.jsonl"
    arguments = ["--device", "cuda", "--gpu-check", "--out", str(out)]
    assert command.main(dataclasses.replace(bench, gpu=side), arguments) == 0
    assert [(row["variant"], row["case"]["m"]) for row in rows.read_rows(out)] == [("a", 5), ("a", 6)]
    assert "bench_test: out of time, left out: 7 x 3 float16" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.parametrize("name", BENCHES)
def test_benchmark_runs_its_quick_cases_on_a_gpu(name, tmp_path):
    out = tmp_path / "rows.jsonl"
    script = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py")]
    arguments = ["--device", "cuda", "--quick", "--without", "torch.compile", "--without", "keops", "--out", str(out)]
    done = subprocess.run([*script, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows.read_rows(out)
    for row in found:
        if row["role"] != "baseline":
            assert row["outcome"] == "ok", row
            assert row["median_s"] > 0 and row["memory_growth_bytes"] >= 0
    assert {row["case"]["dtype"] for row in found} >= {"float16", "float32"}
    if pe.backends()["cuda"] is None:
        assert "cuda" in {row["variant"] for row in found}
