"""A setting of the whole process that overlapping calls need: the first one in sets it, the last one out
takes it back."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class ProcessSetting:
    """Parameters: ``apply`` sets it and returns the function that restores what was there before."""

    def __init__(self, apply: Callable[[], Callable[[], object]]) -> None:
        self._apply = apply
        self._start()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave_others)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._restore: Callable[[], object] | None = None

    def _leave_others(self) -> None:
        """A forked child has none of the threads that are in, and would wait for them to leave."""
        restore = self._restore
        self._start()
        if restore is not None:
            restore()

    @contextmanager
    def held(self) -> Iterator[None]:
        """The setting holds inside; calls may overlap in several Python threads."""
        with self._lock:
            if self._depth == 0:
                self._restore = self._apply()
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0 and self._restore is not None:
                    self._restore()
                    self._restore = None
