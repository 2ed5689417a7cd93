"""`make gpu-check` without a GPU: its commands are answered by a stand-in, all else is the real thing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmark_house import BENCHES, ROOT

from proto_engine.backends.cuda import loops_of

import gpu_check  # isort: skip  from the folder that benchmark_house adds
import gpu_check_steps as steps  # isort: skip
import take_results  # isort: skip
import verified  # isort: skip
from processes import Command, Done, Runner  # isort: skip
from rows import append_rows, read_rows  # isort: skip

H100 = verified.Gpu("NVIDIA H100 80GB HBM3", "9.0", "580.159.04")
CLEAN = "========= ERROR SUMMARY: 0 errors"
NO_HAZARD = "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"


class FakeRunner:
    """Answers commands instead of running them: the first answer whose key is a part of the command."""

    def __init__(self, **answers: str | tuple[int | None, str]) -> None:
        self.commands: list[Command] = []
        self.limits: list[float] = []
        self._answers = {key.replace("_", " "): answer for key, answer in answers.items()}

    def run(self, command: Command, limit: float) -> Done:
        self.commands.append(command)
        self.limits.append(limit)
        for key, answer in self._answers.items():
            if key in str(command):
                status, output = answer if isinstance(answer, tuple) else (0, answer)
                return Done(status, output, 1.0)
        return Done(0, default_output(str(command)), 1.0)

    def run_together(self, commands, limit):
        return {name: self.run(command, limit) for name, command in commands.items()}


def default_output(command: str) -> str:
    """What a GPU on which all is well answers."""
    if "/planted" in command and "--tool" in command:
        if "racecheck" in command:
            return "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)"
        return "========= ERROR SUMMARY: 128 errors"
    if "--tool" in command:
        return NO_HAZARD if "racecheck" in command else CLEAN
    return "12 passed, 3 skipped, 500 deselected in 5.00s" if "pytest" in command else "fine"


@pytest.fixture
def context(tmp_path, monkeypatch):
    """A GPU, a tree of sources, an empty folder, ten minutes, a sanitizer, and CuPy."""
    monkeypatch.setattr(steps, "sanitizer_program", lambda: "/opt/compute-sanitizer")
    monkeypatch.setattr(steps.importlib.util, "find_spec", lambda name: object())
    root = tmp_path / "root"
    for name in ("csrc/cuda/rows.cu", "proto_engine/ops.py", "tests/test_cuda.py", "tests/test_cuda_graph.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name}\n")
    (tmp_path / "out").mkdir()
    return steps.Context(FakeRunner(), H100, tmp_path / "out", time.monotonic() + 600, root=root)  # type: ignore[arg-type]


# ---- the whole ---------------------------------------------------------------------------------------------------


@pytest.fixture
def dry(tmp_path, monkeypatch):
    """`main` with steps that only say that they ran."""
    ran: list[str] = []

    def pretend(name, outcome=steps.PASSED):
        def step(context):
            ran.append(name)
            if outcome == "error":
                raise ValueError("a step broke")
            return steps.Outcome(outcome, f"{name} it was", loops=["cuda/simt"] if name == "tests" else None)

        return step

    monkeypatch.setattr(gpu_check, "present_gpu", lambda: H100)
    for name in steps.STEPS:
        monkeypatch.setitem(steps.STEPS, name, pretend(name))

    def call(*arguments, **outcomes):
        ran.clear()
        for name, outcome in outcomes.items():
            monkeypatch.setitem(steps.STEPS, name, pretend(name, outcome))
        return gpu_check.main(["--out", str(tmp_path / "out"), *arguments]), list(ran)

    return call


def test_steps_run_in_order_and_end_with_a_table(dry, capsys):
    assert dry() == (0, ["build", "planted", "tests", "sanitizer", "record", "benchmarks"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("gpu-check on NVIDIA H100 80GB HBM3 (compute capability 9.0, driver 580.159.04)")
    assert lines[-8].split() == ["step", "outcome", "seconds", "detail"]
    assert [line.split()[:2] for line in lines[-7:-1]] == [[name, "passed"] for name in steps.STEPS]
    assert lines[-1].startswith("gpu-check: passed (")


def test_a_step_that_fails_or_breaks_does_not_keep_the_next_from_running(dry, capsys):
    status, ran = dry(tests="failed", sanitizer="error")
    assert status == 1 and ran == list(steps.STEPS)
    out = capsys.readouterr().out
    assert "sanitizer   failed      0.0  ValueError: a step broke" in out
    assert out.splitlines()[-1].startswith("gpu-check: failed: tests, sanitizer (")


def test_every_step_is_on_disk_as_soon_as_it_has_ended(dry, tmp_path, monkeypatch):
    def killed(context):
        raise KeyboardInterrupt

    monkeypatch.setitem(steps.STEPS, "sanitizer", killed)
    with pytest.raises(KeyboardInterrupt):
        dry()
    found = json.loads((tmp_path / "out" / "steps.json").read_text())["steps"]
    assert list(found) == ["build", "planted", "tests"]
    assert found["tests"]["loops"] == ["cuda/simt"]


def test_a_later_call_goes_on_from_there(dry, tmp_path, monkeypatch):
    seen: list[list[str]] = []

    def record(context):
        seen.append(sorted(context.before))
        return steps.Outcome(steps.PASSED, "")

    dry("--steps", "build,tests,planted")
    monkeypatch.setitem(steps.STEPS, "record", record)
    assert dry("--steps", "record,sanitizer")[1] == ["sanitizer"]
    monkeypatch.setattr(gpu_check, "sources_hash", lambda: "of other sources")
    dry("--steps", "record")
    (tmp_path / "out" / "steps.json").write_text("{")
    dry("--steps", "record")
    assert seen == [["build", "planted", "sanitizer", "tests"], [], []]


def test_no_step_begins_without_time(dry, capsys):
    status, ran = dry("--minutes", "1e-9")
    assert status == 1 and ran == []
    assert capsys.readouterr().out.count("no time was left") == 2 * len(steps.STEPS)


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


# ---- commands ----------------------------------------------------------------------------------------------------


def python(code: str) -> Command:
    return Command([sys.executable, "-c", code], {"WORD": "a b"})


def test_commands_are_logged_with_their_end(tmp_path):
    runner = Runner(tmp_path, tmp_path / "log.txt")
    assert runner.run(python("import os; print(os.environ['WORD'], os.getcwd())"), 60).output == f"a b {tmp_path}\n"
    done = runner.run_together({"one": python("exit(3)"), "two": python("print('fine')")}, 60)
    assert (done["one"].status, done["two"].status, done["two"].output) == (3, 0, "fine\n")
    assert runner.run(Command(["no-such-program"]), 60).why == "could not be started"
    log = (tmp_path / "log.txt").read_text()
    assert f"$ WORD='a b' {sys.executable} -c 'exit(3)'\n[status 3, " in log
    assert "$ no-such-program\n" in log and "[could not be started, 0.0 s]" in log


def is_running(number: int) -> bool:
    """Whether a process is there and has not ended; it may wait for somebody to take note of its end."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_command_at_its_limit_is_ended_with_all_that_it_started(tmp_path):
    began = time.monotonic()
    command = Command(["sh", "-c", "sleep 100 & echo $!; wait"])
    done = Runner(tmp_path, tmp_path / "log.txt").run(command, 1)
    assert done.status is None and done.why == "ran into its limit"
    assert time.monotonic() - began < 30
    while is_running(int(done.output)):
        assert time.monotonic() - began < 30
        time.sleep(0.05)


def test_ending_the_program_ends_its_commands(tmp_path):
    """Side by side, as tests are run."""
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n"
        "from pathlib import Path\n"
        "import gpu_check\n"
        "from gpu_check_steps import STEPS\n"
        "from processes import Command\n"
        "from verified import Gpu\n"
        "def tests(context):\n"
        "    commands = {str(n): Command(['sh', '-c', 'echo $$ >> pids; sleep 100']) for n in range(2)}\n"
        "    context.runner._folder = context.out\n"
        "    context.runner.run_together(commands, 100)\n"
        "STEPS['tests'] = tests\n"
        "gpu_check.present_gpu = lambda: Gpu('', '9.0', '')\n"
        "gpu_check.main(['--out', sys.argv[1], '--steps', 'tests'])\n"
    )
    began = time.monotonic()
    program = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.DEVNULL)
    pids = tmp_path / "pids"
    while not pids.exists() or len(pids.read_text().split()) < 2:
        assert time.monotonic() - began < 30 and program.poll() is None
        time.sleep(0.05)
    program.terminate()
    assert program.wait(30) == 128 + 15
    assert not any(is_running(int(pid)) for pid in pids.read_text().split())


# ---- steps -------------------------------------------------------------------------------------------------------


def test_build_is_for_this_gpu_alone_and_into_this_python(context):
    assert steps.build(context).outcome == steps.PASSED
    command = context.runner.commands[0]
    assert list(command.words[:4]) == [sys.executable, "-m", "pip", "install"]
    assert {"--no-build-isolation", "--no-deps"} <= set(command.words)
    assert command.environment == {"PROTO_ENGINE_CUDA": "1", "PROTO_ENGINE_CUDA_ARCHS": "90a-real"}
    assert verified.Gpu("", "8.6", "").architectures == "86-real"
    context.runner = FakeRunner(pip=(1, "nvcc fatal"))
    assert steps.build(context).detail == "pip install: status 1"


def test_tests_of_a_loop_decide_about_that_loop(context):
    assert steps.tests(context).loops == list(steps.LOOPS)
    context.runner = FakeRunner(
        **{"-k 'wgmma and": (1, "1 failed, 3 passed in 1s"), "-k 'simt and cupy'": (5, "500 deselected in 1s")}
    )
    outcome = steps.tests(context)
    assert outcome.outcome == steps.FAILED
    assert outcome.loops == ["cuda/simt", "cuda/mma", "cuda/wgmma-cluster", "cupy/mma"]  # no test of cupy/simt ran
    assert "failed: cuda/wgmma (1 failed, 3 passed in 1s)" in outcome.detail


def test_tests_of_a_backend_decide_about_all_of_its_loops(context):
    for end in ((1, "1 failed in 1s"), (None, "")):
        lane = steps.lanes(context.root)["cupy"]
        context.runner = FakeRunner()
        context.runner._answers = {" ".join(Command(lane)._quoted): end}
        outcome = steps.tests(context)
        assert outcome.outcome == steps.FAILED
        assert outcome.loops == ["cuda/simt", "cuda/mma", "cuda/wgmma", "cuda/wgmma-cluster"]


def test_tests_that_all_skip_verify_nothing(context):
    context.runner = FakeRunner(pytest="40 skipped, 500 deselected in 1s")
    outcome = steps.tests(context)
    assert (outcome.outcome, outcome.loops) == (steps.FAILED, [])


def test_every_test_for_a_gpu_is_in_a_lane():
    """The lanes for loops and backends take whole files, the last lane all other files."""
    lanes = steps.lanes()
    taken = {path for name in ("cuda", "cupy") for path in lanes[name] if path.endswith(".py")}
    assert taken == {option.removeprefix("--ignore=") for option in lanes["others"] if option.startswith("--ignore=")}
    assert "tests/test_cuda.py" in taken
    for options in lanes.values():
        assert all((ROOT / path.removeprefix("--ignore=")).exists() for path in options if "test" in path)


def test_planted_faults_must_all_be_found(context):
    outcome = steps.planted(context)
    assert (outcome.outcome, outcome.detail) == (steps.PASSED, "found: bounds, race, uninitialized")
    assert "-arch=sm_90" in str(context.runner.commands[0])
    context.runner = FakeRunner(planted_race=NO_HAZARD)
    assert steps.planted(context).detail == "not found: race (status 0)"
    context.runner = FakeRunner(memcheck=(255, "========= Error: Device not supported"))
    assert steps.planted(context).outcome == steps.FAILED
    context.runner = FakeRunner(nvcc=(1, "fatal"))
    assert steps.planted(context).detail == "nvcc: status 1"


def test_sanitizer_runs_every_tool_on_every_loop(context):
    outcome = steps.sanitizer(context)
    assert outcome.outcome == steps.PASSED and outcome.loops == list(steps.LOOPS)
    assert len(context.runner.commands) == 4 * 6
    answers = {"racecheck --error-exitcode 7": (7, "========= RACECHECK SUMMARY: 2 hazards displayed (2 errors)")}
    context.runner = FakeRunner()
    context.runner._answers = {"small_launches.py cuda mma": (1, CLEAN), **answers}
    outcome = steps.sanitizer(context)
    assert outcome.outcome == steps.FAILED and outcome.loops == []
    assert "cuda/mma memcheck: ERROR SUMMARY: 0 errors, status 1" in outcome.detail
    assert "cuda/simt racecheck: RACECHECK SUMMARY: 2 hazards displayed (2 errors), status 7" in outcome.detail
    context.runner = FakeRunner()
    context.runner._answers = {"small_launches.py cuda wgmma": (0, "no summary")}
    assert steps.sanitizer(context).loops == ["cuda/simt", "cuda/mma", "cupy/simt", "cupy/mma"]


def test_without_a_sanitizer_nothing_counts_as_clean(context, monkeypatch):
    monkeypatch.setattr(steps, "sanitizer_program", lambda: None)
    assert steps.sanitizer(context).loops == []
    assert steps.planted(context).detail == "compute-sanitizer is not installed"


def test_loops_are_those_that_this_gpu_runs(context, monkeypatch):
    for capability in ("8.0", "8.9", "10.0"):
        context.gpu = verified.Gpu("another", capability, "")
        assert steps.loops_here(context) == ["cuda/simt", "cuda/mma", "cupy/simt", "cupy/mma"]
        native = loops_of(tuple(map(int, capability.split("."))))
        assert native == ["simt", "mma"]
    monkeypatch.setattr(steps.importlib.util, "find_spec", lambda name: None)
    assert steps.loops_here(context) == ["cuda/simt", "cuda/mma"]


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
    assert outcome.outcome == steps.FAILED and "bench_eta 0 rows" in outcome.detail
    assert len(read_rows(context.out / "results.jsonl")) == 1 + 2 * (len(steps.BENCHES) - 1)
    kept = read_rows(context.root / "benchmarks" / "results" / "bench_score.jsonl")
    assert kept == [{"bench": "bench_score", "n": 0}, {"bench": "bench_score", "n": 1}]
    context.deadline = time.monotonic()
    assert "bench_score left out, no time" in steps.benchmarks(context).detail


def test_all_benchmarks_are_run():
    assert sorted(steps.BENCHES) == sorted(BENCHES)


# ---- the record --------------------------------------------------------------------------------------------------


def ended(loops_tested, loops_clean, planted=steps.PASSED):
    return {
        "planted": steps.Outcome(planted, ""),
        "tests": steps.Outcome(steps.PASSED, "", loops=loops_tested),
        "sanitizer": steps.Outcome(steps.PASSED, "", loops=loops_clean),
    }


def test_record_lists_loops_that_came_through_everything(context):
    context.before = ended(["cuda/simt", "cuda/mma"], ["cuda/mma", "cuda/wgmma"])
    outcome = steps.record(context)
    assert (outcome.outcome, outcome.loops) == (steps.PASSED, ["cuda/mma"])
    texts = [(context.root / place).read_text() for place in verified.PLACES]
    assert texts[0] == texts[1] == (context.out / "gpu_verified.json").read_text()
    (run,) = json.loads(texts[0])["runs"]
    assert run["verified"] == ["cuda/mma"] and run["compute_capability"] == "9.0" and run["driver"] == "580.159.04"
    assert run["sources"] == verified.sources_hash(context.root) and len(run["sources"]) == 64
    assert read_rows(context.out / "results.jsonl")[0]["bench"] == "gpu_check"


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ({}, "not run: tests, planted, sanitizer"),
        (ended(["cuda/simt"], ["cuda/simt"], planted=steps.FAILED), "did not find what was planted"),
        (ended(["cuda/simt"], []), "no tile loop came through"),
        (ended(["cuda/simt"], ["cuda/mma"]), "no tile loop came through"),
    ],
)
def test_nothing_is_recorded_of_a_run_that_falls_short(context, before, why):
    context.before = before
    outcome = steps.record(context)
    assert outcome.outcome == steps.FAILED and why in outcome.detail
    assert not any((context.root / place).exists() for place in verified.PLACES)


def test_record_keeps_one_run_for_each_compute_capability(tmp_path):
    from proto_engine.backends import gpu_record

    for gpu, loops in ((H100, ["cuda/simt"]), (verified.Gpu("A100", "8.0", "1"), ["cuda/mma"]), (H100, ["cuda/wgmma"])):
        verified.write_record(gpu, loops, tmp_path)
    runs = gpu_record.recorded_runs.__wrapped__(tmp_path / verified.PLACES[1])
    assert [(run["compute_capability"], set(run["verified"])) for run in runs] == [
        ("8.0", {"cuda/mma"}),
        ("9.0", {"cuda/wgmma"}),
    ]
    assert (ROOT / verified.PLACES[1]).resolve() == gpu_record.RECORD.resolve()


def test_hash_of_the_sources_changes_with_them_alone(context):
    root = context.root
    before = verified.sources_hash(root)
    (root / "proto_engine" / "_core.so").write_bytes(b"built")
    (root / "proto_engine" / "gpu_verified.json").write_text("{}")
    (root / "tests" / "test_cuda.py").write_text("other tests")
    assert verified.sources_hash(root) == before
    changes = {
        "content": lambda: (root / "csrc/cuda/rows.cu").write_text("int x;\n"),
        "name": lambda: (root / "csrc/cuda/rows.cu").rename(root / "csrc/cuda/row.cu"),
        "more": lambda: (root / "proto_engine/more.py").write_text(""),
    }
    seen = {before}
    for change in changes.values():
        change()
        seen.add(verified.sources_hash(root))
    assert len(seen) == 1 + len(changes)


def test_gpu_is_what_nvidia_smi_tells(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for told, wanted in (
        ("NVIDIA H100 80GB HBM3, 9.0, 580.159.04", H100),
        ("NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver", None),
        ("", None),
    ):
        program.write_text(f"#!/bin/sh\necho '{told}'\n")
        program.chmod(0o755)
        assert verified.present_gpu() == wanted
    program.write_text("#!/bin/sh\nexit 9\n")
    assert verified.present_gpu() is None


def test_results_of_another_machine_are_taken_over_once(context, capsys):
    away = context.out
    rows = [{"bench": "bench_eta", "n": n} for n in range(3)]
    append_rows(away / "results.jsonl", [{"bench": "gpu_check"}, *rows])
    assert take_results.main([str(away)], context.root) == 1  # no record
    verified.write_record(H100, ["cuda/simt"], context.root)
    text = (context.root / verified.PLACES[1]).read_text()
    for place in verified.PLACES:
        (context.root / place).unlink()
    (away / "gpu_verified.json").write_text(text)
    assert take_results.main([str(away)], context.root) == 0
    assert read_rows(context.root / "benchmarks" / "results" / "bench_eta.jsonl") == rows
    assert all((context.root / place).read_text() == text for place in verified.PLACES)
    (context.root / "csrc/cuda/rows.cu").write_text("changed since\n")
    assert take_results.main([str(away)], context.root) == 1
    assert "other sources" in capsys.readouterr().err
    assert take_results.main([str(away / "nowhere")], context.root) == 2


def test_commit_outside_a_repository_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("PROTO_ENGINE_COMMIT", raising=False)
    assert verified.commit(tmp_path) == "unknown"
    monkeypatch.setenv("PROTO_ENGINE_COMMIT", "0123abc")
    assert verified.commit(tmp_path) == "0123abc"


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
def test_planted_faults_compile(tmp_path):
    command = ["nvcc", "-arch=sm_80", "-ptx", "-o", str(tmp_path / "planted.ptx"), "benchmarks/planted.cu"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    assert (tmp_path / "planted.ptx").read_text().count(".entry") == len(steps.PLANTED)
