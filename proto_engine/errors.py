"""Exceptions of the engine."""


class BackendUnavailable(RuntimeError):
    """A backend was asked for by name and cannot run here; the message says why."""
