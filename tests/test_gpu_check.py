"""`make gpu-check` as a whole, without a GPU: the order of its steps, what each leaves on disk, its end."""

from __future__ import annotations

import json

import pytest
from fake_gpu import H100

import gpu_check  # isort: skip  from the folder that benchmark_house adds
from gpu_check_context import PASSED, Outcome  # isort: skip
from gpu_check_steps import STEPS  # isort: skip


@pytest.fixture
def dry(tmp_path, monkeypatch):
    """`main` with steps that only say that they ran."""
    ran: list[str] = []

    def pretend(name, outcome=PASSED):
        def step(context):
            ran.append(name)
            if outcome == "error":
                raise ValueError("a step broke")
            return Outcome(outcome, f"{name} it was", loops=["cuda/simt"] if name == "tests" else None)

        return step

    monkeypatch.setattr(gpu_check, "present_gpu", lambda: H100)
    for name in STEPS:
        monkeypatch.setitem(STEPS, name, pretend(name))

    def call(*arguments, **outcomes):
        ran.clear()
        for name, outcome in outcomes.items():
            monkeypatch.setitem(STEPS, name, pretend(name, outcome))
        return gpu_check.main(["--out", str(tmp_path / "out"), *arguments]), list(ran)

    return call


def test_steps_run_in_order_and_end_with_a_table(dry, capsys):
    assert dry() == (0, ["build", "loops", "planted", "tests", "sanitizer", "record", "benchmarks"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("gpu-check on NVIDIA H100 80GB HBM3 (compute capability 9.0, driver 580.159.04)")
    assert lines[-9].split() == ["step", "outcome", "seconds", "detail"]
    assert [line.split()[:2] for line in lines[-8:-1]] == [[name, "passed"] for name in STEPS]
    assert lines[-1].startswith("gpu-check: passed (")


def test_a_step_that_fails_or_breaks_does_not_keep_the_next_from_running(dry, capsys):
    status, ran = dry(tests="failed", sanitizer="error")
    assert status == 1 and ran == list(STEPS)
    out = capsys.readouterr().out
    assert "sanitizer   failed      0.0  ValueError: a step broke" in out
    assert out.splitlines()[-1].startswith("gpu-check: failed: tests, sanitizer (")


def test_every_step_is_on_disk_as_soon_as_it_has_ended(dry, tmp_path, monkeypatch):
    def killed(context):
        raise KeyboardInterrupt

    monkeypatch.setitem(STEPS, "sanitizer", killed)
    with pytest.raises(KeyboardInterrupt):
        dry()
    found = json.loads((tmp_path / "out" / "steps.json").read_text())["steps"]
    assert list(found) == ["build", "loops", "planted", "tests"]
    assert found["tests"]["loops"] == ["cuda/simt"]


def test_a_later_call_goes_on_from_there(dry, tmp_path, monkeypatch):
    seen: list[list[str]] = []

    def record(context):
        seen.append(sorted(context.before))
        return Outcome(PASSED, "")

    dry("--steps", "build,tests,planted")
    monkeypatch.setitem(STEPS, "record", record)
    assert dry("--steps", "record,sanitizer")[1] == ["sanitizer"]
    monkeypatch.setattr(gpu_check, "sources_hash", lambda: "of other sources")
    dry("--steps", "record")
    (tmp_path / "out" / "steps.json").write_text("{")
    dry("--steps", "record")
    assert seen == [["build", "planted", "sanitizer", "tests"], [], []]


def test_no_step_begins_without_time(dry, capsys):
    status, ran = dry("--minutes", "1e-9")
    assert status == 1 and ran == []
    assert capsys.readouterr().out.count("no time was left") == 2 * len(STEPS)


def test_without_a_gpu_it_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_check.main(["--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "gpu-check: wanted an NVIDIA GPU, and nvidia-smi shows none\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [("--steps", "build,dance"), ("--minutes", "0")])
def test_bad_arguments_are_refused(dry, arguments):
    with pytest.raises(SystemExit) as error:
        dry(*arguments)
    assert error.value.code == 2
