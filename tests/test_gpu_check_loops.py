"""Tile loops that hang or are wrong by themselves: `make gpu-check` finds them first, and never starts them again."""

from __future__ import annotations

import sys

import pytest
from fake_gpu import FakeRunner
from fake_gpu import context as context

import gpu_check_tests  # isort: skip  from the folder that benchmark_house adds
import verified  # isort: skip
from gpu_check_context import FAILED, LOOPS, PASSED, Outcome, dead_loops  # isort: skip
from gpu_check_sanitizer import sanitizer  # isort: skip
from gpu_check_steps import benchmarks, record  # isort: skip
from rows import append_rows  # isort: skip

NATIVE = ["cuda/simt", "cuda/mma", "cuda/wgmma", "cuda/wgmma-cluster", "cuda/score-cluster"]
HANGS = {"-k 'wgmma and": (None, "....")}
WITHOUT = "PROTO_ENGINE_WITHOUT_LOOPS"


def started(context) -> str:
    return "\n".join(map(str, context.runner.commands))


def went_on_without(context, **answers):
    """The step `loops` with these answers, and a runner that has seen nothing yet."""
    context.runner = FakeRunner(**answers)
    context.before["loops"] = gpu_check_tests.loops(context)
    context.runner = FakeRunner()
    return context.before["loops"]


def test_every_native_loop_has_a_minute_by_itself(context):
    outcome = gpu_check_tests.loops(context)
    assert (outcome.outcome, outcome.detail) == (PASSED, ", ".join(NATIVE))
    assert outcome.loops == NATIVE and context.runner.limits == [60] * len(NATIVE)
    words = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "-x", "-k"]
    selectors = ("simt", "mma and not wgmma", "wgmma and not cluster", "cluster and wgmma", "cluster and not wgmma")
    assert [list(command.words) for command in context.runner.commands] == [
        [*words, f"{selector} and not cupy", "tests/test_cuda_tile_loops.py"] for selector in selectors
    ]
    context.gpu = verified.Gpu("another", "8.0", "")
    assert gpu_check_tests.loops(context).loops == ["cuda/simt", "cuda/mma"]
    context.gpu = verified.Gpu("old", "7.0", "")
    assert gpu_check_tests.loops(context) == Outcome(FAILED, "none can run on this GPU", loops=[])


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ((None, "...."), "ran into its limit"),
        ((1, "FAILED a test\n1 failed, 3 passed in 1s"), "1 failed, 3 passed in 1s"),
        ((-6, ""), "status -6"),
        ((0, "60 skipped in 1s"), "60 skipped in 1s"),
        ((5, "60 deselected in 1s"), "60 deselected in 1s"),
    ],
)
def test_a_loop_comes_through_if_a_test_passed_and_none_failed(context, end, why):
    context.runner = FakeRunner(**{"-k 'mma and": end})
    outcome = gpu_check_tests.loops(context)
    assert (outcome.outcome, outcome.detail) == (FAILED, f"left out from here on: cuda/mma ({why})")
    assert outcome.loops == [loop for loop in NATIVE if loop != "cuda/mma"]


def test_loops_of_cupy_live_and_die_with_those_of_the_same_sources(context, monkeypatch):
    assert dead_loops(context) == []
    context.before["loops"] = Outcome(FAILED, "no time was left")
    assert dead_loops(context) == []  # nothing is known
    context.before["loops"] = Outcome(FAILED, "", loops=["cuda/simt", "cuda/wgmma"])
    assert dead_loops(context) == ["cuda/mma", "cuda/wgmma-cluster", "cuda/score-cluster", "cupy/mma"]
    monkeypatch.setattr("gpu_check_context.importlib.util.find_spec", lambda name: None)
    context.gpu = verified.Gpu("another", "8.0", "")
    assert dead_loops(context) == ["cuda/mma"]


def test_where_all_is_well_nothing_is_left_out(context):
    went_on_without(context)
    for step in (gpu_check_tests.tests, sanitizer):
        outcome = step(context)
        assert (outcome.outcome, outcome.loops) == (PASSED, list(LOOPS)) and "left out" not in outcome.detail
    benchmarks(context)
    assert WITHOUT not in started(context)


def test_a_loop_that_hangs_has_no_lane_and_no_other_command_starts_it(context):
    assert went_on_without(context, **HANGS).outcome == FAILED
    outcome = gpu_check_tests.tests(context)
    assert outcome.outcome == FAILED
    assert outcome.detail == f"{12 * len(context.runner.commands)} passed; left out: cuda/wgmma"
    assert outcome.loops == [loop for loop in LOOPS if loop != "cuda/wgmma"]
    assert len(context.runner.commands) == len(gpu_check_tests.lanes(context.root)) - 1
    assert "'wgmma and not cluster" not in started(context)
    assert {command.environment[WITHOUT] for command in context.runner.commands} == {"wgmma"}
    context.runner = FakeRunner(**{"-k 'simt and not cupy'": (1, "1 failed in 1s")})
    told = gpu_check_tests.tests(context).detail
    assert told.endswith("passed; left out: cuda/wgmma; failed: cuda/simt (1 failed in 1s)")


def test_a_loop_that_hangs_is_not_examined(context):
    went_on_without(context, **HANGS)
    outcome = sanitizer(context)
    assert (outcome.outcome, outcome.detail) == (FAILED, "left out: cuda/wgmma; 24 runs, all clean")
    assert outcome.loops == [loop for loop in LOOPS if loop != "cuda/wgmma"]
    assert not any(str(command).endswith("cuda wgmma") for command in context.runner.commands)
    assert "small_launches.py cuda wgmma-cluster" in started(context)


def test_a_loop_that_hangs_is_not_timed(context):
    went_on_without(context, **{"-k 'mma and": (None, ""), **HANGS})

    def run(command, limit):
        context.runner.commands.append(command)
        append_rows(context.out / "results.jsonl", [{"bench": "any"}])
        return FakeRunner().run(command, limit)

    context.runner.run = run
    outcome = benchmarks(context)
    assert outcome.outcome == FAILED
    assert outcome.detail.startswith("left out: cuda/mma, cuda/wgmma, cupy/mma; bench_engine 1 rows")
    assert {command.environment[WITHOUT] for command in context.runner.commands} == {"mma,wgmma"}


def test_the_loops_that_came_through_everything_are_recorded_all_the_same(context):
    went_on_without(context, **{"-k 'simt and": (None, "")})
    for name, step in (("tests", gpu_check_tests.tests), ("sanitizer", sanitizer)):
        context.before[name] = step(context)
    context.before["planted"] = Outcome(PASSED, "")
    outcome = record(context)
    assert (outcome.outcome, outcome.loops) == (PASSED, [*NATIVE[1:], "cupy/mma"])


def test_a_loop_that_hangs_later_is_not_recorded_either(context):
    for name, step in (("tests", gpu_check_tests.tests), ("sanitizer", sanitizer)):
        context.before[name] = step(context)
    context.before["planted"] = Outcome(PASSED, "")
    context.before["loops"] = Outcome(FAILED, "", loops=["cuda/simt"])
    assert record(context).loops == ["cuda/simt", "cupy/simt"]


def test_where_no_loop_came_through_the_rest_is_still_tested(context):
    went_on_without(context, pytest=(None, ""))
    outcome = gpu_check_tests.tests(context)
    assert (outcome.outcome, outcome.loops) == (FAILED, []) and outcome.detail.startswith("36 passed; left out: cuda")
    assert sanitizer(context).loops == []
