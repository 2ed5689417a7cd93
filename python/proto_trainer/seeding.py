"""Where every random number of a run comes from.

A run has one seed. Each consumer (label noise, weights, the order of epoch 7, the class pools of epoch 7)
draws from a stream of its own, named by a path. So adding a consumer does not shift the others, two methods
with the same seed see the same noise and the same batches, and what happens in epoch 7 does not depend on
how often the run was interrupted before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator

import torch


def derive_seed(seed: int, *path: str | int) -> int:
    """A 32-bit seed for the stream `path` of the run seed.

    Parameters
    ----------
    seed : int
        The seed of the run.
    *path : str or int
        The name of the stream, for example ``"order", epoch``.

    Returns
    -------
    int
        In ``[0, 2**32)``; the same on every machine and Python version.
    """
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@contextlib.contextmanager
def deterministic(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch and forbid operations whose result depends on scheduling; undo both on exit.

    Parameters
    ----------
    seed : int
        Seeds torch's generators (CPU and, if used, the CUDA device).
    device : torch.device
        The one device that the enclosed code computes on.
    """
    on_cuda = device.type == "cuda"
    if on_cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts; needed for equal bits
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    was_warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    was_benchmark = torch.backends.cudnn.benchmark
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        try:
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.benchmark = False
            torch.manual_seed(seed)
            yield
        finally:
            torch.use_deterministic_algorithms(was_deterministic, warn_only=was_warn_only)
            torch.backends.cudnn.benchmark = was_benchmark


@contextlib.contextmanager
def temporary_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators (CPU and, if used, the CUDA device) and bring their states back on exit."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
