"""The numba.cuda backend: the same checks in numba's simulator, in a process of its own, and on a GPU.

numba reads NUMBA_ENABLE_CUDASIM when it is imported, so this file is also a program: started with the variable set
it runs all checks with small tiles and prints what became of each. The simulator starts a Python thread for each
CUDA thread, so everything is tiny there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
import traceback
import types
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
from exact_cases import (
    DTYPES,
    KINDS,
    REFERENCE,
    SAMPLED,
    Engine,
    assert_same_bits,
    assert_same_density,
    assert_same_pool,
    assert_same_sums,
    assert_same_top2,
    case,
    class_vectors,
    numba_compiles_nothing,
    reference_pool,
)
from problems import has_gpu

numba = pytest.importorskip("numba")
from numba import cuda  # noqa: E402

from proto_engine.backends import exact  # noqa: E402
from proto_engine.backends import numba_cuda as backend_module  # noqa: E402
from proto_engine.backends import numba_cuda_kernels as kernels  # noqa: E402
from proto_engine.backends.base import density_order, error_bound, eta_of  # noqa: E402
from proto_engine.backends.numba_cuda import NumbaCudaBackend, unavailable_reason  # noqa: E402
from proto_engine.errors import BackendUnavailable  # noqa: E402

SMALL_TILE = 4  # for the simulator


class NumbaCudaEngine(Engine):
    """`Engine` for this backend; slabs of 2 x 2 tiles, so that few rows make several."""

    def __init__(self, tile: int | None) -> None:
        self.name, self.threads = "numba-cuda", 1
        with mock.patch.object(backend_module, "_SLAB", 2):
            self.backend = NumbaCudaBackend(tile)


# ---- checks, for the simulator and for a GPU -----------------------------------------------------------


def check_every_kind_of_rows(tile: int) -> None:
    for kind in KINDS:
        for m, dim, quantiles in (
            (1, 8, (0.6,)),
            (tile - 1, 9, (0.0, 0.6, 1.0)),
            (tile, 16, (0.6,)),
            (tile + 1, 23, (0.4,)),
            (4 * tile + 3, 6, (0.6,)),
        ):
            assert_same_pool(NumbaCudaEngine(tile), *case(kind, m, dim), quantiles)


def check_every_dtype(tile: int) -> None:
    for dtype in DTYPES:
        for kind, dim in (("close", 5), ("normal", 2 * tile + 1)):
            assert_same_pool(NumbaCudaEngine(tile), *case(kind, tile + 2, dim, dtype), (0.6,))


def check_blocks_of_the_sums(tile: int) -> None:
    engine = NumbaCudaEngine(tile)
    for dim in (255, 256, 257, 264, 769):
        assert_same_sums(engine, *case("normal", 3, dim, "float64"))
    x, reference = case("normal", 3, 520)
    assert_same_pool(engine, x, reference, (0.6,))
    assert_same_top2(engine, x, class_vectors(np.random.default_rng(0), 2, 520))


def check_extreme_float64(tile: int) -> None:
    for size in (1e300, 1e-300, 1e75):
        x = case("normal", tile + 1, 5, "float64")[0] * size
        x[::2] /= size
        assert_same_pool(NumbaCudaEngine(tile), x, reference_pool(x), (0.6,))


def check_rows_of_any_layout(tile: int) -> None:
    big = case("normal", tile + 2, 12, "bfloat16")[0]
    wide = case("normal", tile + 2, 12, "float64")[0]
    unaligned = np.zeros(wide.nbytes + 1, np.uint8)[1:].view(wide.dtype).reshape(wide.shape)
    unaligned[:] = wide
    for x in (big[::2], big[:, ::-1], wide[:, ::2], wide.T, wide[1:2], wide[::5][:1], unaligned):
        assert_same_pool(NumbaCudaEngine(tile), x, reference_pool(np.ascontiguousarray(x)), (0.6,))


def check_products_are_rounded_before_they_are_added(tile: int) -> None:
    """A fused multiply-add would leave 2**-60 of the square of 1 + 2**-30 = 1 + 2**-29 + 2**-60."""
    x = np.zeros((2, 16))
    x[0, [0, 8]] = -(1 + 2.0**-29), 1 + 2.0**-30  # lane 0 meets both
    x[1, [0, 8]] = 1.0, 1 + 2.0**-30
    assert NumbaCudaEngine(tile).pool(x).pair_similarity(np.array([0]), np.array([1])) == 0.0


def check_brackets_that_miss_and_ties_that_do_not_fit(tile: int) -> None:
    for kind in ("normal", "binary"):
        x, reference = case(kind, 2 * tile + 3, 6)
        pool = NumbaCudaEngine(tile).pool(x)
        wanted = reference.density(0.6)
        near = wanted[0]
        for bracket, capacity in (((near - 0.3, near - 0.2), None), ((5.0, 6.0), None), (None, 1), ((-0.5, 0.1), 3)):
            assert_same_density(exact.cutoff_and_density(pool, 0.6, bracket=bracket, capacity=capacity), wanted)


def check_count_bracket_counts_all(tile: int) -> None:
    m = 3 * tile + 1
    pool = NumbaCudaEngine(tile).pool(case("normal", m, 12)[0])
    i, j = np.triu_indices(m, 1)
    s32 = pool.similarity()
    assert_same_bits(s32, s32.T)
    assert (np.diag(s32) == 1).all() and np.abs(s32 - case("normal", m, 12)[1].s).max() <= error_bound(12)
    lo, hi = map(float, np.sort(s32[i, j])[[len(i) // 3, len(i) // 2]])  # both ends are entries
    wanted = {(a, b): s32[a, b] for a, b in zip(i, j, strict=True) if lo <= s32[a, b] <= hi}
    for capacity in (len(wanted), len(wanted) - 1, 0):
        inside = pool.count_bracket(lo, hi, capacity)
        assert_same_bits(inside.above, (s32 > np.float32(hi)).sum(axis=1) - 1)  # less the diagonal
        assert inside.num_inside == len(wanted)
        assert (inside.row.dtype, inside.column.dtype, inside.s32.dtype) == (np.int32, np.int32, np.float32)
        found = dict(zip(zip(inside.row, inside.column, strict=True), inside.s32, strict=True))
        assert found == wanted if capacity == len(wanted) else len(found) <= capacity


def check_histogram_places_every_pair(tile: int) -> None:
    x, reference = case("close", 2 * tile + 3, 12)
    pool, bins = NumbaCudaEngine(tile).pool(x), 7
    pairs = np.sort(reference.s[np.triu_indices(len(x), 1)])
    near = pairs[pairs > 0.999999]  # spread less than float32 can tell
    for lo, hi in ((pairs[len(pairs) // 5], near[0]), (near[len(near) // 4], near[-2])):
        below, count, least, most = pool.histogram(float(lo), float(hi), bins)
        inside = pairs[(pairs >= lo) & (pairs <= hi)]
        place = np.minimum(((inside - lo) / (hi - lo) * bins).astype(int), bins - 1)
        assert below == (pairs < lo).sum()
        assert_same_bits(count, np.bincount(place, minlength=bins))
        for b in range(bins):
            values = inside[place == b]
            assert (least[b], most[b]) == ((values.min(), values.max()) if len(values) else (np.inf, -np.inf))


def check_density_at_any_cutoff(tile: int) -> None:
    x, reference = case("close", 2 * tile + 1, 9)
    pool = NumbaCudaEngine(tile).pool(x)
    entry = float(reference.s[0, tile])
    for cutoff in (entry, float(np.nextafter(entry, 2.0)), 1.0, -7.5, 1e300):
        assert_same_bits(pool.density_at(cutoff), reference.density_at(cutoff))


def check_eta_of_chosen_rows(tile: int) -> None:
    x, reference = case("binary", 2 * tile + 3, 12)
    pool = NumbaCudaEngine(tile).pool(x)
    rho = reference.density(0.6)[1]
    order = density_order(rho)
    everything = eta_of(reference, rho, np.arange(pool.m))
    order.flags.writeable = False
    for rows in (order[:3], np.array([5, 0, 5, tile]), order[:0]):
        assert_same_bits(eta_of(pool, rho, rows, order), everything[rows])


def check_labels_and_scores(tile: int) -> None:
    engine = NumbaCudaEngine(tile)
    rng = np.random.default_rng(0)
    for dtype, num_classes in zip(DTYPES.values(), (1, 2, tile + 1, 7), strict=True):
        folded = class_vectors(rng, num_classes, 2 * tile + 1)
        folded.flags.writeable = False
        x = rng.standard_normal((3 * tile + 2, folded.shape[1]))
        x[::2] = rng.choice([-2.0, 0.5, 4.0], (len(x[::2]), 1)) * folded[rng.integers(0, num_classes, len(x[::2]))]
        x = x.astype(dtype)
        assert_same_top2(engine, x, folded)
        sigma = engine.score(x, folded)
        assert sigma.dtype == np.float32 and sigma.shape == (len(x), num_classes)
        assert np.abs(sigma - REFERENCE.score(x, folded)).max() <= error_bound(x.shape[1])
        squares = engine.squares(x)
        unit = engine.backend.normalize(x, squares)
        assert unit.dtype == np.float32
        np.testing.assert_allclose(unit, REFERENCE.normalize(x, squares), rtol=2.0**-23, atol=0)


def check_rows_without_a_direction(tile: int) -> None:
    rng = np.random.default_rng(0)
    folded = class_vectors(rng, 5, 11)
    for dtype, values in (("float32", (0.0, np.nan, np.inf)), ("float64", (-0.0, np.nan, -np.inf))):
        x = rng.standard_normal((2 * tile, 11)).astype(dtype)
        x[: len(values)], x[: len(values), 7] = 0.0, values
        assert_same_top2(NumbaCudaEngine(tile), x, folded)
        assert_same_top2(NumbaCudaEngine(tile), x[:3], folded)
        assert_same_bits(np.isnan(NumbaCudaEngine(tile).score(x, folded)).all(axis=1), np.arange(len(x)) < 3)


def check_rows_and_pairs_go_piece_by_piece(tile: int) -> None:
    x, reference = case("normal", 2 * tile + 3, 6, "float64")
    folded = class_vectors(np.random.default_rng(0), 3, 6)
    with mock.patch.multiple(backend_module, _PAIRS=tile + 1, _BLOCK_ROWS=tile - 1):
        engine = NumbaCudaEngine(tile)
        assert_same_bits(engine.squares(x), REFERENCE.squared_norms(x))
        assert_same_top2(engine, x, folded)
        first, second = np.arange(len(x)), np.arange(len(x))[::-1]
        assert_same_bits(engine.pool(x).pair_similarity(first, second), reference.s[first, second])


CHECKS: dict[str, Callable[[int], None]] = {
    name.removeprefix("check_"): function for name, function in globals().copy().items() if name.startswith("check_")
}


# ---- in the simulator --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated() -> dict[str, dict[str, Any]]:
    """What became of each check in the simulator."""
    command = [sys.executable, __file__]
    if "coverage" in sys.modules and sys.modules["coverage"].Coverage.current() is not None:
        command[1:1] = ["-m", "coverage", "run", "--parallel-mode", "--source=proto_engine"]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return {result["check"]: result for result in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", CHECKS)
def test_simulator_has_the_reference_bits(name, simulated):
    assert simulated[name]["error"] is None, simulated[name]["error"]


def test_backend_is_available_in_the_simulator(simulated):
    assert simulated["reason"]["error"] is None


def run_in_simulator() -> None:
    # The simulator waits by polling; threads then need not wait for each other's turn to end.
    sys.setswitchinterval(1e-4)
    print(json.dumps({"check": "reason", "error": unavailable_reason()}))
    for name, check in CHECKS.items():
        start, error = time.perf_counter(), None
        try:
            check(SMALL_TILE)
        except Exception:
            error = traceback.format_exc()
        print(json.dumps({"check": name, "error": error, "seconds": round(time.perf_counter() - start, 2)}))


# ---- on a GPU ----------------------------------------------------------------------------------------


@pytest.fixture
def usable_gpu() -> None:
    reason = unavailable_reason() or numba_compiles_nothing()
    if reason is not None:  # torch sees a GPU, but numba cannot compile for it
        pytest.skip(reason)


@pytest.mark.gpu
@pytest.mark.parametrize("tile", [16, 32])
@pytest.mark.parametrize("name", CHECKS)
def test_gpu_has_the_reference_bits(name, tile, usable_gpu):
    CHECKS[name](tile)


@pytest.mark.gpu
@pytest.mark.filterwarnings("error:Grid size")
@pytest.mark.parametrize("kind", ["normal", "binary", "close"])
def test_gpu_has_the_reference_bits_for_many_rows(kind, usable_gpu):
    """Sampled brackets, ties that do not fit, several slabs of the size that is used."""
    engine = NumbaCudaEngine(None)
    engine.backend = NumbaCudaBackend()
    for m, dim in ((SAMPLED, 12), (1500, 6)):
        assert_same_pool(engine, *case(kind, m, dim), (0.6,))


@pytest.mark.gpu
def test_gpu_serves_several_threads_at_once(usable_gpu):
    x, reference = case("normal", SAMPLED, 20)
    pool = NumbaCudaEngine(16).pool(x)
    found: list[tuple[float, np.ndarray]] = []
    callers = [threading.Thread(target=lambda: found.append(pool.density(0.6))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 4
    for result in found:
        assert_same_density(result, reference.density(0.6))


# ---- without a GPU -----------------------------------------------------------------------------------


def test_reason_without_numba(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    spec = importlib.util.spec_from_file_location("proto_engine.backends.numba_cuda_again", backend_module.__file__)
    assert spec is not None and spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert "numba with its CUDA target cannot be imported" in again.unavailable_reason()


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_reason_without_a_gpu():
    assert "no CUDA driver or no GPU" in str(unavailable_reason())


def test_reason_names_what_is_missing(monkeypatch):
    def no_runtime() -> tuple[int, int]:
        raise OSError("libcudart.so: cannot open")

    def with_parts(available: bool, error: str | None, runtime: Callable[[], tuple[int, int]]) -> str | None:
        parts = types.SimpleNamespace(
            is_available=lambda: available,
            cuda_error=lambda: error,
            runtime=types.SimpleNamespace(get_version=runtime),
        )
        monkeypatch.setattr(backend_module, "cuda", parts)
        return unavailable_reason()

    assert with_parts(True, None, lambda: (12, 8)) is None
    assert "no CUDA driver or no GPU: no device" in str(with_parts(False, "no\n  device", lambda: (12, 8)))
    assert "libNVVM" in str(with_parts(False, None, lambda: (12, 8)))
    assert "libcudart.so: cannot open" in str(with_parts(True, None, no_runtime))


def test_full_memory_makes_the_backend_unavailable(monkeypatch):
    def full(*arguments: object) -> None:
        raise cuda.cudadrv.driver.CudaAPIError(2, "Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")

    def broken(*arguments: object) -> None:
        raise cuda.cudadrv.driver.CudaAPIError(700, "CUDA_ERROR_ILLEGAL_ADDRESS")

    monkeypatch.setattr(cuda, "to_device", full)
    x = case("normal", 5, 3)[0]
    with pytest.raises(BackendUnavailable, match="no room on the GPU for 5 rows of dimension 3"):
        NumbaCudaBackend().pool(x, np.ones(5))
    monkeypatch.setattr(cuda, "to_device", broken)
    with pytest.raises(cuda.cudadrv.driver.CudaAPIError, match="ILLEGAL"):
        NumbaCudaBackend().pool(x, np.ones(5))


def test_tile_is_no_larger_than_a_block_can_be():
    assert NumbaCudaBackend(97)._launcher.tile == 32


def test_small_grids_do_not_warn_and_numbas_setting_comes_back():
    with warnings.catch_warnings(), backend_module._quiet.held():
        warnings.simplefilter("error")
        assert kernels.dot_pairs[1, 16] is not None
    with pytest.warns(match="Grid size 2"):
        assert kernels.dot_pairs[2, 16] is not None


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_kernels_compile_and_fuse_nothing_in_float64(capability, monkeypatch):
    if not cuda.cudadrv.nvvm.is_available():
        pytest.skip("numba finds no libNVVM")
    device = types.SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: device)
    f, d, i, n = numba.float32, numba.float64, numba.int32, numba.int64
    try:
        cuda.compile_ptx(lambda x: None, (f[::1],), cc=capability)
    except AttributeError as error:  # a CUDA target that is older than NumPy
        pytest.skip(f"numba cannot compile: {error}")
    signatures = {
        "dot_pairs": [(a[:, ::1], n[::1], b[:, ::1], n[::1], d[::1]) for a, b in ((f, f), (d, d), (f, d))],
        "scale_rows": [(a[:, ::1], d[::1], f[:, ::1]) for a in (f, d)],
        "scan_tiles": [(f[:, ::1], n, n, f, f, i[::1], i[::1], i[::1], i[::1], f[::1])],
        "store_tiles": [(f[:, ::1], n[::1], f[:, ::1], n[::1], f[:, ::1])],
    }
    for name, variants in signatures.items():
        for variant in variants:
            ptx, _ = cuda.compile_ptx(getattr(kernels, name).py_func, variant, cc=capability)
            assert "fma.rn.f64" not in ptx
            assert ("mul.rn.f64" in ptx) == (name == "dot_pairs")  # with its rounding named, nothing may be fused
            assert ("fma.rn.f32" in ptx) == (name in ("scan_tiles", "store_tiles"))


if __name__ == "__main__":
    run_in_simulator()
