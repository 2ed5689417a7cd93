"""Commands with a time limit, their output in one log."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Of the same session where Python can do that, so that whoever ends the session ends it too.
_OWN_GROUP: dict[str, Any] = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}
_GRACE = 5.0  # seconds between being asked to end and being ended


@dataclass(frozen=True)
class Command:
    """What to run: words, and variables on top of the environment."""

    words: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in self.environment.items()), *self._quoted])

    @property
    def _quoted(self) -> list[str]:
        return [shlex.quote(word) for word in self.words]


@dataclass(frozen=True)
class Done:
    """How a command ended; ``status`` is None where it ran into its limit or could not be started."""

    status: int | None
    output: str
    seconds: float

    @property
    def why(self) -> str:
        """Its end in a word or two."""
        if self.status is None:
            return "ran into its limit" if self.seconds > 0 else "could not be started"
        return f"status {self.status}"


class Runner:
    """Runs commands in a folder; each one's output goes to the log as soon as it has ended, whole."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._folder, self._log = folder, log
        self._lock = threading.Lock()
        self._running: set[Any] = set()

    def run(self, command: Command, limit: float) -> Done:
        """Run one command for at most ``limit`` seconds, then end it and everything that it started."""
        began = time.monotonic()
        try:
            process: Any = subprocess.Popen(
                list(command.words),
                cwd=self._folder,
                env={**os.environ, **command.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                **_OWN_GROUP,  # to be ended together with all that it starts
            )
        except OSError as error:
            return self._logged(command, Done(None, f"{error}\n", 0.0))
        self._running.add(process)
        try:
            output, _ = process.communicate(timeout=max(limit, 0.1))
            status = process.returncode
        except subprocess.TimeoutExpired:
            output, status = _end(process), None
        except BaseException:  # this program is being ended
            _end(process)
            raise
        finally:
            self._running.discard(process)
        return self._logged(command, Done(status, output, time.monotonic() - began))

    def run_together(self, commands: Mapping[str, Command], limit: float) -> dict[str, Done]:
        """Run commands side by side."""
        with ThreadPoolExecutor(max(1, len(commands))) as threads:
            return dict(zip(commands, threads.map(lambda c: self.run(c, limit), commands.values()), strict=True))

    def end_all(self) -> None:
        """End what is running, from a signal handler say; the calls that wait for it then return."""
        for process in list(self._running):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _logged(self, command: Command, done: Done) -> Done:
        with self._lock, self._log.open("a", encoding="utf-8") as log:
            log.write(f"$ {command}\n{done.output}[{done.why}, {done.seconds:.1f} s]\n\n")
        return done


def _end(process: Any) -> str:
    """End a process and all of its group; what it had put out, as far as that is to be had: a driver may keep a
    process whose kernel hangs from ending, and whoever left the group may keep its pipe open."""
    output = b""
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            return str(process.communicate(timeout=_GRACE)[0])
        except subprocess.TimeoutExpired as error:
            output = error.output or output
    text = output.decode(errors="replace") if isinstance(output, bytes) else output
    return f"{text}[{'did not end' if process.poll() is None else 'left its output open'}]\n"
