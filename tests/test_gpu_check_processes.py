"""Commands that `make gpu-check` runs: logged, and ended with all that they started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmark_house import ROOT

import processes  # isort: skip  from the folder that benchmark_house adds
from processes import Command, Runner  # isort: skip


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


def test_what_cannot_be_ended_is_not_waited_for(tmp_path, monkeypatch):
    """A child that left the group keeps the pipe open."""
    monkeypatch.setattr(processes, "_GRACE", 0.2)
    began = time.monotonic()
    code = (
        "import subprocess, time; child = subprocess.Popen(['sleep', '15'], start_new_session=True)\n"
        "print(child.pid, flush=True); time.sleep(15)"
    )
    done = Runner(tmp_path, tmp_path / "log.txt").run(python(code), 2)
    child, told = done.output.splitlines()
    os.kill(int(child), signal.SIGKILL)
    assert done.status is None and told == "[left its output open]"
    assert time.monotonic() - began < 14


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
