"""Standard output and error of a command: of any encoding, left by their reader, or not there at all."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


def prepare_streams() -> None:
    """Let text that a stream's encoding cannot express become '?' there: names of classes come from files."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a stream put in place by a caller may have none
        if reconfigure is not None and stream.errors in ("strict", "surrogateescape"):
            reconfigure(errors="replace")


@contextmanager
def terminated_in_order() -> Iterator[None]:
    """SIGTERM, which schedulers send, ends the process like an error, so that no temporary file stays behind."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not ours:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, _: Any) -> None:
    sys.exit(128 + number)


@contextmanager
def notes_shown(wanted: bool) -> Iterator[None]:
    """What the package logs as a note goes to stderr inside, where there is one."""
    if not wanted or sys.stderr is None:
        yield
        return
    logger = logging.getLogger("proto_engine")
    handler, level, propagate = logging.StreamHandler(sys.stderr), logger.level, logger.propagate
    handler.setFormatter(logging.Formatter("proto-engine: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # or the caller's handlers would say it again
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def say(text: str) -> None:
    """One line on stderr; nothing where there is none or nobody reads it."""
    if sys.stderr is None:  # print() would take stdout instead
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        abandon(sys.stderr)


def abandon(stream: Any) -> None:
    """Let what waits in a stream go nowhere, so that the process can end without an error about it."""
    with suppress(OSError, ValueError, AttributeError):  # not every stream has a file below it
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
