"""Corrected labels of a memory-mapped feature bank, against the bare product on the same file.

    python benchmarks/bench_score.py                  # rows of the host; writes 2 GB to --dir meanwhile
    python benchmarks/bench_score.py --device cuda    # rows of a GPU, see score_on_gpu.py
    python benchmarks/bench_score.py --quick          # seconds; prints, keeps nothing

Every call starts from the file's name, opens it and maps it anew, so that all variants pay for the same
page faults; the file's pages are in the page cache for all of them. The rooflines walk over it in the
engine's chunks: one multiplies each chunk with the folded prototypes, one copies it.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import score_on_gpu
from checks import require
from command import main
from engines import Engine, host_engines
from inputs import class_means, itemsize, relu_rows
from machine import num_processors
from parts import Bench, Case, Side, Variant, Work

import proto_engine as pe
from proto_engine.backends import error_bound
from proto_engine.bank import DEFAULT_CHUNK_BYTES

if TYPE_CHECKING:
    from places import Place

SIZES = score_on_gpu.SIZES
CORRECT, PRODUCT, COPY = "correct_labels", "chunk @ folded.T", "copy"
_TINY = 1000
_ROWS_PER_WRITE = 16384
_NOISE = 0.4  # share of labels drawn at random
_FEATURES, _LABELS, _PROTOTYPES = "features.npy", "labels.npy", "prototypes.safetensors"


class Inputs:
    """The file's name, the labels and the prototypes."""

    def __init__(self, case: Case, folder: Path, place: Place) -> None:
        self.path = folder / _FEATURES
        self.labels = np.load(folder / _LABELS)
        self.prototypes = pe.Prototypes.load(folder / _PROTOTYPES)

    def open(self) -> np.ndarray:
        return np.asarray(np.load(self.path, mmap_mode="r"))


def prepare(case: Case, folder: Path) -> None:
    """Write features, labels and prototypes; the classes' rows lie mixed, as in a data set."""
    rng = np.random.default_rng(0)
    n, dim, num_classes = case["num_samples"], case["dim"], case["num_classes"]
    means = class_means(rng, num_classes, dim)
    labels = np.arange(n) % num_classes  # every class has rows, whatever the size
    header = {"descr": "<f4", "fortran_order": False, "shape": (n, dim)}
    with open(folder / _FEATURES, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, n, _ROWS_PER_WRITE):
            rows = relu_rows(rng, means, labels[start : start + _ROWS_PER_WRITE])
            file.write(rows.data)
    given = np.where(rng.random(n) < _NOISE, rng.integers(0, num_classes, n), labels)
    np.save(folder / _LABELS, given)
    first = min(n, 20 * num_classes)  # prototypes of a few rows a class will do: only their number matters
    sample = np.array(np.load(folder / _FEATURES, mmap_mode="r")[:first])
    prototypes = pe.select_prototypes(sample, labels[:first], num_classes=num_classes)
    prototypes.save(folder / _PROTOTYPES)


def correct(engine: Engine, inputs: Inputs) -> pe.Corrections:
    bank = pe.FeatureBank.open(inputs.path)
    return engine.call(pe.correct_labels, bank, inputs.labels, inputs.prototypes)


def plain_torch(inputs: Inputs) -> pe.Corrections:
    from baselines_score import torch_score

    found = torch_score(inputs.open(), inputs.labels, inputs.prototypes.folded)
    return pe.Corrections(given=inputs.labels, **found)


def plain_numpy(inputs: Inputs) -> pe.Corrections:
    from baselines_score import array_score

    found = array_score(np, inputs.open(), inputs.labels, inputs.prototypes.folded)
    return pe.Corrections(given=inputs.labels, **found)


def multiply_torch(inputs: Inputs) -> np.ndarray:
    import torch

    features, step = _chunked(inputs)
    weights = torch.from_numpy(inputs.prototypes.folded).float().T  # [D, C]
    out = torch.empty(step, weights.shape[1])
    for start in range(0, len(features), step):
        with warnings.catch_warnings():  # that the map is read-only
            warnings.simplefilter("ignore")
            chunk = torch.from_numpy(features[start : start + step])
        torch.mm(chunk, weights, out=out[: len(chunk)])
    return out[: len(chunk)].numpy()


def multiply_numpy(inputs: Inputs) -> np.ndarray:
    features, step = _chunked(inputs)
    weights = inputs.prototypes.folded.astype(np.float32).T  # [D, C]
    out = np.empty((step, weights.shape[1]), dtype=np.float32)
    for start in range(0, len(features), step):
        chunk = features[start : start + step]
        np.matmul(chunk, weights, out=out[: len(chunk)])
    return out[: len(chunk)]


def copy(inputs: Inputs) -> np.ndarray:
    features, step = _chunked(inputs)
    out = np.empty((step, features.shape[1]), dtype=np.float32)
    for start in range(0, len(features), step):
        chunk = features[start : start + step]
        np.copyto(out[: len(chunk)], chunk)
    return out[: len(chunk)]


def variants(case: Case, place: Place) -> list[Variant]:
    """What runs on a host; backends that are not available here are left out.

    So is "torch", which is there for GPUs: its float64 look-ups take a hundred times as long on a host.
    """
    threads = num_processors()
    found = [
        Variant("torch.mm", PRODUCT, "roofline", threads, multiply_torch),
        Variant("numpy.matmul", PRODUCT, "roofline", threads, multiply_numpy),
        Variant("numpy.copyto", COPY, "roofline", 1, copy),
    ]
    for engine in host_engines(("cpu", "faiss", "numba")):
        found.append(Variant(engine.name, CORRECT, "ours", threads, lambda inputs, e=engine: correct(e, inputs)))
    found.append(Variant("torch chunked", CORRECT, "baseline", threads, plain_torch))
    found.append(Variant("numpy chunked", CORRECT, "baseline", threads, plain_numpy))
    return found


def checker(case: Case, inputs: Inputs) -> Any:
    """Against float64: labels, scores and margins of all rows; for the rooflines the last chunk."""
    from truth import ScoreTruth

    features, step = _chunked(inputs)
    truth = ScoreTruth(features, inputs.prototypes.folded)
    last = np.array(features[(len(features) - 1) // step * step :])  # [b, D]

    def check(variant: Variant, result: Any) -> None:
        if variant.task == COPY:
            require(np.array_equal(result, last), f"{variant.name}: another chunk than the file's last")
        elif variant.task == PRODUCT:
            _check_product(last, inputs.prototypes.folded, result)
        else:
            arrays = (np.asarray(a) for a in (result.labels, result.score, result.margin))
            truth.check(*arrays, exact=variant.role == "ours", name=variant.name)
            changed = np.asarray(result.labels) != inputs.labels
            require(np.array_equal(result.changed, changed), f"{variant.name}: changed is not labels != given")

    return check


def work(case: Case) -> Work:
    """The product's, and the bank's bytes read once; for all variants alike."""
    n, dim = case["num_samples"], case["dim"]
    return {"flops": 2.0 * n * dim * case["num_classes"], "bytes": 1.0 * itemsize(case) * n * dim}


def _chunked(inputs: Inputs) -> tuple[np.ndarray, int]:
    """The features, mapped, and the rows of a chunk."""
    features = inputs.open()
    return features, max(1, DEFAULT_CHUNK_BYTES // features.strides[0])


def _check_product(chunk: np.ndarray, folded: np.ndarray, product: np.ndarray) -> None:
    double = chunk.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", double, double))
    off = np.abs(product - double @ folded.T) / norms[:, None]
    require(off.max() <= error_bound(chunk.shape[1]), f"a product is off by {off.max():.3g}")


def cases(*sizes: tuple[int, int, int]) -> list[Case]:
    return [dict(zip(SIZES, size, strict=True)) for size in sizes]


BENCH = Bench(
    name="bench_score",
    script=Path(__file__).resolve(),
    sizes=SIZES,
    work=work,
    host=Side(
        cases=cases(
            (1_000_000, 512, 100),
            (250_000, 512, 10),
            (250_000, 512, 14),
            (250_000, 512, 1000),
            (500_000, 256, 100),
            (125_000, 2048, 100),
        ),
        quick=cases((3000, 32, 10)),
        inputs=Inputs,
        variants=variants,
        checker=checker,
        prepare=prepare,
        tiny=lambda case: {**case, "num_samples": max(_TINY, 2 * case["num_classes"])},
    ),
    gpu=score_on_gpu.SIDE,
)

if __name__ == "__main__":
    sys.exit(main(BENCH, sys.argv[1:]))
