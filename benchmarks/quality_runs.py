"""One method on one problem: in a process of its own, so that its time and memory are its own; and the row of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from quality_methods import METHODS, Verdict
from quality_metrics import best_threshold, change, detection
from quality_problems import Problem
from rows import FAILED, OK, OUT_OF_MEMORY

Row = dict[str, Any]
_CHILD = Path(__file__).resolve().parent / "quality_child.py"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PROTO_ENGINE_NUM_THREADS")
_KEYS = ("data", "bank", "setting", "noise_seed", "digest", "num_samples", "method", "seed", "settings", "threads")


def identity(problem: Problem, method: str, seed: int, threads: int) -> Row:
    """What decides the outcome of a run, and its time."""
    seeded = METHODS[method].seeded or problem.bank == "network"
    return {
        "data": problem.data,
        "bank": problem.bank,
        "setting": problem.setting,
        "noise_seed": problem.noise_seed,
        "digest": problem.digest,
        "num_samples": len(problem.labels),
        "method": method,
        "seed": seed if seeded else None,
        "settings": METHODS[method].settings,
        "threads": threads,
    }


def key(row: Row) -> str:
    """The same for all rows of the same run."""
    return json.dumps([row[name] for name in _KEYS], sort_keys=True)


def finished(rows: Iterable[Row]) -> set[str]:
    """Keys of the runs that need not be done again; one that failed is not among them."""
    return {key(row) for row in rows if row["outcome"] == OK}


def write_inputs(problem: Problem, folder: Path) -> None:
    """What the methods may see, as files."""
    np.save(folder / "features.npy", problem.features)
    np.save(folder / "labels.npy", problem.labels)
    if problem.pixels is not None:
        np.save(folder / "pixels.npy", problem.pixels)


def do(problem: Problem, method: str, seed: int, threads: int, folder: Path) -> Row:
    """Run one method in a fresh process on what `write_inputs` left in `folder`, and measure what it says.

    Returns
    -------
    dict
        The row, also of a run that could not be finished: its `outcome` is not ``ok`` then, and has a `reason`.
    """
    row = {
        **identity(problem, method, seed, threads),
        "dim": problem.features.shape[1],
        "dtype": str(problem.features.dtype),
        "num_classes": problem.num_classes,
        "given_accuracy": float((problem.labels == problem.truth).mean()),
        "load": round(os.getloadavg()[0], 2),
    }
    wanted = {"folder": str(folder), "method": method, "seed": seed, "num_classes": problem.num_classes}
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
    done = subprocess.run(
        [sys.executable, str(_CHILD), json.dumps(wanted)], capture_output=True, text=True, env=environment
    )
    if done.returncode == -9:  # the kernel's out-of-memory killer leaves no other trace
        return {**row, "outcome": OUT_OF_MEMORY, "reason": "the process was killed"}
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {**row, "outcome": FAILED, "reason": lines[-1].replace(str(folder), "DIR")}
    told = json.loads(done.stdout.splitlines()[-1])
    with np.load(folder / "verdict.npz", allow_pickle=False) as file:
        suspicion = {name: file[f"score {name}"] for name in told["scores"]}
        verdict = Verdict(suspicion, file["suggested"], file["changed"], told["told"])
    try:
        return {**row, **told["cost"], **measure(problem, verdict), "outcome": OK}
    except ValueError as error:  # a score of NaN
        return {**row, "outcome": FAILED, "reason": f"{error}"}


def measure(problem: Problem, verdict: Verdict) -> Row:
    """The numbers of a verdict: of each score, of the default changes, and of taking every suggestion."""
    truth, given, suggested = problem.truth, problem.labels, verdict.suggested
    everything = np.ones(len(given), dtype=bool)
    told = verdict.told
    return {
        "scores": {
            name: {**detection(given != truth, score), **best_threshold(truth, given, suggested, score)}
            for name, score in verdict.suspicion.items()
        },
        "default": {**change(truth, given, suggested, verdict.changed), "expected": told.get("expected")},
        "all": {**change(truth, given, suggested, everything), "expected": told.get("expected_all")},
        "noise": told.get("noise"),
        "note": told.get("note") or None,
    }
