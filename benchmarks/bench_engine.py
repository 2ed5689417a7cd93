"""The whole method over all classes: prototypes of each, then the corrected label of every row.

    python benchmarks/bench_engine.py                  # rows of the host
    python benchmarks/bench_engine.py --device cuda    # rows of a GPU
    python benchmarks/bench_engine.py --quick          # seconds; prints, keeps nothing

The bank holds C classes of m rows and all of them are used. `select_prototypes` is timed from call to picks,
"select and correct" to the labels as well. On a GPU the bank and the results stay on the device, the picks of
the plain baselines end on the host. The roofline multiplies only: torch.bmm over all classes where their
products fit, else class after class into one matrix, or in chunks.
"""

from __future__ import annotations

import sys
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from checks import ETA_MAX, NUM_PROTOTYPES, QUANTILE
from command import main
from engine_checks import checker
from engines import Engine, fits, gpu_engines, host_engines
from inputs import class_means, itemsize, relu_bank, relu_rows
from machine import num_processors
from parts import Bench, Case, Side, Variant, Work
from products import chunk_rows

import proto_engine as pe

if TYPE_CHECKING:
    from places import Place

SIZES = ("num_classes", "m", "dim")
SELECT, WHOLE, PRODUCTS = "select_prototypes", "select and correct", "S = X X^T, all classes"
_PLAIN_ROWS = 32768  # of a class, beyond which a baseline keeps all others waiting
_LARGE = 131072  # rows of a class; beyond, selection alone
_FITTING_SHARE = 0.4  # of the free memory, for products


class Inputs:
    """The bank, its classes one after another, and room for their products."""

    def __init__(self, case: Case, folder: Path, place: Place) -> None:
        self.classes, self.m, dim = (case[name] for name in SIZES)
        self.labels = np.repeat(np.arange(self.classes), self.m)  # [C m]
        if place.name == "cpu":
            rng = np.random.default_rng(0)
            self.bank: Any = relu_rows(rng, class_means(rng, self.classes, dim), self.labels)  # [C m, D]
        else:
            self.bank = relu_bank(self.labels, dim, case["dtype"], place.device)

    @cached_property
    def tensor(self) -> Any:
        """[C, m, D], over the same memory"""
        from truth import as_tensor

        return as_tensor(self.bank).view(self.classes, self.m, -1)

    @cached_property
    def all_products(self) -> Any:
        return self.tensor.new_empty((self.classes, self.m, self.m))

    @cached_property
    def product(self) -> Any:
        """[b, m]: of one class, or as many of its rows as a chunk has."""
        rows = chunk_rows(self.m, self.tensor.element_size())
        return self.tensor.new_empty((rows, self.m))


def select(engine: Engine, inputs: Inputs) -> pe.Prototypes:
    return engine.call(
        pe.select_prototypes,
        inputs.bank,
        inputs.labels,
        num_classes=inputs.classes,
        prototypes_per_class=NUM_PROTOTYPES,
        samples_per_class=None,
        cutoff_quantile=QUANTILE,
        eta_max=ETA_MAX,
    )


def whole(engine: Engine, inputs: Inputs) -> tuple[pe.Prototypes, pe.Corrections]:
    prototypes = select(engine, inputs)
    return prototypes, engine.call(pe.correct_labels, inputs.bank, inputs.labels, prototypes)


def multiply_all(inputs: Inputs) -> Any:
    import torch

    return torch.bmm(inputs.tensor, inputs.tensor.mT, out=inputs.all_products)


def multiply_each(inputs: Inputs) -> Any:
    """The products of class after class into the same memory; of the last one some rows remain."""
    import torch

    for x in inputs.tensor:
        for start in range(0, inputs.m, len(inputs.product)):
            rows = x[start : start + len(inputs.product)]
            torch.mm(rows, x.T, out=inputs.product[: len(rows)])
    return inputs.product[: len(rows)]


def plain_batched(inputs: Inputs, *, sort: bool) -> Any:
    from baselines_batched import torch_batched

    return torch_batched(inputs.tensor, sort=sort)


def plain_each(method: str, inputs: Inputs) -> Any:
    import baselines

    return [getattr(baselines, method)(x) for x in inputs.tensor]


def plain_whole(inputs: Inputs) -> Any:
    """Batched selection, folded prototypes, and scores by plain torch."""
    import torch
    import torch.nn.functional as F
    from baselines_score import torch_score

    picked = plain_batched(inputs, sort=True)
    picks = torch.from_numpy(np.stack([found.picks for found in picked])).to(inputs.tensor.device)  # [C, p]
    vectors = inputs.tensor.gather(1, picks[:, :, None].expand(-1, -1, inputs.tensor.shape[2]))
    folded = F.normalize(vectors.float(), dim=2).mean(dim=1).double().cpu().numpy()  # [C, D]
    return picked, torch_score(inputs.tensor.flatten(0, 1), inputs.labels, folded, inputs.tensor.device)


def host_variants(case: Case, place: Place) -> list[Variant]:
    threads = num_processors()
    found = [_roofline(case, place, threads)]
    for engine in host_engines():
        for task, run in ((SELECT, select), (WHOLE, whole)):
            found.append(Variant(engine.name, task, "ours", threads, partial(run, engine)))
    return [*found, *_baselines(case, threads)]


def gpu_variants(case: Case, place: Place) -> list[Variant]:
    found = [_roofline(case, place, 1)]
    engines = [engine for engine in gpu_engines(place.device) if engine.backend != "faiss" and fits(engine, case["m"])]
    for task, run in ((SELECT, select), (WHOLE, whole)):
        for e in engines:
            # Tile loops have no part in scores, which next to a class of a million rows take no time.
            if task == SELECT or (e.instance is None and case["m"] <= _LARGE):
                call = partial(run, e)
                found.append(Variant(e.name, task, "ours", 1, call, ends_on_host=True, meter=e.meter))
    return [*found, *_baselines(case, 1)]


def work(case: Case) -> Work:
    """Of the products of all classes, for all variants alike, whatever they do in fact."""
    classes, m, dim = (case[name] for name in SIZES)
    return {"flops": 2.0 * classes * m * m * dim, "bytes": None}


def _roofline(case: Case, place: Place, threads: int) -> Variant:
    classes, m, size = case["num_classes"], case["m"], itemsize(case)
    room = place.available_bytes()
    batched = size * classes * m * m
    if room is None or batched <= _FITTING_SHARE * room:
        return Variant("torch.bmm", PRODUCTS, "roofline", threads, multiply_all, batched)
    return Variant("torch.mm", PRODUCTS, "roofline", threads, multiply_each, size * m * chunk_rows(m, size))


def _baselines(case: Case, threads: int) -> list[Variant]:
    classes, m = case["num_classes"], case["m"]
    if m > _PLAIN_ROWS:
        return []
    square = 4 * m * m
    plain = partial(Variant, role="baseline", threads=threads, ends_on_host=True)
    batched = 6 * classes * square  # S, its copy with an index an entry, and room to sort them
    return [
        plain("torch dense, batched", SELECT, call=partial(plain_batched, sort=False), needs_bytes=batched),
        plain("torch dense, batched sort", SELECT, call=partial(plain_batched, sort=True), needs_bytes=batched),
        plain("torch dense", SELECT, call=partial(plain_each, "torch_dense"), needs_bytes=4 * square),
        plain("torch chunked", SELECT, call=partial(plain_each, "torch_chunked")),
        plain("torch dense, batched sort", WHOLE, call=plain_whole, needs_bytes=batched),
    ]


def cases(*sizes: tuple[int, int, int], dtype: str | None = None) -> list[Case]:
    return [dict(zip(SIZES, size, strict=True)) | ({"dtype": dtype} if dtype else {}) for size in sizes]


_PAPER, _CLASSES, _MILLION = (14, 1280, 2048), (14, 71000, 2048), (1, 10**6, 1024)
_DIMS = [(14, m, dim) for m in (1280, 4096, 16384) for dim in (256, 512, 1024, 2048)]

BENCH = Bench(
    name="bench_engine",
    script=Path(__file__).resolve(),
    sizes=SIZES,
    work=work,
    host=Side(
        cases=cases(_PAPER, (10, 6000, 512)),
        quick=cases((3, 300, 32)),
        inputs=Inputs,
        variants=host_variants,
        checker=checker,
    ),
    gpu=Side(
        cases=[
            *cases(_PAPER, _CLASSES, _MILLION, *(size for size in _DIMS if size != _PAPER), dtype="float16"),
            *cases(*_DIMS, dtype="bfloat16"),
            *cases(*_DIMS, dtype="float32"),
        ],
        quick=[*cases((3, 300, 64), dtype="float16"), *cases((2, 200, 40), dtype="float32")],
        gpu_check=[
            *cases(_PAPER, _CLASSES, dtype="float16"),
            *cases(_PAPER, dtype="float32"),
            *cases(_PAPER, dtype="bfloat16"),
            *cases(_MILLION, dtype="float16"),  # the last: half a minute
        ],
        check_without=("cuda simt", "cuda mma", "cuda wgmma", "cuda wgmma-cluster", "cupy"),  # bench_density shows them
        inputs=Inputs,
        variants=gpu_variants,
        checker=checker,
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCH, sys.argv[1:]))
