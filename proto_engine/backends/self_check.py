"""Whether a backend can be trusted where it runs: a small case against the reference, once in a process."""

from __future__ import annotations

from typing import Any

from ..errors import BackendUnavailable


def choose_loop(backend: Any, device: int, wanted: str | None, available: list[str]) -> str:
    """The tile loop to use on a device."""
    if wanted is not None and wanted not in available:
        raise BackendUnavailable(
            f"loop: wanted one of {', '.join(map(repr, available))} on device {device}, got {wanted!r}"
        )
    return wanted or available[0]
