"""The CUDA build: what it holds, how it fails without a GPU, and (gpu) that it gives the CPU's bits at any size."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from exact_cases import DTYPES, assert_same_bits, assert_same_density
from problems import clustered, has_gpu, select

import proto_engine as pe
from proto_engine.backends import get
from proto_engine.backends.base import condition_numpy, eta_of
from proto_engine.backends.cuda import CudaBackend, loops_of, unavailable_reason
from proto_engine.bank import FeatureBank
from proto_engine.peaks import pick_density_peaks

_core = pytest.importorskip("proto_engine._core", reason="the native module was not built")
compiled = pytest.mark.skipif(_core.cuda_architectures is None, reason="built without CUDA")
LOOPS = ("simt", "mma", "wgmma", "wgmma-cluster")
on_every_loop = pytest.mark.parametrize("loop", [pytest.param(loop, id=f"cuda:{loop}") for loop in LOOPS])


@compiled
@pytest.mark.skipif(has_gpu(), reason="a build for the GPU that is there holds its kernels alone")
@pytest.mark.skipif("PROTO_ENGINE_CUDA_ARCHS" in os.environ, reason="a build for GPUs of somebody's choice")
def test_kernels_are_compiled_for_ampere_and_hopper():
    assert {"80-real", "90a-real"} <= set(_core.cuda_architectures.split())


@compiled
@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_launch_without_a_gpu_is_an_error_not_a_crash():
    with pytest.raises(RuntimeError, match=r"^fill: "):
        _core.cuda.fill(0, 0, 1, 0)


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_cuda_backend_says_why_it_is_unavailable():
    reason = pe.backends()["cuda"]
    assert reason is not None and reason == unavailable_reason()
    assert "no GPU can be used" in reason if _core.cuda_architectures else "without CUDA" in reason
    with pytest.raises(pe.BackendUnavailable, match="backend 'cuda' is unavailable: "):
        pe.density_peaks(np.eye(3), backend="cuda")


# ---- on a GPU ------------------------------------------------------------------------------------------


@pytest.fixture
def backend(loop: str) -> CudaBackend:
    reason = unavailable_reason()
    if reason is not None:
        pytest.fail(f"there is a GPU, but {reason}")
    backend = CudaBackend(loop)
    capability = backend.compute_capability(0)
    if loop not in loops_of(capability):
        pytest.skip(f"{loop} does not run on compute capability {capability}")
    return backend


def rows(m: int, dim: int, dtype: str = "float16", seed: int = 0) -> np.ndarray:
    return clustered(m, dim, 5, seed)[0].astype(DTYPES[dtype])


def pool_on(backend: Any, x: np.ndarray) -> Any:
    native = backend.native(condition_numpy(x))
    return backend.pool(native, backend.squared_norms(native))


@functools.cache
def by_cpu(m: int, dim: int, dtype: str, quantile: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Cutoff, densities, and eta of some rows."""
    pool = pool_on(get("cpu"), rows(m, dim, dtype))
    cutoff, rho = pool.density(quantile)
    return cutoff, rho, eta_of(pool, rho, some_of(m))


def some_of(m: int) -> np.ndarray:
    return np.unique(np.linspace(0, m - 1, 300).astype(np.int64))


def assert_same_as_cpu(backend: CudaBackend, m: int, dim: int, dtype: str, *quantiles: float) -> None:
    pool = pool_on(backend, rows(m, dim, dtype))
    for quantile in quantiles:
        cutoff, rho, eta = by_cpu(m, dim, dtype, quantile)
        assert_same_density(pool.density(quantile), (cutoff, rho))
        assert_same_bits(eta_of(pool, rho, some_of(m)), eta)
    assert_same_bits(pool.density_at(cutoff), rho)


@pytest.mark.gpu
def test_self_check_passes_on_this_gpu():
    found = {name: reason for name, reason in pe.self_check().items() if name.startswith("cuda/")}
    assert None in found.values()
    assert {name: reason for name, reason in found.items() if reason and not reason.startswith("unavailable: ")} == {}


@pytest.mark.gpu
@on_every_loop
@pytest.mark.parametrize("m", [1, 2, 127, 128, 129, 255, 256, 257, 387, 513, 641])
def test_sizes_beside_the_edges_of_tiles(backend, m):
    for dim, dtype in ((64, "float16"), (72, "bfloat16"), (37, "float32"), (256, "float16")):
        assert_same_as_cpu(backend, m, dim, dtype, 0.0, 0.6, 1.0)


@pytest.mark.gpu
@on_every_loop
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 8, 100, 128, 136, 520, 1024, 2048])
def test_dimensions_of_every_dtype(backend, dim, dtype):
    assert_same_as_cpu(backend, 700, dim, dtype, 0.6)


@pytest.mark.gpu
@on_every_loop
@pytest.mark.parametrize("m", [4096, 4097, 9000, 20000])
def test_large_classes(backend, m):
    """Above 4,096 rows a second sample and measured room; 20,000 rows make 12,403 tiles."""
    assert_same_as_cpu(backend, m, 256, "float16", 0.6)
    if m == 9000:
        assert_same_as_cpu(backend, m, 72, "float32", 0.02, 0.98)


@pytest.mark.gpu
@on_every_loop
def test_ties_of_many_rows_take_the_bounded_way(backend):
    """Binary rows: more pairs equal the cutoff than any list holds."""
    x = (np.random.default_rng(0).random((6000, 24)) < 0.5).astype(np.float16)
    x[:, 0] = 1
    wanted = pool_on(get("cpu"), x).density(0.6)
    assert_same_density(pool_on(backend, x).density(0.6), wanted)


@pytest.mark.gpu
@on_every_loop
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_picks_of_many_ragged_classes(backend, dtype):
    rng = np.random.default_rng(1)
    sizes = [1, 2, 1280, 127, 640, 5000, 129, 1280, 3, 700]
    x = rows(sum(sizes), 200, dtype)
    pools = np.split(rng.permutation(len(x)), np.cumsum(sizes)[:-1])
    may_pick = rng.random(len(x)) < 0.8
    cpu = get("cpu")
    squares = cpu.squared_norms(x)
    for eta_max, allowed in ((0.95, None), (0.6, may_pick), (-0.5, None)):  # the last turns nearly all rows down
        found = backend.pick_classes(FeatureBank(x), squares, pools, 8, 0.6, eta_max, allowed)
        for pool, picks in zip(pools, found, strict=True):
            if picks is None:
                continue
            may = np.ones(len(pool), bool) if allowed is None else allowed[pool]
            wanted = pick_density_peaks(cpu.pool(x[pool], squares[pool]), 8, 0.6, eta_max, may)
            for field in dataclasses.fields(picks):
                assert_same_bits(getattr(picks, field.name), getattr(wanted, field.name))
        assert eta_max < 0.95 or all(picks is not None for picks in found)


@pytest.mark.gpu
@on_every_loop
def test_repeated_runs_have_the_same_bits(backend):
    pool = pool_on(backend, rows(3000, 512))
    first = pool.density(0.6)
    for _ in range(5):
        assert_same_density(pool.density(0.6), first)


@pytest.mark.gpu
@on_every_loop
def test_threads_do_not_disturb_each_other(backend):
    x = rows(2000, 128)
    wanted = pool_on(get("cpu"), x).density(0.6)
    found: list[tuple[float, np.ndarray]] = []
    callers = [threading.Thread(target=lambda: found.append(pool_on(backend, x).density(0.6))) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 8
    for result in found:
        assert_same_density(result, wanted)


KINDS_OF_ARRAY = ("numpy", "torch", "torch on a side stream", "torch view", "cupy")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS_OF_ARRAY)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_public_functions_give_the_same_on_cpu_and_cuda(kind, dtype):
    x, labels = clustered(4000, 96, 7, noise=0.3)
    x = x.astype(dtype)
    wanted = select(x, labels, backend="cpu")
    corrected = pe.correct_labels(x, labels, wanted, backend="cpu")
    with on_device(x, kind) as array:
        found = select(array, labels, backend="cuda")
        again = pe.correct_labels(array, labels, wanted if kind == "numpy" else found, backend="cuda")
    for name in ("indices", "counts", "cutoff", "rho", "eta", "filtered", "vectors", "folded"):
        assert_same_bits(to_host(getattr(found, name)), getattr(wanted, name))
    for name in ("labels", "score", "margin", "changed"):
        assert_same_bits(to_host(getattr(again, name)), getattr(corrected, name))


def to_host(array: Any) -> np.ndarray:
    if hasattr(array, "cpu"):
        return array.cpu().numpy()
    return array.get() if hasattr(array, "get") else np.asarray(array)


@contextlib.contextmanager
def on_device(x: np.ndarray, kind: str) -> Iterator[Any]:
    """Rows as an array of that kind; inside, the stream that they were made on is the current one."""
    if kind == "numpy":
        yield x
        return
    if kind == "cupy":
        yield pytest.importorskip("cupy").asarray(x)
        return
    import torch

    with torch.cuda.stream(torch.cuda.Stream() if "stream" in kind else None):
        array = torch.from_numpy(x).cuda()
        if "view" in kind:
            wide = torch.zeros(len(array), array.shape[1] + 24, dtype=array.dtype, device="cuda")
            wide[:, 8:-16] = array
            array = wide[:, 8:-16]
        yield array


@pytest.mark.gpu
def test_more_than_the_memory_of_the_card_is_an_error_of_its_own():
    backend = CudaBackend()
    free = backend.gpu(0, 0).free_bytes()
    with pytest.raises(MemoryError, match="device memory: "):
        backend.gpu(0, 0).empty(4 * free)
    assert_same_as_cpu(backend, 300, 64, "float16", 0.6)  # and the device goes on
