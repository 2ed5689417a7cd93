"""What recorded runs on GPUs have verified: ``gpu_verified.json`` beside the package's modules.

`make gpu-check` writes it: one run for each compute capability, the newest, with the tile loops whose tests passed
there and that compute-sanitizer found clean. Without such a run there is no file, and nothing is verified.
"""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parents[1] / "gpu_verified.json"

_log = logging.getLogger("proto_engine")


def capability_text(capability: tuple[int, int]) -> str:
    """A compute capability as the record has it, such as "9.0"."""
    return ".".join(map(str, capability))


@functools.cache
def recorded_runs(path: Path = RECORD) -> tuple[dict[str, Any], ...]:
    """The runs in the record; none where there is no record that can be read."""
    try:
        runs = json.loads(path.read_text())["runs"]
        return tuple({**run, "verified": frozenset(map(str, run["verified"]))} for run in runs)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, KeyError) as error:
        _log.warning("%s cannot be read (%s): no tile loop counts as verified on a GPU", path.name, error)
        return ()


def verified(capability: tuple[int, int] | None) -> frozenset[str]:
    """What a recorded run has verified on GPUs of that compute capability, such as {"cuda/simt"}."""
    if capability is None:
        return frozenset()
    wanted = capability_text(capability)
    return frozenset().union(*(run["verified"] for run in recorded_runs() if run.get("compute_capability") == wanted))
