"""Cutoff, density and picks of one class, against the product X X^T and against plain torch.

    python benchmarks/bench_density.py                  # rows of the host; a quiet machine, please
    python benchmarks/bench_density.py --device cuda    # rows of a GPU
    python benchmarks/bench_density.py --quick          # seconds; prints, keeps nothing

`select_prototypes` is timed as a user calls it: gathering the rows, all checks, cutoff, density, eta as
far down as the picks need. `density_peaks` leaves out eta and picks. The roofline multiplies only, into
memory that is there already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from checks import ETA_MAX, NUM_PROTOTYPES, QUANTILE, Selected, require
from command import main
from engines import Engine, host_engines
from machine import num_processors
from one_class import (
    HALF,
    SIZES,
    OneClass,
    SelectionCheck,
    cases,
    densities_of,
    density,
    gpu_cases,
    ours_on_gpu,
    product_work,
)
from parts import Bench, Case, Side, Variant
from plain import gpu_baselines, host_baselines
from products import check_roofline, gpu_rooflines, host_rooflines

import proto_engine as pe
from proto_engine.array_kinds import to_numpy

if TYPE_CHECKING:
    from places import Place

SELECT, DENSITY = "select_prototypes", "density_peaks"
_LARGE = 32768  # beyond this, only what stays within minutes
_LARGE_PICKS = 4096  # on a GPU; selections of larger classes are rows of bench_engine
_LARGE_FOR_TORCH = 4096  # on a host, the float64 look-ups of its backend take most of the time


def select(engine: Engine, inputs: OneClass) -> pe.Prototypes:
    return engine.call(
        pe.select_prototypes,
        inputs.x,
        inputs.labels,
        num_classes=1,
        prototypes_per_class=NUM_PROTOTYPES,
        samples_per_class=None,
        cutoff_quantile=QUANTILE,
        eta_max=ETA_MAX,
    )


def host_variants(case: Case, place: Place) -> list[Variant]:
    """What runs at this size; backends that are not available here are left out."""
    m, full = case["m"], num_processors()
    threads = sorted({full} if m > _LARGE else {1, full})
    found = host_rooflines(case, threads=tuple(threads), with_numpy=m <= _LARGE)
    for engine in host_engines(("cpu", "numba", "torch")):
        if engine.name == "torch" and m > _LARGE_FOR_TORCH:
            continue
        for n in threads if engine.name == "cpu" else [full]:
            found.append(_ours(engine, SELECT, select, n))
        if engine.name == "cpu":
            found.append(_ours(engine, DENSITY, density, full))
    return [*found, *host_baselines("select", SELECT, case)]


def gpu_variants(case: Case, place: Place) -> list[Variant]:
    found = [*gpu_rooflines(case, place), *ours_on_gpu(case, place, DENSITY, density, ends_on_host=True)]
    found += gpu_baselines("density", DENSITY, case, ends_on_host=True)
    if case["m"] <= _LARGE_PICKS:
        found += ours_on_gpu(case, place, SELECT, select, ends_on_host=True)
        plain = gpu_baselines("select", SELECT, case, ends_on_host=True)
        found += [v for v in plain if v.name in ("torch dense", "torch chunked")]  # the others: as in density
    return found


def checker(case: Case, inputs: OneClass) -> Callable[[Variant, Any], None]:
    """Float64 confirms one result of the engine; ours must equal it, baselines be as near as float32 can."""
    selection = SelectionCheck(inputs.x)

    def check(variant: Variant, result: Any) -> None:
        if variant.role == "roofline":
            check_roofline(inputs.x, variant, result)
        elif variant.role == "baseline":
            selection.baseline(result, variant.name)
        elif variant.task == DENSITY:
            selection.ours(Selected(float(result.cutoff), to_numpy(result.rho)), variant.name)
        else:
            found = Selected(float(to_numpy(result.cutoff)[0]), None, to_numpy(result.indices)[0])
            selection.ours(found, variant.name, densities_of(variant.name, inputs.x))
            truth = selection.truth
            right = np.array_equal(to_numpy(result.rho)[0], truth.rho[truth.picks])
            require(right, f"{variant.name}: densities of the picks")

    return check


def _ours(engine: Engine, task: str, run: Callable[[Engine, OneClass], Any], threads: int) -> Variant:
    return Variant(engine.name, task, "ours", threads, lambda inputs: run(engine, inputs))


BENCH = Bench(
    name="bench_density",
    script=Path(__file__).resolve(),
    sizes=SIZES,
    work=product_work,
    host=Side(
        cases=cases((1280, 2048), *((m, 512) for m in (2048, 4096, 8192, 16384)), (60000, 256)),
        quick=cases((700, 32)),
        inputs=OneClass,
        variants=host_variants,
        checker=checker,
    ),
    gpu=Side(
        cases=gpu_cases((1280, 4096, 16384, 71000, 262144, 10**6), all_dtypes_to=71000),
        quick=[*cases((700, 64), dtype=HALF), *cases((500, 40), dtype="bfloat16"), *cases((500, 40), dtype="float32")],
        gpu_check=[
            *cases((71000, 2048), *((16384, dim) for dim in (2048, 1024, 512, 256)), dtype=HALF),
            *cases((16384, 2048), dtype="float32"),
            *cases((16384, 2048), dtype="bfloat16"),
            *cases((4096, 2048), (1280, 2048), dtype=HALF),
        ],
        inputs=OneClass,
        variants=gpu_variants,
        checker=checker,
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCH, sys.argv[1:]))
