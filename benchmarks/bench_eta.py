"""eta of all rows of one class, densities given: the similarity to the most similar denser row.

python benchmarks/bench_eta.py                  # rows of the host
python benchmarks/bench_eta.py --device cuda    # rows of a GPU
python benchmarks/bench_eta.py --quick          # seconds; prints, keeps nothing
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from checks import require
from command import main
from engines import Engine, host_engines
from machine import num_processors
from one_class import HOST_ROWS, SIZES, OneClass, cases, gpu_cases, ours_on_gpu
from parts import Bench, Case, Side, Variant, Work
from plain import gpu_baselines, host_baselines
from products import check_roofline, gpu_rooflines, host_rooflines

from proto_engine import ops
from proto_engine.array_kinds import to_numpy

if TYPE_CHECKING:
    from places import Place

ETA = "eta"


def ours(engine: Engine, inputs: OneClass) -> Any:
    return engine.call(ops.eta, inputs.x, inputs.rho)


def host_variants(case: Case, place: Place) -> list[Variant]:
    full = num_processors()
    found = host_rooflines(case, threads=(full,), with_numpy=True)
    for engine in host_engines():
        found.append(Variant(engine.name, ETA, "ours", full, lambda inputs, engine=engine: ours(engine, inputs)))
    return [*found, *host_baselines("eta", ETA, case)]


def gpu_variants(case: Case, place: Place) -> list[Variant]:
    found = [*gpu_rooflines(case, place), *ours_on_gpu(case, place, ETA, ours, ends_on_host=False)]
    return [*found, *gpu_baselines("eta", ETA, case, ends_on_host=False)]


def checker(case: Case, inputs: OneClass) -> Callable[[Variant, Any], None]:
    """Float64 says eta of (at most 8,192) rows; all of ours must be the same bits everywhere."""
    from truth import EtaTruth

    truth = EtaTruth(inputs.x, inputs.rho)
    first: list[np.ndarray] = []

    def check(variant: Variant, result: Any) -> None:
        if variant.role == "roofline":
            check_roofline(inputs.x, variant, result)
            return
        eta = to_numpy(result)
        truth.check(eta, exact=variant.role == "ours", name=variant.name)
        if variant.role == "ours":
            if not first:
                first.append(reference(inputs, eta))
            require(np.array_equal(eta, first[0]), f"{variant.name}: other bits than the first of ours")

    return check


def reference(inputs: OneClass, eta: np.ndarray) -> np.ndarray:
    """What all of ours must equal: on a GPU, where our CPU engine can do the class, its result."""
    if isinstance(inputs.x, np.ndarray) or len(inputs.x) > HOST_ROWS:
        return eta
    return np.asarray(ops.eta(to_numpy(inputs.x), inputs.rho))


def work(case: Case) -> Work:
    """Of the product with the denser rows: half of the whole one, for all variants alike."""
    return {"flops": 1.0 * case["m"] ** 2 * case["dim"], "bytes": None}


BENCH = Bench(
    name="bench_eta",
    script=Path(__file__).resolve(),
    sizes=SIZES,
    work=work,
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
        gpu_check=[*cases((16384, 2048), (16384, 512), dtype="float16"), *cases((16384, 1024), dtype="float32")],
        check_without=("torch.compile",),  # compiles for half a minute; bench_density shows it
        inputs=OneClass,
        variants=gpu_variants,
        checker=checker,
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCH, sys.argv[1:]))
