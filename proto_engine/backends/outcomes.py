"""What the self-checks of this process have found, and which part a thread is checking.

A part such as "cuda/mma" is checked once on a device, by the first thread that asks; the others wait for it. One that
differs from the reference in a bit, or stops with an error, is unavailable from then on, and a warning says so once.
Want of memory is no verdict: the next call tries again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HOST = -1  # in the place of a device
_Check = Callable[[], str | None]

_log = logging.getLogger("proto_engine")
_outcomes: dict[tuple[str, int], str | None] = {}
_lock = threading.RLock()
_here = threading.local()  # .part: what this thread is checking right now


def outcome(part: str, device: int, check: _Check) -> str | None:
    """None where a part passes its check on a device, else what was wrong; the first call runs the check."""
    if being_checked() is not None:
        return None  # the check itself computes
    with _lock:
        if (part, device) in _outcomes:
            return _outcomes[part, device]
        try:
            with trusting(part):
                found = check()
        except MemoryError as error:  # of others, perhaps: the next call tries again
            return f"there was no memory for its self-check ({error})"
        except Exception as error:
            found = f"{type(error).__name__}: {' '.join(str(error).split())}"
        _outcomes[part, device] = found
        if found is not None:
            where = "the host" if device == HOST else f"device {device}"
            _log.warning("%s failed its self-check on %s and is not used: %s", part, where, found)
        return found


@contextmanager
def trusting(part: str) -> Iterator[None]:
    """Inside, this thread computes with a part such as "cuda/mma" without a check: it is being checked."""
    before = being_checked()
    _here.part = part
    try:
        yield
    finally:
        _here.part = before


def being_checked() -> str | None:
    """The part that this thread is checking right now; None where it checks none."""
    return getattr(_here, "part", None)
