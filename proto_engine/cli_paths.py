"""The outputs of a command, looked at before the work: they can be written, and no input would be lost."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from .files import check_ending, check_writable


def check_output(path: str, endings: Sequence[str], option: str, *inputs: str | None) -> str:
    """Look at an output path before hours of work; returns its ending."""
    ending = check_ending(path, endings, option)
    check_writable(path, option)
    refuse_loss(path, option, inputs)
    return ending


def refuse_loss(path: str, option: str, inputs: Iterable[str | None]) -> None:
    """Raise ValueError if writing ``path`` would replace one of ``inputs``, by whatever name or link."""
    old = _found(path)
    if old is None:
        return
    for other in inputs:
        found = None if other is None else _found(other)
        if found is not None and os.path.samestat(old, found):
            raise ValueError(f"{option}: {path!r} is an input too and would be lost")


def refuse_same(path: str, option: str, other: str, other_option: str) -> None:
    """Raise ValueError if two outputs are one file: links are followed, and the later one would replace the first."""
    if os.path.realpath(path) == os.path.realpath(other):
        raise ValueError(f"{option}: wanted another file than that of {other_option}, got {path!r} and {other!r}")


def _found(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):  # not there, or no path at all: it cannot be lost
        return None
