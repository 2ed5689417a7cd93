"""Every launch of one tile loop on rows of a few tiles, held against the reference: small enough for compute-sanitizer.

    python benchmarks/small_launches.py cuda mma
    python benchmarks/small_launches.py cuda score-cluster    # the scores of clusters of blocks

No torch: what is examined is the engine alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from proto_engine.backends.base import condition_numpy, error_bound
from proto_engine.backends.device import SCORE_CLUSTER
from proto_engine.backends.device_backend import DeviceBackend
from proto_engine.backends.exact import cutoff_and_density
from proto_engine.backends.outcomes import trusting
from proto_engine.backends.reference import ReferenceBackend

QUANTILE, ETA_MAX, PICKS = 0.6, 0.95, 4
# Rows of each class, D, and the type: a class of five tiles, whose sample is not everything, and rows in two halves.
CASES: tuple[tuple[tuple[int, ...], int, Any], ...] = (
    ((520, 130, 3), 72, np.float16),
    ((140,), 37, np.float32),
)
# Rows and D for clusters of two, three and eight blocks; more tiles of 64 rows than rounds until a buffer is reused.
CLUSTER_CASES = ((700, 264), (150, 700), (330, 2048))


def main(arguments: Sequence[str]) -> int:
    """Run all launches; 1 where a result is not the reference's."""
    if len(arguments) != 2:
        print("usage: small_launches.py cuda|cupy LOOP", file=sys.stderr)
        return 2
    wrong = differences(backend_of(*arguments), arguments[1])
    for line in wrong:
        print(f"{'/'.join(arguments)}: {line}", file=sys.stderr)
    return 1 if wrong else 0


def backend_of(name: str, loop: str) -> DeviceBackend:
    if name == "cupy":
        from proto_engine.backends.cupy import CupyBackend

        return CupyBackend(loop)
    from proto_engine.backends.cuda import CudaBackend

    return CudaBackend(clusters=True) if loop == SCORE_CLUSTER else CudaBackend(loop)


def differences(backend: DeviceBackend, loop: str) -> list[str]:
    """What differs from the reference, over all cases."""
    found = []
    with trusting(f"{backend.name}/{loop}"):
        if loop == SCORE_CLUSTER:
            for num_rows, dim in CLUSTER_CASES:
                right, got = _scores(backend, _rows(num_rows, dim, np.float16))
                found += [f"{num_rows} rows of {dim}: {name}" for name in _unequal(right, got)]
            return found
        for sizes, dim, dtype in CASES:
            x = _rows(sum(sizes), dim, dtype)
            found += [f"{x.dtype} rows: {name}" for name in _unequal(*_everything(backend, x, sizes))]
    return found


def _rows(num_rows: int, dim: int, dtype: Any) -> np.ndarray:
    return (np.random.default_rng(dim).standard_normal((num_rows, dim)) + 0.2).astype(dtype)


def _unequal(right: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Names of the results that are not the reference's."""
    return [name for name, value in right.items() if not np.array_equal(found[name], value)]


def _folded(dim: int) -> np.ndarray:
    """Vectors of five classes.   [5, D]"""
    folded = np.random.default_rng(0).standard_normal((5, dim))
    return folded / np.linalg.norm(folded, axis=1, keepdims=True)


def _scores(backend: DeviceBackend, x: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """The best two classes of rows on the device and of rows that come in chunks: the reference's, and those found."""
    folded, names, half = _folded(x.shape[1]), ("label", "best", "second"), len(x) // 2
    right: dict[str, Any] = dict(zip(names, ReferenceBackend().top2(x, folded), strict=True))
    found: dict[str, Any] = dict(zip(names, backend.top2(backend.native(condition_numpy(x)), folded), strict=True))
    streamed = backend.top2_chunks([(0, x[:half]), (half, x[half:])], folded)
    right["streamed"], found["streamed"] = right["best"], np.concatenate([part[1] for _, part in streamed])
    return right, found


def _everything(backend: DeviceBackend, x: np.ndarray, sizes: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results of every launch: the reference's, and those found."""
    reference = ReferenceBackend()
    squares = reference.squared_norms(x)
    rows, folded = backend.native(condition_numpy(x)), _folded(x.shape[1])
    right, found = _scores(backend, x)
    right["squares"], found["squares"] = squares, backend.squared_norms(rows)
    unit, sigma = np.asarray(backend.normalize(rows, squares)), np.asarray(backend.score(rows, folded))
    right["unit rows"] = right["scores"] = right["similarity"] = True
    found["unit rows"] = np.abs(unit - reference.normalize(x, squares)).max() <= 2.0**-23
    found["scores"] = np.abs(sigma - reference.score(x, folded)).max() <= error_bound(x.shape[1])

    first = slice(0, sizes[0])
    pool: Any = backend.pool(backend.native(x[first]), squares[first])
    oracle = reference.pool(x[first], squares[first])
    right["cutoff"], right["rho"] = oracle.density(QUANTILE)
    found["cutoff"], found["rho"] = pool.density(QUANTILE)
    # With room for three pairs: histograms, then counts against the cutoff.
    found["bounded cutoff"], found["bounded rho"] = cutoff_and_density(pool, QUANTILE, capacity=3)
    right["bounded cutoff"], right["bounded rho"] = right["cutoff"], right["rho"]
    classes = np.array([0, sizes[0] // 3, sizes[0]])
    right["counts by class"] = oracle.class_counts_at(right["cutoff"], classes)
    found["counts by class"] = pool.class_counts_at(right["cutoff"], classes)
    order = np.argsort(-right["rho"], kind="stable")
    listed, limit = order[1::7], np.arange(1, len(order), 7)
    for name, smallest in (("greatest", False), ("smallest", True)):
        which = np.full(len(listed), smallest)
        right[name] = oracle.extreme(order, listed, limit, which)
        found[name] = pool.extreme(order, listed, limit, which)
    found["similarity"] = np.abs(np.asarray(pool.similarity()) - oracle.similarity()).max() <= pool.bound

    picks = backend.pick_ragged(rows, squares, sizes, PICKS, QUANTILE, ETA_MAX)
    found["picks"] = np.array([pick is None for pick in picks])
    right["picks"] = np.zeros(len(picks), dtype=bool)
    if picks[0] is not None:
        found["first pick"], right["first pick"] = picks[0].rows[0], order[0]
    return right, found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
