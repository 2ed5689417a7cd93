"""Cutoff, density and picks of one class, against the product X X^T and against plain torch.

    python benchmarks/bench_density.py            # the rows of the README; a quiet machine, please
    python benchmarks/bench_density.py --quick    # seconds; prints, keeps nothing

`select_prototypes` is timed as a user calls it: gathering the rows, all checks, cutoff, density, eta as
far down as the picks need. The roofline multiplies only, into memory that is there already.
"""

from __future__ import annotations

import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from checks import ETA_MAX, NUM_PROTOTYPES, QUANTILE, Selected, SelectionTruth, require
from harness import Bench, Case, Variant, main
from inputs import class_means, relu_rows
from machine import num_processors

import proto_engine as pe
from proto_engine.backends import error_bound

CASES: list[Case] = [
    {"m": m, "dim": dim} for m, dim in [(1280, 2048), *((m, 512) for m in (2048, 4096, 8192, 16384)), (60000, 256)]
]
QUICK: list[Case] = [{"m": 700, "dim": 32}]
SELECT, DENSITY, PRODUCT = "select_prototypes", "density_peaks", "S = X X^T"
_LARGE = 32768  # beyond this, only what stays within minutes
_LARGE_FOR_TORCH = 4096  # on a host, the float64 look-ups of its backend take most of the time
_CHECKED_ROWS = 64


class Inputs:
    """One class of features, and room for the matrix that the rooflines fill."""

    def __init__(self, case: Case) -> None:
        rng = np.random.default_rng(0)
        self.labels = np.zeros(case["m"], dtype=np.int64)
        self.x = relu_rows(rng, class_means(rng, 1, case["dim"]), self.labels)  # [m, D]

    @cached_property
    def s(self) -> np.ndarray:
        """[m, m]; memory of the first product that asks for it."""
        return np.empty((len(self.x), len(self.x)), dtype=np.float32)


def select(inputs: Inputs, backend: str) -> pe.Prototypes:
    return pe.select_prototypes(
        _features(inputs, backend),
        inputs.labels,
        num_classes=1,
        prototypes_per_class=NUM_PROTOTYPES,
        samples_per_class=None,
        cutoff_quantile=QUANTILE,
        eta_max=ETA_MAX,
        backend=backend,
    )


def density(inputs: Inputs, backend: str) -> pe.DensityPeaks:
    x = _features(inputs, backend)
    return pe.density_peaks(x, cutoff_quantile=QUANTILE, backend=backend, full_eta=False)


def multiply_torch(inputs: Inputs) -> np.ndarray:
    import torch

    x = torch.from_numpy(inputs.x)
    torch.mm(x, x.T, out=torch.from_numpy(inputs.s))
    return inputs.s


def multiply_numpy(inputs: Inputs) -> np.ndarray:
    """NumPy sees the two factors are one and calls the BLAS's symmetric product: half the work."""
    return np.matmul(inputs.x, inputs.x.T, out=inputs.s)


def dense(inputs: Inputs) -> Selected:
    import baselines
    import torch

    return baselines.torch_dense(torch.from_numpy(inputs.x))


def chunked(inputs: Inputs) -> Selected:
    import baselines
    import torch

    return baselines.torch_chunked(torch.from_numpy(inputs.x))


def variants(case: Case) -> list[Variant]:
    """What runs at this size; backends that are not available here are left out."""
    m, full = case["m"], num_processors()
    square = 4 * m * m  # bytes of S
    large = m > _LARGE
    available = [name for name in ("cpu", "numba", "torch") if pe.backends()[name] is None]
    found = []
    for threads in sorted({full} if large else {1, full}):
        found.append(Variant("torch.mm", PRODUCT, "roofline", threads, multiply_torch, square))
        if "cpu" in available:
            found.append(_ours("cpu", SELECT, threads))
    if not large:
        found.append(Variant("numpy.matmul", PRODUCT, "roofline", full, multiply_numpy, square))
    if "cpu" in available:
        found.append(_ours("cpu", DENSITY, full))
    if "numba" in available:
        found.append(_ours("numba", SELECT, full))
    if "torch" in available and m <= _LARGE_FOR_TORCH:
        found.append(_ours("torch", SELECT, full))
    # S, and kthvalue's copy of it with an int64 index an entry
    found.append(Variant("torch dense", SELECT, "baseline", full, dense, square + 3 * square))
    if not large:
        found.append(Variant("torch chunked", SELECT, "baseline", full, chunked))
    return found


def checker(case: Case, inputs: Inputs) -> Any:
    """Float64 confirms one result of the engine; ours must equal it, baselines be as near as float32 can."""
    claim = pe.density_peaks(inputs.x, cutoff_quantile=QUANTILE, full_eta=False)
    truth = SelectionTruth(inputs.x, Selected(claim.cutoff, claim.rho, None))

    def check(variant: Variant, result: Any) -> None:
        if variant.role == "roofline":
            _check_product(inputs.x, result)
        elif variant.role == "baseline":
            truth.close(result, variant.name)
        elif variant.task == DENSITY:
            truth.same(Selected(float(result.cutoff), np.asarray(result.rho), None), variant.name)
        else:
            truth.same(Selected(float(result.cutoff[0]), None, np.asarray(result.indices[0])), variant.name)
            rho = np.asarray(result.rho[0])
            require(np.array_equal(rho, truth.rho[truth.picks]), f"{variant.name}: densities of the picks")

    return check


def work(case: Case) -> dict[str, float | None]:
    """Of the whole product X X^T, for all variants alike, whatever they do in fact."""
    return {"flops": 2.0 * case["m"] ** 2 * case["dim"], "bytes": None}


def _ours(backend: str, task: str, threads: int) -> Variant:
    call = select if task == SELECT else density
    return Variant(backend, task, "ours", threads, lambda inputs: call(inputs, backend))


def _features(inputs: Inputs, backend: str) -> Any:
    if backend != "torch":
        return inputs.x
    import torch

    return torch.from_numpy(inputs.x)


def _check_product(x: np.ndarray, s: np.ndarray) -> None:
    rows = np.linspace(0, len(x) - 1, min(len(x), _CHECKED_ROWS)).astype(np.int64)
    double = x.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", double, double))
    off = np.abs(s[rows] - double[rows] @ double.T) / (norms[rows, None] * norms)
    require(off.max() <= error_bound(x.shape[1]), f"a product is off by {off.max():.3g}")


BENCH = Bench(
    name="bench_density",
    script=Path(__file__).resolve(),
    sizes=("m", "dim"),
    prepare=lambda case, folder: None,
    inputs=lambda case, folder: Inputs(case),
    tiny=lambda case: {**case, "m": min(case["m"], 512)},
    variants=variants,
    checker=checker,
    work=work,
)

if __name__ == "__main__":
    sys.exit(main(BENCH, CASES, QUICK, sys.argv[1:]))
