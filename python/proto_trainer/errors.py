"""The errors that a user can cause, as opposed to bugs.

``proto-train`` prints these as one line; everything else keeps its traceback.
"""

from __future__ import annotations


class ConfigError(ValueError):
    """An argument has a value that cannot work; the message names it, what was wanted and what was given."""


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to another run than the one that is to be resumed."""


class TrainingDiverged(RuntimeError):
    """The loss or a weight became NaN or infinite; the checkpoints of the finished epochs are untouched."""
