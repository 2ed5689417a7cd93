"""The steps of `make gpu-check`, whose commands a stand-in answers: what each runs, and makes of the outcome."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmark_house import BENCHES, ROOT
from fake_gpu import CLEAN, NO_HAZARD, FakeRunner
from fake_gpu import context as context

from proto_engine.backends.cuda import loops_of

import gpu_check_context  # isort: skip  from the folder that benchmark_house adds
import gpu_check_sanitizer  # isort: skip
import gpu_check_steps as steps  # isort: skip
import gpu_check_tests  # isort: skip
import verified  # isort: skip
from gpu_check_context import FAILED, LOOPS, PASSED  # isort: skip
from processes import Command, Done  # isort: skip
from rows import append_rows, read_rows  # isort: skip


def test_build_is_for_this_gpu_alone_and_into_this_python(context):
    assert steps.build(context).outcome == PASSED
    command = context.runner.commands[0]
    assert list(command.words[:4]) == [sys.executable, "-m", "pip", "install"]
    assert {"--no-build-isolation", "--no-deps"} <= set(command.words)
    assert command.environment == {"PROTO_ENGINE_CUDA": "1", "PROTO_ENGINE_CUDA_ARCHS": "90a-real"}
    assert verified.Gpu("", "8.6", "").architectures == "86-real"
    everything = "simt,mma,wgmma,wgmma-cluster,score-cluster"
    assert context.runner.commands[1].environment == {"PROTO_ENGINE_WITHOUT_LOOPS": everything}
    context.runner = FakeRunner(pip=(1, "nvcc fatal"))
    assert steps.build(context).detail == "pip install: status 1"


def test_tests_of_a_loop_decide_about_that_loop(context):
    assert gpu_check_tests.tests(context).loops == list(LOOPS)
    context.runner = FakeRunner(
        **{"-k 'wgmma and": (1, "1 failed, 3 passed in 1s"), "-k 'simt and cupy'": (5, "500 deselected in 1s")}
    )
    outcome = gpu_check_tests.tests(context)
    assert outcome.outcome == FAILED
    through = ["cuda/simt", "cuda/mma", "cuda/wgmma-cluster", "cuda/score-cluster", "cupy/mma"]
    assert outcome.loops == through  # no test of cupy/simt ran
    assert "failed: cuda/wgmma (1 failed, 3 passed in 1s)" in outcome.detail


def test_tests_of_a_backend_decide_about_all_of_its_loops(context):
    for end in ((1, "1 failed in 1s"), (None, "")):
        lane = gpu_check_tests.lanes(context.root)["cupy"]
        context.runner = FakeRunner()
        context.runner._answers = {" ".join(Command(lane)._quoted): end}
        outcome = gpu_check_tests.tests(context)
        assert outcome.outcome == FAILED
        assert outcome.loops == [loop for loop in LOOPS if loop.startswith("cuda/")]


def test_tests_that_all_skip_verify_nothing(context):
    context.runner = FakeRunner(pytest="40 skipped, 500 deselected in 1s")
    outcome = gpu_check_tests.tests(context)
    assert (outcome.outcome, outcome.loops) == (FAILED, [])


def test_every_loop_has_tests_of_its_own():
    """By the expressions that select them, among names as tests and their parameters have them."""
    selectors = gpu_check_tests._TESTS_OF
    assert {loop.partition("/")[2] for loop in LOOPS} == set(selectors)
    for name in selectors:
        has = {word: word in f"test_a[cuda:{name}]" for word in ("simt", "mma", "wgmma", "cluster")}
        assert [other for other, selector in selectors.items() if eval(selector, has)] == [name]


def test_every_test_for_a_gpu_is_in_a_lane():
    """The lanes for loops and backends take whole files, the last lane all other files."""
    lanes = gpu_check_tests.lanes()
    taken = {path for name in ("cuda", "cupy") for path in lanes[name] if path.endswith(".py")}
    assert taken == {option.removeprefix("--ignore=") for option in lanes["others"] if option.startswith("--ignore=")}
    assert "tests/test_cuda.py" in taken
    for loop in LOOPS:  # files whose parameters "cuda:mma" and the like the last lane leaves to these
        assert {f"tests/test_{name}.py" for name in ("backends_exact", "backends_score", "backends_contrast")} < set(
            lanes[loop]
        )
    for options in lanes.values():
        assert all((ROOT / path.removeprefix("--ignore=")).exists() for path in options if "test" in path)


def test_planted_faults_must_all_be_found(context):
    outcome = gpu_check_sanitizer.planted(context)
    assert (outcome.outcome, outcome.detail) == (PASSED, "found: bounds, race, uninitialized")
    assert "-arch=sm_90" in str(context.runner.commands[0])
    context.runner = FakeRunner(planted_race=NO_HAZARD)
    assert gpu_check_sanitizer.planted(context).detail == "not found: race (status 0)"
    context.runner = FakeRunner(memcheck=(255, "========= Error: Device not supported"))
    assert gpu_check_sanitizer.planted(context).outcome == FAILED
    context.runner = FakeRunner(nvcc=(1, "fatal"))
    assert gpu_check_sanitizer.planted(context).detail == "nvcc: status 1"


def test_sanitizer_runs_every_tool_on_every_loop(context):
    outcome = gpu_check_sanitizer.sanitizer(context)
    assert outcome.outcome == PASSED and outcome.loops == list(LOOPS)
    assert len(context.runner.commands) == 4 * len(LOOPS)
    answers = {"racecheck --error-exitcode 7": (7, "========= RACECHECK SUMMARY: 2 hazards displayed (2 errors)")}
    context.runner = FakeRunner()
    context.runner._answers = {"small_launches.py cuda mma": (1, CLEAN), **answers}
    outcome = gpu_check_sanitizer.sanitizer(context)
    assert outcome.outcome == FAILED and outcome.loops == []
    assert "cuda/mma memcheck: ERROR SUMMARY: 0 errors, status 1" in outcome.detail
    assert "cuda/simt racecheck: RACECHECK SUMMARY: 2 hazards displayed (2 errors), status 7" in outcome.detail
    context.runner = FakeRunner()
    context.runner._answers = {"small_launches.py cuda wgmma": (0, "no summary")}
    clean = ["cuda/simt", "cuda/mma", "cuda/score-cluster", "cupy/simt", "cupy/mma"]
    assert gpu_check_sanitizer.sanitizer(context).loops == clean


def test_without_a_sanitizer_nothing_counts_as_clean(context, monkeypatch):
    monkeypatch.setattr(gpu_check_sanitizer, "sanitizer_program", lambda: None)
    assert gpu_check_sanitizer.sanitizer(context).loops == []
    assert gpu_check_sanitizer.planted(context).detail == "compute-sanitizer is not installed"


def test_loops_are_those_that_this_gpu_runs(context, monkeypatch):
    for capability in ("8.0", "8.9", "10.0"):
        context.gpu = verified.Gpu("another", capability, "")
        assert gpu_check_context.loops_here(context) == ["cuda/simt", "cuda/mma", "cupy/simt", "cupy/mma"]
        native = loops_of(tuple(map(int, capability.split("."))))
        assert native == ["simt", "mma"]
    monkeypatch.setattr(gpu_check_context.importlib.util, "find_spec", lambda name: None)
    assert gpu_check_context.loops_here(context) == ["cuda/simt", "cuda/mma"]


def test_benchmarks_leave_their_rows_in_both_places(context):
    def run(command, limit):
        name = Path(command.words[1]).stem
        rows = [{"bench": name, "n": n} for n in range(2)] if name != "bench_eta" else []
        append_rows(Path(command.words[-1]), rows)
        assert command.words[2:5] == ["--device", "cuda", "--gpu-check"]
        return Done(0, "", 1.0)

    append_rows(context.out / "results.jsonl", [{"bench": "gpu_check"}])
    context.runner.run = run
    outcome = steps.benchmarks(context)
    assert outcome.outcome == FAILED and "bench_eta 0 rows" in outcome.detail
    assert len(read_rows(context.out / "results.jsonl")) == 1 + 2 * (len(steps.BENCHES) - 1)
    kept = read_rows(context.root / "benchmarks" / "results" / "bench_score.jsonl")
    assert kept == [{"bench": "bench_score", "n": 0}, {"bench": "bench_score", "n": 1}]
    context.deadline = time.monotonic()
    assert "bench_score left out, no time" in steps.benchmarks(context).detail


def test_all_benchmarks_are_run():
    assert sorted(steps.BENCHES) == sorted(BENCHES)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
def test_planted_faults_compile(tmp_path):
    command = ["nvcc", "-arch=sm_80", "-ptx", "-o", str(tmp_path / "planted.ptx"), "benchmarks/planted.cu"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    assert (tmp_path / "planted.ptx").read_text().count(".entry") == len(gpu_check_sanitizer.PLANTED)
