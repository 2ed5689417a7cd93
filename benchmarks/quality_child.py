"""The process that one method of bench_quality.py runs in; it sees no truth, and loads only what the method needs."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from machine import peak_memory
from quality_methods import METHODS, Inputs, Verdict

_TINY_ROWS = 40  # of each class, to load the libraries before the clock starts


def main(text: str) -> None:
    """Run what `quality_runs.do` asks for; the verdict goes into a file, the costs to the standard output.

    The method runs once on a few rows first, so that loading its libraries counts neither as time nor as memory.
    """
    wanted = json.loads(text)
    folder, method = Path(wanted["folder"]), METHODS[wanted["method"]]
    labels = np.load(folder / "labels.npy", allow_pickle=False)
    features = np.load(folder / "features.npy", allow_pickle=False)
    pixels = np.load(folder / "pixels.npy", allow_pickle=False) if method.needs_pixels else None
    tiny = np.sort(np.concatenate([np.flatnonzero(labels == c)[:_TINY_ROWS] for c in range(wanted["num_classes"])]))
    few = Inputs(
        features[tiny], labels[tiny], wanted["num_classes"], None if pixels is None else pixels[tiny], wanted["seed"]
    )
    method.call(few)
    whole = Inputs(features, labels, wanted["num_classes"], pixels, wanted["seed"])
    said: list[Verdict] = []
    wall, cpu = time.perf_counter(), time.process_time()
    memory = peak_memory(lambda: said.append(method.call(whole)))
    if memory is None:  # the system does not count it, and nothing has run yet
        said.append(method.call(whole))
    cost = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    growth, peak = memory or (None, None)
    (verdict,) = said
    scores = {f"score {name}": score for name, score in verdict.suspicion.items()}
    np.savez(folder / "verdict.npz", suggested=verdict.suggested, changed=verdict.changed, **scores)
    cost |= {"memory_growth_bytes": growth, "memory_peak_bytes": peak}
    print(json.dumps({"cost": cost, "scores": list(verdict.suspicion), "told": verdict.told}))


if __name__ == "__main__":
    main(sys.argv[1])
