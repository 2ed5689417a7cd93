"""Shared by the tests of the benchmarks: a small benchmark, and a place that looks like a GPU and is none."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))  # its files are scripts, not a package

import harness  # noqa: E402
import parts  # noqa: E402
from places import Clocks, Host, Memory, Place  # noqa: E402

BENCHES = ("bench_similarity", "bench_cutoff", "bench_density", "bench_eta", "bench_score", "bench_engine")


class QuietHost(Host):
    """The host, but caches stay warm and memory is not measured: every variant grows by 3 MB, to a peak of 7 MB."""

    def flush(self):
        pass

    def memory_before(self, bench, case, variants, folder):
        return {v.key: Memory(3_000_000, 7_000_000, "nowhere") for v in variants}


class StandIn(Place):
    """Runs the GPU's side of a benchmark on the host: the device is the CPU, its events run twice as fast."""

    name = "cuda"
    device = torch.device("cpu")

    def __init__(self, room=2**34):
        self.room = room
        self.recovered = 0

    def about(self):
        about = {"on": "cuda", "device": "stand-in", "driver": "1.2", "cuda": "99.9", "capability": "0.0"}
        return {**about, "memory_bytes": self.room, "l2_bytes": 1}

    def available_bytes(self):
        return self.room

    def flush(self):
        pass

    def settings(self, variant):
        return nullcontext()

    def clock(self, call, *, ends_on_host):
        start = time.perf_counter()
        call()
        wall = time.perf_counter() - start
        return Clocks(wall, wall / 2)

    def enough(self, times, repeats):
        return len(times) >= (repeats or 2)

    def recover(self):
        self.recovered += 1

    def memory_of(self, variant, inputs, mark):
        return Memory(5_000_000, 9_000_000, variant.meter)


def variant(name, call=lambda inputs: None, threads=1, **more):
    return parts.Variant(name, "task", "ours", threads, call, **more)


def house(tmp_path, variants, check=lambda v, result: None):
    """A benchmark whose inputs are the sizes themselves."""
    side = parts.Side(
        cases=[],
        quick=[{"m": 2, "dim": 3}],
        inputs=lambda case, folder, place: case,
        variants=lambda case, place: variants,
        checker=lambda case, inputs: check,
        tiny=lambda case: {**case, "m": 1},
    )
    return parts.Bench(
        name="bench_test",
        script=tmp_path / "unused.py",
        sizes=("m", "dim"),
        work=lambda case: {"flops": 2e9, "bytes": None},
        host=side,
        gpu=side,
    )


def run_case(tmp_path, variants, place=None, check=lambda v, result: None, common=None, repeats=1):
    """The rows of one case of that benchmark."""
    bench = house(tmp_path, variants, check)
    return harness.run_case(
        bench, bench.host, {"m": 2, "dim": 3}, variants, place or QuietHost(), common or {}, tmp_path, repeats=repeats
    )
