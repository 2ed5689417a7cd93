"""Rows that try the exact backends, what the reference says about them, and one comparison of everything."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from proto_engine.backends import backends, get
from proto_engine.backends.base import Backend, Pool, condition_numpy, eta_of
from proto_engine.backends.device import SCORE_CLUSTER
from proto_engine.backends.reference import ReferenceBackend, ReferencePool

SAMPLED = 400  # rows; so many pairs that the cutoff is bracketed by a sample
TILE = 16  # so that a few dozen rows make several tiles
LONG = (255, 256, 257, 264, 511, 512, 520, 769)  # at the edges of the pinned sum's blocks of 256, up to four of them
QUANTILES = (0.0, 0.4, 0.6, 0.98, 1.0)
DTYPES: dict[str, Any] = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
}


def available(*names: str) -> list[str]:
    return [name for name in names if backends()[name] is None]


@functools.cache
def numba_compiles_nothing() -> str | None:
    """What numba says of the least of all kernels on a GPU; None where it compiles. Its CUDA target is a package of its
    own by now, whose versions do not keep step with NumPy's."""
    from numba import cuda

    try:
        cuda.jit("void(float32[::1])")(lambda x: None)
    except Exception as error:  # of any class
        return f"numba cannot compile: {type(error).__name__}: {error}"
    return None


def on_gpu() -> list[str]:
    """Backends that compute on a GPU, a name for each of their tile loops; none where there is no GPU."""
    names = [name for name in available("numba-cuda") if numba_compiles_nothing() is None]
    for name in available("cuda", "cupy"):
        names += [f"{name}:{loop}" for loop in get(name)._available_loops(0)]  # type: ignore[attr-defined]
    return names


def clusters_on_gpu() -> list[str]:
    """The scores of clusters of blocks, where there are clusters."""
    can = [name for name in available("cuda") if get(name)._clusters_can_score(0)]  # type: ignore[attr-defined]
    return [f"{name}:{SCORE_CLUSTER}" for name in can]


def gpu_params(names: list[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.gpu) for name in names]


ON_GPU = gpu_params(on_gpu())
EXACT = [*available("cpu", "numba", "torch"), *ON_GPU]
SCORING = [*available("cpu", "numba", "torch", "faiss"), *ON_GPU, *gpu_params(clusters_on_gpu())]
REFERENCE = ReferenceBackend()


class Engine:
    """A backend that takes NumPy rows whatever it is made for, with a number of threads and a tile.

    "cuda:mma" is the backend "cuda" with one of its tile loops, whose tiles have one size.
    """

    native_cuda: Any = None  # in the place of the compiled module

    def __init__(self, name: str, threads: int = 1, tile: int | None = TILE) -> None:
        self.name, self.threads = name, threads
        self.backend: Backend
        if name == "cpu":
            from proto_engine.backends.cpu import CpuBackend

            self.backend = CpuBackend(threads, tile)
        elif name == "numba":
            from proto_engine.backends.numba import NumbaBackend

            self.backend = NumbaBackend(threads, tile)
        elif name == "torch":
            from proto_engine.backends.torch import TorchBackend

            self.backend = TorchBackend(tile)
        elif name == "numba-cuda":
            from proto_engine.backends.numba_cuda import NumbaCudaBackend

            self.backend = NumbaCudaBackend(tile)
        elif name.startswith("cuda:"):
            from proto_engine.backends.cuda import CudaBackend

            loop, clusters = name.removeprefix("cuda:"), name == f"cuda:{SCORE_CLUSTER}"
            self.backend = CudaBackend(None if clusters else loop, self.native_cuda, clusters=clusters)
        elif name.startswith("cupy:"):
            from proto_engine.backends.cupy import CupyBackend

            self.backend = CupyBackend(name.removeprefix("cupy:"))
        else:
            from proto_engine.backends.faiss import FaissBackend

            self.backend = FaissBackend()

    def rows(self, x: np.ndarray) -> Any:
        if self.name != "torch":
            return self.backend.native(x)
        from proto_engine.backends.torch import condition, to_tensor

        return condition(to_tensor(x))

    def squares(self, x: np.ndarray) -> np.ndarray:
        with self.running():
            return self.backend.squared_norms(self.rows(x))

    def pool(self, x: np.ndarray) -> Any:
        return self.backend.pool(self.rows(x), self.squares(x))

    def score(self, x: np.ndarray, folded: np.ndarray) -> np.ndarray:
        with self.running():
            return np.asarray(self.backend.score(self.rows(x), folded))

    def top2(self, x: np.ndarray, folded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with self.running():
            return self.backend.top2(self.rows(x), folded)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """torch and faiss have their number of threads for themselves."""
        if self.name != "torch":
            yield
            return
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def reference_pool(x: np.ndarray) -> ReferencePool:
    rows = condition_numpy(x)
    return ReferencePool(rows, REFERENCE.squared_norms(rows))


# ---- rows --------------------------------------------------------------------------------------------


def _normal(rng: np.random.Generator, m: int, dim: int) -> np.ndarray:
    return rng.standard_normal((m, dim)) + 0.2


def _duplicates(rng: np.random.Generator, m: int, dim: int) -> np.ndarray:
    return _normal(rng, m, dim)[rng.integers(0, max(1, m // 3), m)]


def _equal(rng: np.random.Generator, m: int, dim: int) -> np.ndarray:
    return np.repeat(_normal(rng, 1, dim), m, axis=0)


def _binary(rng: np.random.Generator, m: int, dim: int) -> np.ndarray:
    x = (rng.random((m, dim)) < 0.4).astype(float)
    x[:, 0] = 1.0
    return x


def _close(rng: np.random.Generator, m: int, dim: int) -> np.ndarray:
    """Groups whose similarities differ by less than float32 can tell."""
    return _duplicates(rng, m, dim) * (1.0 + 1e-7 * rng.standard_normal((m, dim)))


def _signs(rng: np.random.Generator, m: int, dim: int) -> np.ndarray:
    """S is +1 or -1 everywhere."""
    return rng.choice([-3.0, -1.0, 0.5, 2.0], (m, 1)) * np.ones((1, dim))


KINDS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "normal": _normal,
    "duplicates": _duplicates,
    "equal": _equal,
    "binary": _binary,
    "close": _close,
    "signs": _signs,
}


@functools.cache
def case(kind: str, m: int, dim: int, dtype: str = "float32") -> tuple[np.ndarray, ReferencePool]:
    """Rows of a kind and their reference pool; made once, not to be written to."""
    x = KINDS[kind](np.random.default_rng([m, dim]), m, dim).astype(DTYPES[dtype])
    x.flags.writeable = False
    return x, reference_pool(x)


def class_vectors(rng: np.random.Generator, num_classes: int, dim: int) -> np.ndarray:
    """Means of three unit vectors a class; some classes are equal, some differ by less than float32 tells."""
    vectors = rng.standard_normal((num_classes, 3, dim))
    folded = (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).mean(axis=1)
    folded[num_classes // 2] = folded[0]
    folded[-1] = folded[num_classes // 3] * (1 + 1e-12)
    return folded


# ---- comparisons -------------------------------------------------------------------------------------


def assert_same_bits(found: Any, wanted: Any) -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


def assert_same_density(found: tuple[float, np.ndarray], wanted: tuple[float, np.ndarray]) -> None:
    assert found[0] == wanted[0]
    assert_same_bits(found[1], wanted[1])


def assert_same_pool(engine: Engine, x: np.ndarray, reference: Pool, quantiles: tuple[float, ...] = QUANTILES) -> None:
    """Squares, cutoffs, densities and eta of all rows have the bits of the reference."""
    assert_same_bits(engine.squares(x), REFERENCE.squared_norms(condition_numpy(x)))
    pool = engine.pool(x)
    everyone = np.arange(pool.m)
    with engine.running():
        for quantile in quantiles:
            cutoff, rho = reference.density(quantile)
            assert_same_density(pool.density(quantile), (cutoff, rho))
            assert_same_bits(pool.density_at(cutoff), rho)
            assert_same_bits(eta_of(pool, rho, everyone), eta_of(reference, rho, everyone))


def assert_same_sums(engine: Engine, x: np.ndarray, reference: ReferencePool) -> None:
    """Squares, and S of every pair of rows: the pinned sums themselves."""
    assert_same_bits(engine.squares(x), REFERENCE.squared_norms(condition_numpy(x)))
    first, second = np.triu_indices(len(x), 1)
    pool = engine.pool(x)
    with engine.running():
        assert_same_bits(pool.pair_similarity(first, second), reference.s[first, second])


def assert_same_top2(engine: Engine, x: np.ndarray, folded: np.ndarray) -> None:
    wanted = REFERENCE.top2(condition_numpy(x), folded)
    for found, right in zip(engine.top2(x, folded), wanted, strict=True):
        assert_same_bits(found, right)
