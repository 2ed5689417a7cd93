"""The folder that a run writes to: it can be written, no other run writes there, and what checkpoint is in it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from .checkpoint import Checkpoint, load_checkpoint
from .errors import ConfigError

try:
    import fcntl
except ImportError:  # not on Windows, which goes without the lock
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_LOCK = "lock"
_written_to: set[tuple[int, Path]] = set()  # by which process: the system's lock does not keep out its own threads


@contextlib.contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Keep other runs from training into `out` until the block ends, however this process ends.

    The system drops such a lock with the process that took it, by ``kill -9`` too, and child processes (those that
    load images) have no part in it. The file itself stays: removing it would let two others lock two files.

    Parameters
    ----------
    out : Path
        Made if it does not exist.

    Raises
    ------
    ConfigError
        Another run trains into `out`, in this process or in another.
    OSError
        `out` cannot be written.
    """
    checkpoints = out / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    refused = ConfigError(f"out: another run is writing to {out}; give another folder, or wait until it has ended")
    place = os.getpid(), out.resolve()
    if place in _written_to:  # before the file is opened again: closing it would take away the first run's lock
        raise refused
    _written_to.add(place)
    try:
        with open(checkpoints / _LOCK, "ab") as file:  # an OSError now, not after the first epoch
            if fcntl is not None:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno in (errno.EACCES, errno.EAGAIN):
                        raise refused from None
                    logger.warning("%s cannot be locked (%s): do not start a second run there", out, error.strerror)
            yield
    finally:
        _written_to.discard(place)


def open_folder(out: Path, resume: bool) -> Checkpoint | None:
    """The checkpoint in `out` to go on from, if any; half-written files of a killed run are removed.

    Raises
    ------
    ConfigError
        `out` holds a run and `resume` is false.
    CheckpointError
        From `load_checkpoint`.
    """
    checkpoints = out / "checkpoints"
    if not resume and ((checkpoints / "last.json").exists() or (out / "epochs.csv").exists()):
        raise ConfigError(f"out: {out} already holds a run; give --resume to go on, or another folder")
    for unfinished in (*out.glob(".*.tmp"), *checkpoints.glob(".*.tmp")):
        unfinished.unlink()
    checkpoint = load_checkpoint(checkpoints) if resume else None
    if resume and checkpoint is None:
        logger.info("no checkpoint in %s yet, starting with epoch 0", checkpoints)
    return checkpoint
