"""What the steps of `gpu_check` know, what they say, and which tile loops there are to look at."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from processes import Runner
from verified import ROOT, Gpu

PASSED, FAILED = "passed", "failed"
# Tile loops, and among them what is as new and may hang as well: the scores of clusters of blocks.
LOOPS = ("cuda/simt", "cuda/mma", "cuda/wgmma", "cuda/wgmma-cluster", "cuda/score-cluster", "cupy/simt", "cupy/mma")


@dataclass
class Outcome:
    """How a step ended. ``loops`` are the tile loops that came through it; None where it is not about loops."""

    outcome: str
    detail: str
    seconds: float = 0.0
    loops: list[str] | None = None


@dataclass
class Context:
    """What the steps need to know."""

    runner: Runner
    gpu: Gpu
    out: Path
    deadline: float  # of time.monotonic()
    before: dict[str, Outcome] = field(default_factory=dict)  # steps that have ended
    root: Path = ROOT

    def limit(self, seconds: float) -> float:
        """As long as that, but not beyond the deadline."""
        return max(1.0, min(seconds, self.deadline - time.monotonic()))


def loops_here(context: Context) -> list[str]:
    """The tile loops that can run on this GPU with what is installed."""
    number = tuple(map(int, context.gpu.capability.split(".")))
    can = {"simt": number >= (7, 5), "mma": number >= (8, 0)}
    can |= dict.fromkeys(("wgmma", "wgmma-cluster", "score-cluster"), number == (9, 0))
    found = [loop for loop in LOOPS if can[name_of(loop)]]
    return found if importlib.util.find_spec("cupy") else [loop for loop in found if not loop.startswith("cupy")]


def dead_loops(context: Context) -> list[str]:
    """The tile loops of this GPU that did not come through the step `loops`, and CuPy's of the same sources. Empty
    where that step has not been run: then nothing is known."""
    ended = context.before.get("loops")
    if ended is None or ended.loops is None:
        return []
    return [loop for loop in loops_here(context) if f"cuda/{name_of(loop)}" not in ended.loops]


def without(loops: Sequence[str]) -> dict[str, str]:
    """The variable that keeps a command from starting any of these loops."""
    return {"PROTO_ENGINE_WITHOUT_LOOPS": ",".join(dict.fromkeys(map(name_of, loops)))} if loops else {}


def name_of(loop: str) -> str:
    """A tile loop's name without its backend: "mma" of "cupy/mma"."""
    return loop.partition("/")[2]


def left_out(loops: Sequence[str]) -> list[str]:
    """What a step's detail begins with: the loops that it leaves out, or nothing."""
    return [f"left out: {', '.join(loops)}"] if loops else []
