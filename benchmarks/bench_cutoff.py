"""The cutoff S_c of one class, an order statistic of all similarities.

python benchmarks/bench_cutoff.py                  # rows of the host
python benchmarks/bench_cutoff.py --device cuda    # rows of a GPU
python benchmarks/bench_cutoff.py --quick          # seconds; prints, keeps nothing
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks import QUANTILE, Selected
from command import main
from engines import Engine, host_engines
from machine import num_processors
from one_class import SIZES, OneClass, SelectionCheck, cases, densities_of, gpu_cases, ours_on_gpu, product_work
from parts import Bench, Case, Side, Variant
from plain import gpu_baselines, host_baselines
from products import check_roofline, gpu_rooflines, host_rooflines

from proto_engine import ops

if TYPE_CHECKING:
    from places import Place

CUTOFF = "cutoff"


def ours(engine: Engine, inputs: OneClass) -> float:
    return engine.call(ops.cutoff, inputs.x, quantile=QUANTILE)


def host_variants(case: Case, place: Place) -> list[Variant]:
    full = num_processors()
    found = host_rooflines(case, threads=(full,), with_numpy=True)
    for engine in host_engines():
        found.append(Variant(engine.name, CUTOFF, "ours", full, lambda inputs, engine=engine: ours(engine, inputs)))
    return [*found, *host_baselines("cutoff", CUTOFF, case)]


def gpu_variants(case: Case, place: Place) -> list[Variant]:
    found = [*gpu_rooflines(case, place), *ours_on_gpu(case, place, CUTOFF, ours, ends_on_host=True)]
    return [*found, *gpu_baselines("cutoff", CUTOFF, case, ends_on_host=True)]


def checker(case: Case, inputs: OneClass) -> Callable[[Variant, Any], None]:
    """Float64 confirms the rank of one cutoff of ours; all of ours must equal it."""
    selection = SelectionCheck(inputs.x)

    def check(variant: Variant, result: Any) -> None:
        if variant.role == "roofline":
            check_roofline(inputs.x, variant, result)
        elif variant.role == "baseline":
            selection.baseline(result, variant.name)
        else:
            selection.ours(Selected(float(result)), variant.name, densities_of(variant.name, inputs.x))

    return check


BENCH = Bench(
    name="bench_cutoff",
    script=Path(__file__).resolve(),
    sizes=SIZES,
    work=product_work,
    host=Side(
        cases=cases((2048, 512), (8192, 512)),
        quick=cases((500, 32)),
        inputs=OneClass,
        variants=host_variants,
        checker=checker,
    ),
    gpu=Side(
        cases=gpu_cases((1280, 4096, 16384, 71000, 10**6), all_dtypes_to=16384),
        quick=[*cases((700, 64), dtype="float16"), *cases((500, 40), dtype="float32")],
        gpu_check=[*cases((71000, 2048), (16384, 512), dtype="float16"), *cases((16384, 1024), dtype="float32")],
        check_without=("torch.compile",),  # compiles for half a minute; bench_density shows it
        inputs=OneClass,
        variants=gpu_variants,
        checker=checker,
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCH, sys.argv[1:]))
