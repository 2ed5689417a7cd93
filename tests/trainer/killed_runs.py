"""Runs that end by SIGKILL at a chosen place, as a power failure would end them.

This file is a program: it imports the trainer once and then, for each request on its standard input, forks a process
that runs ``proto-train`` and kills itself. `KilledRuns` is the other end of the pipes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import IO

CLEANNET_STEPS = 20  # enough for equal bits; the tests set the same


class KilledRuns:
    """Starts the program; use it in a ``with`` statement.

    One thread, so that it computes the same bits as the tests do.
    """

    def __enter__(self) -> KilledRuns:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()  # it ends with its input
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def run(self, arguments: Sequence[str], place: str, count: int = 1) -> None:
        """Run ``proto-train`` until it comes to `place` for the `count`-th time, which must happen."""
        self._process.stdin.write(json.dumps([list(arguments), place, count]) + "\n")
        self._process.stdin.flush()
        status = json.loads(self._process.stdout.readline())
        assert status == -signal.SIGKILL, f"killed at {place} {count}: ended with status {status} instead"


def main() -> None:
    from proto_trainer import cli
    from proto_trainer.methods import cleannet_net

    for name in ("pandas", "pyarrow.parquet", "sklearn.cluster", "torch.utils.tensorboard"):
        importlib.import_module(name)  # once, not in every process
    cleannet_net._STEPS = CLEANNET_STEPS
    for line in sys.stdin:
        arguments, place, count = json.loads(line)
        child = os.fork()
        if child == 0:
            os.dup2(2, 1)  # what the run prints is no answer
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                _plant(place, _killer(count))
                os._exit(cli.main(arguments))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _killer(count: int) -> Callable[..., None]:
    calls = iter(range(1, count + 1))

    def come_by(*, last_words: Callable[[], None] | None = None) -> None:
        if next(calls) == count:
            if last_words is not None:
                last_words()
            os.kill(os.getpid(), signal.SIGKILL)

    return come_by


def _plant(place: str, come_by: Callable[..., None]) -> None:
    """Have `come_by` called in the middle of what `place` names: see the branches."""
    import torch

    import proto_engine as pe

    features = importlib.import_module("proto_trainer.features")
    if place == "extraction":  # with the first batch of features at hand
        batches = features.feature_batches

        def interrupted(*args: object) -> Iterator[object]:
            for batch in batches(*args):
                yield batch
                come_by()

        features.feature_batches = interrupted
    elif place == "selection":
        _before(pe, "select_prototypes", come_by)
    elif place == "scoring":
        _before(pe, "correct_labels", come_by)
    elif place == "batch":  # with gradients, before the step
        _before(torch.optim.SGD, "step", come_by)
    elif place == "log":  # epochs.csv has the row, the checkpoint has not
        _before(importlib.import_module("proto_trainer.train"), "save_checkpoint", come_by)
    else:  # half-way through a file
        ending = {"tensors": ".safetensors", "pointer": "last.json", "suggestions": ".parquet"}[place]
        write = pe.atomic_write

        @contextlib.contextmanager
        def half_written(path: object, mode: str = "wb") -> Iterator[object]:
            with write(path, mode) as file:
                yield file
                if str(path).endswith(ending):
                    come_by(last_words=partial(_halve, file))

        pe.atomic_write = half_written


def _halve(file: IO[bytes]) -> None:
    file.flush()
    os.ftruncate(file.fileno(), os.fstat(file.fileno()).st_size // 2)


def _before(owner: object, name: str, come_by: Callable[[], None]) -> None:
    real = getattr(owner, name)

    def wrapped(*args: object, **settings: object) -> object:
        come_by()
        return real(*args, **settings)

    setattr(owner, name, wrapped)


if __name__ == "__main__":
    main()
