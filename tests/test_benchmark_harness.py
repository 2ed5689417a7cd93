"""The benchmark house: its order of calls, its outcomes, its rows. Nothing here is timed in earnest."""

from __future__ import annotations

import itertools
import json
import os

import numpy as np
import pytest
from benchmark_house import QuietHost, StandIn, house, run_case, variant

import proto_engine as pe

# after benchmark_house, which says where they are
import bench_density  # isort: skip
import children  # isort: skip
import harness  # isort: skip
import machine  # isort: skip
import parts  # isort: skip
import places  # isort: skip
import rows  # isort: skip

linux = pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="takes Linux's clear_refs")
needs_cpu = pytest.mark.skipif(pe.backends()["cpu"] is not None, reason="the native module was not built")


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


def timed(variants, place, repeats):
    trials = {v.key: harness.Trial() for v in variants}
    harness.time_interleaved(variants, trials, None, place, repeats=repeats)
    return trials


def test_timing_interleaves_in_another_order_each_round(monkeypatch):
    said = []
    place = QuietHost()
    monkeypatch.setattr(place, "flush", lambda: said.append("-"))
    variants = [variant(name, lambda inputs, name=name: said.append(name)) for name in "abc"]
    trials = timed(variants, place, repeats=20)
    assert said[::2] == ["-"] * 60
    rounds = [said[k + 1 : k + 6 : 2] for k in range(0, 120, 6)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    behind = {name: set() for name in "abc"}
    for names in rounds:
        for before, after in itertools.pairwise(names):
            behind[after].add(before)
    assert all(len(others) == 2 for others in behind.values())  # the same one every time would be an advantage
    assert all(len(trial.clocks) == 20 and trial.clocks[0].wall >= 0 for trial in trials.values())
    assert all(trial.clocks[0].events is None for trial in trials.values())


def test_timing_gives_each_variant_its_threads(monkeypatch):
    monkeypatch.setenv("PROTO_ENGINE_NUM_THREADS", "5")
    seen = {}
    variants = [
        variant(str(n), lambda inputs, n=n: seen.update({n: os.environ["PROTO_ENGINE_NUM_THREADS"]}), threads=n)
        for n in (1, 2)
    ]
    timed(variants, QuietHost(), repeats=1)
    assert seen == {1: "1", 2: "2"}
    assert os.environ["PROTO_ENGINE_NUM_THREADS"] == "5"


def test_host_flush_touches_twice_the_last_cache(monkeypatch):
    monkeypatch.setattr(machine, "l3_bytes", lambda: 2**12)
    place = places.Host()
    place.flush()
    place.flush()
    assert place._caches._buffer.nbytes == 2**13 and (place._caches._buffer == 3.0).all()


def test_timing_variant_that_fails_late_leaves_the_others_alone(capsys):
    calls = []

    def break_down(inputs):
        calls.append("x")
        if len(calls) == 2:
            raise RuntimeError("out of luck")

    place = StandIn()
    trials = timed([variant("frail", break_down), variant("sound")], place, repeats=3)
    assert (trials["frail/task/1"].outcome, trials["frail/task/1"].reason) == (rows.FAILED, "out of luck")
    assert len(trials["sound/task/1"].clocks) == 3 and len(calls) == 2
    assert place.recovered == 1 and "Traceback" in capsys.readouterr().err


# one case


def test_run_case_wrong_result_is_not_timed(tmp_path):
    calls = []

    def check(v, result):
        if v.name == "wrong":
            raise parts.CheckFailed("wrong: off by 1")

    variants = [variant(name, lambda inputs, name=name: calls.append(name)) for name in ("right", "wrong", "last")]
    right, wrong, last = run_case(tmp_path, variants, check=check, repeats=2)
    assert right["outcome"] == last["outcome"] == "ok"
    assert (wrong["outcome"], wrong["reason"]) == (rows.WRONG, "wrong: off by 1")
    assert "median_s" not in wrong and calls.count("wrong") == 1 and calls.count("last") == 3
    assert "wrong: off by 1" in rows.describe(wrong)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (MemoryError(), rows.OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate"), rows.OUT_OF_MEMORY),
        (RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"), rows.OUT_OF_MEMORY),
        (pe.BackendUnavailable("the device has no room: out of memory"), rows.OUT_OF_MEMORY),
        (pe.BackendUnavailable("no kernel image for this GPU"), rows.UNAVAILABLE),
        (parts.Unavailable("torch.compile: no compiler"), rows.UNAVAILABLE),
        (ValueError("backend: wanted one that computes on cuda:0, got 'faiss'"), rows.UNAVAILABLE),
        (ValueError("features: wanted something else"), rows.FAILED),
    ],
)
def test_run_case_errors_become_outcomes(tmp_path, error, outcome):
    def fail(inputs):
        raise error

    bad, good = run_case(tmp_path, [variant("bad", fail), variant("good")])
    assert bad["outcome"] == outcome and good["outcome"] == "ok"
    assert bad["reason"] == (str(error) or "MemoryError")


def test_run_case_rows_hold_everything_and_out_of_memory_is_one(tmp_path):
    variants = [variant("small"), variant("huge", lambda inputs: 1 / 0, needs_bytes=2**60)]
    common = machine.provenance(["--size", "2x3", "--dir", str(tmp_path)])
    small, huge = run_case(tmp_path, variants, common=common, repeats=3)
    assert small["outcome"] == "ok" and len(small["times_s"]) == small["repeats"] == 3
    assert (small["memory_growth_bytes"], small["memory_peak_bytes"]) == (3_000_000, 7_000_000)
    assert small["clock"] == "wall" and not rows.on_gpu(small)
    assert huge["outcome"] == harness.OUT_OF_MEMORY and huge["needs_bytes"] == 2**60
    for row in (small, huge):
        assert row["case"] == {"m": 2, "dim": 3}
        assert {"date", "commit", "dirty", "command", "device", "driver", "versions", "threads", "bench"} <= set(row)
        assert str(tmp_path) not in json.dumps(row)  # no folder of this machine in a row
        assert "out of memory" in rows.describe(row) or "+3 MB" in rows.describe(row)


def test_run_case_on_a_gpu_tells_both_clocks(tmp_path):
    place = StandIn()
    variants = [variant("device"), variant("host", ends_on_host=True, work={"flops": None, "bytes": 1e9})]
    device, host = run_case(tmp_path, variants, place=place, common=place.about(), repeats=3)
    for row, clock in ((device, "events"), (host, "wall")):
        assert row["clock"] == clock and row["median_s"] == row[f"{clock}_median_s"]
        assert row["wall_median_s"] == pytest.approx(2 * row["events_median_s"])
        assert row["repeats"] == 3
        assert (row["memory_growth_bytes"], row["memory_from"]) == (5_000_000, "allocators")
        assert rows.on_gpu(row)
    assert device["gb_per_s"] is None and device["gflop_per_s"] == pytest.approx(2 / device["median_s"])
    assert host["gflop_per_s"] is None and host["gb_per_s"] == pytest.approx(1 / host["median_s"])
    assert "TFLOP/s" in rows.describe(device) and "GB/s" in rows.describe(host)


def test_run_case_killed_child_is_out_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "memory_in_child", lambda *_: rows.OUT_OF_MEMORY)
    (row,) = run_case(tmp_path, [variant("greedy", lambda inputs: 1 / 0)], place=places.Host())
    assert row["outcome"] == rows.OUT_OF_MEMORY


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
    of = {v.key: v for v in bench_density.host_variants(case, places.Host())}
    for name in ("full", "tiny"):
        (tmp_path / name).mkdir()
    ours, peak = children.memory_in_child(bench_density.BENCH, case, of["cpu/select_prototypes/1"], tmp_path)
    assert peak < 250e6  # no torch in a process that does not compute with it
    product = next(v for v in of.values() if v.name == "numpy.matmul")
    whole, peak = children.memory_in_child(bench_density.BENCH, case, product, tmp_path)
    assert 15e6 < whole < 20e6 < peak
    assert ours < 15e6


# rows


def test_rows_append_whole_lines_and_come_back(tmp_path):
    path = tmp_path / "results" / "bench_test.jsonl"
    assert rows.read_rows(path) == []
    rows.append_rows(path, [{"a": 1}, {"a": 2}])
    rows.append_rows(path, [{"a": 3, "text": "größe\n"}])
    assert path.read_bytes().count(b"\n") == 3
    assert rows.read_rows(path) == [{"a": 1}, {"a": 2}, {"a": 3, "text": "größe\n"}]


def test_rows_refuse_what_is_no_json(tmp_path):
    path = tmp_path / "bench_test.jsonl"
    with pytest.raises(ValueError, match="JSON"):
        rows.append_rows(path, [{"a": 1}, {"a": float("nan")}])
    assert not path.exists()
    path.write_text('{"a": 1}\n{"a": 2')  # a writer was interrupted
    rows.append_rows(path, [{"a": 3}])
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        rows.read_rows(path)
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1: wanted an object, got list"):
        rows.read_rows(path)


def test_house_has_two_sides(tmp_path):
    bench = house(tmp_path, [variant("a")])
    assert bench.host.tiny({"m": 9, "dim": 3}) == {"m": 1, "dim": 3}
    assert rows.sizes({"m": 71000, "dim": 2048, "dtype": "float16"}) == "71,000 x 2,048 float16"


def test_provenance_without_history_takes_the_commit_from_the_environment(monkeypatch):
    monkeypatch.setattr(machine, "_git", lambda *_: None)
    monkeypatch.setenv("PROTO_ENGINE_COMMIT", "0123456789ab")
    found = machine.provenance([], {"on": "cuda", "device": "a GPU"})
    assert (found["commit"], found["dirty"], found["device"]) == ("0123456789ab", False, "a GPU")
