"""The explicit similarity matrix of one class, for those who want it; nothing else stores it.

python benchmarks/bench_similarity.py                  # rows of the host
python benchmarks/bench_similarity.py --device cuda    # rows of a GPU
python benchmarks/bench_similarity.py --quick          # seconds; prints, keeps nothing
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from checks import require, tolerance
from command import main
from engines import Engine, host_engines
from machine import num_processors
from one_class import SIZES, OneClass, cases, gpu_cases, ours_on_gpu
from parts import Bench, Case, Side, Variant, Work
from plain import gpu_baselines, host_baselines
from products import check_roofline, gpu_rooflines, host_rooflines

import proto_engine as pe
from proto_engine.backends import error_bound

if TYPE_CHECKING:
    from places import Place

SIMILARITY = "similarity"


def ours(engine: Engine, inputs: OneClass) -> Any:
    return engine.call(pe.similarity, inputs.x)


def host_variants(case: Case, place: Place) -> list[Variant]:
    full = num_processors()
    found = host_rooflines(case, threads=(full,), with_numpy=True)
    for engine in host_engines():
        found.append(Variant(engine.name, SIMILARITY, "ours", full, lambda inputs, engine=engine: ours(engine, inputs)))
    return [*found, *host_baselines("similarity", SIMILARITY, case)]


def gpu_variants(case: Case, place: Place) -> list[Variant]:
    found = [*gpu_rooflines(case, place), *ours_on_gpu(case, place, SIMILARITY, ours, needs_bytes=4 * case["m"] ** 2)]
    return [*found, *gpu_baselines("similarity", SIMILARITY, case, ends_on_host=False)]


def checker(case: Case, inputs: OneClass) -> Callable[[Variant, Any], None]:
    """Rows of the matrix against float64, and ones on the diagonal."""

    def check(variant: Variant, result: Any) -> None:
        if variant.role == "roofline":
            check_roofline(inputs.x, variant, result)
        else:
            check_similarity(inputs.x, result, variant)

    return check


def check_similarity(x: Any, result: Any, variant: Variant) -> None:
    from truth import SAMPLED_ROWS, as_tensor, similarities, unit_rows

    s = _as_tensor_on(as_tensor(x), result)
    m, dim = x.shape
    require(tuple(s.shape) == (m, m), f"{variant.name}: wanted [{m}, {m}], got {tuple(s.shape)}")
    room = error_bound(dim) if variant.role == "ours" else tolerance(dim)
    rows = np.linspace(0, m - 1, min(m, SAMPLED_ROWS)).astype(np.int64)
    for part, right in similarities(unit_rows(as_tensor(x)), rows):
        off = float((s[rows[part]].double() - right).abs().max())
        require(off <= room, f"{variant.name}: a similarity is off by {off:.3g}, tolerance {room:.3g}")
    if variant.role == "ours":
        require(bool((s.diagonal() == 1).all()), f"{variant.name}: the diagonal is not all ones")


def _as_tensor_on(x: Any, result: Any) -> Any:
    """A matrix of any kind as a tensor on the device of x."""
    import torch

    tensor = result if isinstance(result, (torch.Tensor, np.ndarray)) else torch.from_dlpack(result)
    return torch.as_tensor(tensor).to(x.device)


def work(case: Case) -> Work:
    """The product, and the matrix written once; for all variants alike."""
    return {"flops": 2.0 * case["m"] ** 2 * case["dim"], "bytes": 4.0 * case["m"] ** 2}


BENCH = Bench(
    name="bench_similarity",
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
        cases=gpu_cases((1280, 4096, 16384, 71000, 100000), all_dtypes_to=16384),
        quick=[*cases((700, 64), dtype="float16"), *cases((500, 40), dtype="float32")],
        gpu_check=[*cases((16384, 2048), (16384, 512), dtype="float16"), *cases((16384, 1024), dtype="float32")],
        inputs=OneClass,
        variants=gpu_variants,
        checker=checker,
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCH, sys.argv[1:]))
