"""The GPU's side of bench_score: a bank on the device, and one in pinned host memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from baselines_score import array_score, faiss_score, torch_score
from checks import require
from engines import Engine, gpu_engines, installed, left_out, score_kernels
from inputs import itemsize, relu_bank
from parts import Case, Side, Variant

import proto_engine as pe
from proto_engine.array_kinds import to_numpy
from proto_engine.backends import error_bound

if TYPE_CHECKING:
    from places import Place

SIZES = ("num_samples", "dim", "num_classes")
CORRECT, SCORE, FROM_HOST = "correct_labels", "score_samples", "correct_labels, pinned bank"
PRODUCT, COPY, TO_DEVICE = "bank @ folded.T", "copy", "copy to the device"
_NOISE = 0.4  # share of labels drawn at random
_PROTOTYPE_ROWS = 20  # a class, that prototypes are picked from: only their number matters
_MOST_PINNED = 16 * 2**30
_FEW = 2**17  # rows
_CHECKED_ROWS = 4096


class Inputs:
    """The bank on the device, the same in pinned memory, prototypes, and room for the rooflines.

    ``labels`` are the given labels on the host, ``given`` the same on the device, for the bank that lies there.
    """

    def __init__(self, case: Case, folder: Path, place: Place) -> None:
        n, classes = case["num_samples"], case["num_classes"]
        rng = np.random.default_rng(0)
        truth = np.arange(n) % classes  # every class has rows, whatever the size
        self.bank = relu_bank(truth, case["dim"], case["dtype"], place.device)  # [N, D]
        self.labels = np.where(rng.random(n) < _NOISE, rng.integers(0, classes, n), truth)
        self.given = _tensor(self.labels).to(place.device)
        first = min(n, _PROTOTYPE_ROWS * classes)
        self.prototypes = pe.select_prototypes(to_numpy(self.bank[:first]), truth[:first], num_classes=classes)

    @cached_property
    def pinned(self) -> Any:
        return self.bank.cpu().pin_memory() if self.bank.is_cuda else self.bank.clone()

    @cached_property
    def pinned_array(self) -> np.ndarray:
        """The same memory as a NumPy array."""
        return to_numpy(self.pinned)

    @cached_property
    def weights(self) -> Any:
        """The folded prototypes in the dtype of the bank.   [D, C]"""
        return _tensor(self.prototypes.folded).to(self.bank).T.contiguous()

    @cached_property
    def out(self) -> Any:
        return self.bank.new_empty((len(self.bank), self.weights.shape[1]))

    @cached_property
    def copy(self) -> Any:
        return self.bank.new_empty(self.bank.shape)


def variants(case: Case, place: Place) -> list[Variant]:
    n, dim, size = case["num_samples"], case["dim"], itemsize(case)
    bank = size * n * dim
    once, twice = {"flops": None, "bytes": float(bank)}, {"flops": None, "bytes": 2.0 * bank}
    roofline = partial(Variant, role="roofline", threads=1)
    found = [
        roofline("torch.mm", PRODUCT, call=multiply),
        roofline("torch copy", COPY, call=copy, needs_bytes=bank, work=twice),
    ]
    # Tile loops have no part in scores; what copies rows from the host one call after the other waits for these.
    engines = [e for e in gpu_engines(place.device) if e.instance is None and (e.name != "numba-cuda" or n <= _FEW)]
    for e in engines:
        found.append(Variant(e.name, CORRECT, "ours", 1, partial(correct, e), meter=e.meter))
        found.append(Variant(e.name, SCORE, "ours", 1, partial(score, e), meter=e.meter))
    if any(e.name == "cuda" for e in engines):
        for e in score_kernels(place.device):
            found.append(Variant(e.name, CORRECT, "ours", 1, partial(correct, e), meter=e.meter))
    found.append(Variant("torch chunked", CORRECT, "baseline", 1, plain_torch))
    if installed("cupy", "cupy chunked"):
        found.append(Variant("cupy chunked", CORRECT, "baseline", 1, plain_cupy))
    if place.device.type == "cuda" and _faiss_gpus():
        found.append(Variant("faiss index", CORRECT, "baseline", 1, plain_faiss, meter="free memory"))
    if bank <= _MOST_PINNED:
        found.append(roofline("torch copy", TO_DEVICE, call=copy_to_device, needs_bytes=bank, work=once))
        call = partial(correct_pinned, Engine("cuda", "cuda"))
        if any(e.name == "cuda" for e in engines):
            found.append(Variant("cuda", FROM_HOST, "ours", 1, call, ends_on_host=True))
        found.append(Variant("torch chunked", FROM_HOST, "baseline", 1, plain_torch_pinned, ends_on_host=True))
    return found


def correct(engine: Engine, inputs: Inputs) -> pe.Corrections:
    return engine.call(pe.correct_labels, inputs.bank, inputs.given, inputs.prototypes)


def correct_pinned(engine: Engine, inputs: Inputs) -> pe.Corrections:
    """From host memory; the results are host data."""
    return engine.call(pe.correct_labels, inputs.pinned_array, inputs.labels, inputs.prototypes)


def score(engine: Engine, inputs: Inputs) -> Any:
    """The scores alone.   [N, C]"""
    return engine.call(pe.score_samples, inputs.bank, inputs.prototypes)


def multiply(inputs: Inputs) -> Any:
    import torch

    return torch.mm(inputs.bank, inputs.weights, out=inputs.out)


def copy(inputs: Inputs) -> Any:
    return inputs.copy.copy_(inputs.bank)


def copy_to_device(inputs: Inputs) -> Any:
    return inputs.copy.copy_(inputs.pinned, non_blocking=True)


def plain_torch(inputs: Inputs) -> pe.Corrections:
    return _corrections(inputs, torch_score(inputs.bank, inputs.given, _folded(inputs), inputs.bank.device))


def plain_torch_pinned(inputs: Inputs) -> pe.Corrections:
    found = torch_score(inputs.pinned, inputs.labels, _folded(inputs), inputs.bank.device)
    return _corrections(inputs, {name: to_numpy(array) for name, array in found.items()})


def plain_cupy(inputs: Inputs) -> pe.Corrections:
    import cupy

    bfloat16 = str(inputs.bank.dtype) == "torch.bfloat16"  # CuPy has no such numbers of its own
    bank = cupy.from_dlpack(inputs.bank.float() if bfloat16 else inputs.bank)
    return _corrections(inputs, array_score(cupy, bank, inputs.given, _folded(inputs)))


def plain_faiss(inputs: Inputs) -> pe.Corrections:
    return _corrections(inputs, faiss_score(inputs.bank, inputs.given, _folded(inputs), _faiss_resources()))


def checker(case: Case, inputs: Inputs) -> Callable[[Variant, Any], None]:
    """Against float64 on the device: labels, scores and margins of all rows."""
    from truth import ScoreTruth

    truth = ScoreTruth(inputs.bank, _folded(inputs))

    def check(variant: Variant, result: Any) -> None:
        if variant.task in (COPY, TO_DEVICE):
            require(bool((result == inputs.bank).all()), f"{variant.name}: the copy is not the bank")
        elif variant.task == PRODUCT:
            _check_product(inputs, result)
        elif variant.task == SCORE:
            _check_scores(inputs, result, variant.name)
        else:
            arrays = (to_numpy(a) for a in (result.labels, result.score, result.margin))
            truth.check(*arrays, exact=variant.role == "ours", name=variant.name)
            changed = to_numpy(result.labels) != inputs.labels
            require(
                np.array_equal(to_numpy(result.changed), changed), f"{variant.name}: changed is not labels != given"
            )

    return check


def _corrections(inputs: Inputs, found: dict[str, Any]) -> pe.Corrections:
    return pe.Corrections(given=inputs.labels, **found)


def _folded(inputs: Inputs) -> np.ndarray:
    return np.asarray(inputs.prototypes.folded)


def _tensor(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.asarray(array))


@functools.cache
def _faiss_gpus() -> bool:
    if not installed("faiss", "faiss index"):
        return False
    import faiss

    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0:
        return True
    left_out("faiss index", f"faiss {faiss.__version__} has no GPU to work on")
    return False


@functools.cache
def _faiss_resources() -> Any:
    import faiss

    return faiss.StandardGpuResources()


def _check_product(inputs: Inputs, product: Any) -> None:
    import torch

    rows = torch.linspace(0, len(product) - 1, min(len(product), _CHECKED_ROWS), device=product.device).long()
    double = inputs.bank[rows].double()
    off = (product[rows].double() - double @ inputs.weights.double()).abs().amax(dim=1)
    off = float((off / torch.linalg.vector_norm(double, dim=1)).max())
    room = error_bound(double.shape[1])
    if product.dtype != torch.float32:
        room += 4 * torch.finfo(product.dtype).eps  # rounded when it is stored
    require(off <= room, f"a product is off by {off:.3g}, tolerance {room:.3g}")


def _check_scores(inputs: Inputs, result: Any, name: str) -> None:
    from truth import unit_rows

    rows = np.linspace(0, len(inputs.labels) - 1, min(len(inputs.labels), _CHECKED_ROWS)).astype(np.int64)
    right = unit_rows(inputs.bank[rows]) @ _tensor(_folded(inputs)).to(inputs.bank.device).T
    off = float(np.abs(to_numpy(result)[rows] - to_numpy(right)).max())
    room = error_bound(inputs.bank.shape[1])
    require(off <= room, f"{name}: a score is off by {off:.3g}, tolerance {room:.3g}")


def _cases(*sizes: tuple[int, int, int], dtype: str) -> list[Case]:
    return [dict(zip(SIZES, size, strict=True)) | {"dtype": dtype} for size in sizes]


SIDE = Side(
    cases=[
        case
        for dtype in ("float16", "bfloat16", "float32")
        for case in _cases(*((10**6, dim, c) for dim in (256, 512, 1024, 2048) for c in (14, 100)), dtype=dtype)
    ],
    quick=[*_cases((3000, 64, 10), dtype="float16"), *_cases((2000, 40, 7), dtype="float32")],
    gpu_check=[*_cases((10**6, 2048, 14), dtype="float16"), *_cases((10**6, 512, 100), dtype="float32")],
    inputs=Inputs,
    variants=variants,
    checker=checker,
    tiny=lambda case: case,
)
