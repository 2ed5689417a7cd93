"""What the benchmarks of one class share: features, sizes, our variants, and the checks of selections."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from checks import QUANTILE, Selected
from engines import Engine, fits, gpu_engines
from inputs import class_means, relu_bank, relu_rows
from parts import Case, Variant, Work
from products import chunk_rows

import proto_engine as pe
from proto_engine.array_kinds import to_numpy

if TYPE_CHECKING:
    from places import Place
    from truth import SelectionTruth

SIZES = ("m", "dim")
DIMS = (256, 512, 1024, 2048)
HALF, DTYPES = "float16", ("float16", "bfloat16", "float32")
HOST_ROWS = 16384  # up to here our CPU engine is the reference for a GPU's results


class OneClass:
    """One class of features, and room for what the rooflines write."""

    def __init__(self, case: Case, folder: Path, place: Place) -> None:
        m, dim = case["m"], case["dim"]
        self.labels = np.zeros(m, dtype=np.int64)
        if place.name == "cpu":
            rng = np.random.default_rng(0)
            self.x: Any = relu_rows(rng, class_means(rng, 1, dim), self.labels)  # [m, D]
        else:
            self.x = relu_bank(self.labels, dim, case["dtype"], place.device)

    @cached_property
    def s(self) -> Any:
        """[m, m]; memory of the first product that asks for it."""
        return self._like(len(self.x), len(self.x))

    @cached_property
    def chunk(self) -> Any:
        """[b, m]; of a product that does not fit as a whole."""
        m = len(self.x)
        return self._like(chunk_rows(m, self.x.element_size()), m)

    @cached_property
    def copy(self) -> Any:
        """[m, D]"""
        return self._like(*self.x.shape)

    @cached_property
    def rho(self) -> np.ndarray:
        """Densities for those who are given them: every other one a tie.   [m] int64"""
        m = len(self.x)
        return np.random.default_rng(1).permutation(m) // 2 * 2 - m // 2

    @cached_property
    def tensor(self) -> Any:
        """The features as a torch tensor, over the same memory."""
        import torch

        return self.x if isinstance(self.x, torch.Tensor) else torch.from_numpy(self.x)

    @cached_property
    def rho_tensor(self) -> Any:
        import torch

        return torch.from_numpy(self.rho).to(self.tensor.device)

    def _like(self, *shape: int) -> Any:
        return np.empty(shape, dtype=self.x.dtype) if isinstance(self.x, np.ndarray) else self.x.new_empty(shape)


def gpu_cases(rows: Iterable[int], *, all_dtypes_to: int) -> list[Case]:
    """Every number of rows at every dimension, in float16; the smaller ones in the other dtypes as well."""
    return [
        {"m": m, "dim": dim, "dtype": dtype}
        for m in rows
        for dim in DIMS
        for dtype in DTYPES
        if m <= all_dtypes_to or (dtype == HALF and (m < 10**6 or dim <= 1024))
    ]


def cases(*sizes: tuple[int, ...], dtype: str | None = None) -> list[Case]:
    """Cases of m and D."""
    return [{"m": m, "dim": dim} | ({"dtype": dtype} if dtype else {}) for m, dim in sizes]


def product_work(case: Case) -> Work:
    """Of the whole product X X^T, for all variants alike, whatever they do in fact."""
    return {"flops": 2.0 * case["m"] ** 2 * case["dim"], "bytes": None}


def ours_on_gpu(case: Case, place: Place, task: str, run: Callable[[Engine, Any], Any], **more: Any) -> list[Variant]:
    """A variant for each of our backends that takes features on this device and a class of this size."""
    found = []
    for engine in gpu_engines(place.device):
        if engine.backend != "faiss" and fits(engine, case["m"]):
            call = partial(run, engine)
            found.append(Variant(engine.name, task, "ours", 1, call, meter=engine.meter, **more))
    return found


def density(engine: Engine, inputs: OneClass) -> pe.DensityPeaks:
    return engine.call(pe.density_peaks, inputs.x, cutoff_quantile=QUANTILE, full_eta=False)


class SelectionCheck:
    """Holds results against a cutoff and densities that float64 confirms.

    Where our CPU engine can do the class in seconds, its result is the one confirmed, and all of ours must be
    the same bits. Larger ones on a GPU start from the first result of ours that float64 confirms.
    """

    def __init__(self, x: Any) -> None:
        self._x = x
        self._truth: SelectionTruth | None = None
        if isinstance(x, np.ndarray) or len(x) <= HOST_ROWS:
            host = to_numpy(x)
            claim = pe.density_peaks(host, cutoff_quantile=QUANTILE, full_eta=False)
            self._confirm(Selected(claim.cutoff, claim.rho))

    @property
    def truth(self) -> SelectionTruth:
        """Without a result of ours, from the chunked baseline in float64."""
        if self._truth is None:
            from baselines import torch_chunked

            self._confirm(torch_chunked(self._x.double(), pick=False))
        assert self._truth is not None
        return self._truth

    def ours(self, found: Selected, name: str, densities: Callable[[], Selected] | None = None) -> None:
        """Raise `CheckFailed` unless the result is right, bit for bit.

        ``densities`` computes all densities of a class so large that float64 confirms a sample of them.
        """
        from truth import ALL_ROWS

        if self._truth is None:
            whole = densities is not None and found.rho is None and len(self._x) > ALL_ROWS
            self._confirm(densities() if whole and densities else found)
        self.truth.same(found, name)

    def baseline(self, found: Selected, name: str) -> None:
        """Raise `CheckFailed` where float32 rounding cannot explain the result."""
        self.truth.close(found, name)

    def _confirm(self, claim: Selected) -> None:
        from truth import SelectionTruth

        self._truth = SelectionTruth(self._x, claim)


def engine_named(name: str, x: Any) -> Engine:
    """The engine of a variant on a GPU."""
    return next(engine for engine in gpu_engines(x.device) if engine.name == name)


def densities_of(name: str, x: Any) -> Callable[[], Selected]:
    """All densities by the backend of a variant, as a claim."""

    def compute() -> Selected:

        found = engine_named(name, x).call(pe.density_peaks, x, cutoff_quantile=QUANTILE, full_eta=False)
        return Selected(float(found.cutoff), to_numpy(found.rho))

    return compute
