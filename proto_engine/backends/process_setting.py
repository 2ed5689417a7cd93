"""A setting of the whole process that overlapping calls need: the first one in sets it, the last one out
takes it back."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Undo = list[Callable[[], object]]


class ProcessSetting:
    """Parameters: ``apply`` sets it; before each change it appends to its argument what takes that change back."""

    def __init__(self, apply: Callable[[Undo], object]) -> None:
        self._apply = apply
        self._start()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave_others)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._inside: set[object] = set()
        self._is_set = False
        self._undo: Undo = []

    def _leave_others(self) -> None:
        """A forked child has none of the threads that are in, and would wait for them to leave."""
        undo = self._undo
        self._start()
        for action in reversed(undo):
            action()

    @contextmanager
    def held(self) -> Iterator[None]:
        """The setting holds inside; calls may overlap in several Python threads. Where one is interrupted nothing stays
        once the exception is gone."""
        ticket = object()
        try:
            with self._lock:
                self._inside.add(ticket)
                if not self._is_set:  # the one who came first may have been interrupted
                    self._apply(self._undo)
                    self._is_set = True
            yield
        finally:
            try:
                self._leave(ticket)
            except BaseException:  # Ctrl-C comes where a function is entered, too
                self._leave(ticket)
                raise

    def _leave(self, ticket: object) -> None:
        """May be cut off anywhere and done again."""
        with self._lock:
            self._inside.discard(ticket)
            if not self._inside:
                self._is_set = False
                for action in reversed(self._undo):
                    action()
                self._undo.clear()
