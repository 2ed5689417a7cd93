"""Counts by class: every backend gives the bits of the reference, on rows made to trip it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cuda_host_library
import numpy as np
import pytest
from exact_cases import DTYPES, EXACT, KINDS, SAMPLED, TILE, Engine, assert_same_bits, case, reference_pool
from problems import select

import proto_engine as pe
from proto_engine.backends import device_scan, exact, loop_checks
from proto_engine.backends.base import classes_within

ONE_PASS = [name for name in EXACT if name in ("cpu", "numba", "torch")]
CUTOFFS = (0.0, 1.0, -1.0, 7.5, -1e300, 1e300)


def split(m: int, num_classes: int) -> np.ndarray:
    """Offsets of ragged classes: the second is empty where there are three, the last has one row.   [C + 1]"""
    cuts = np.sort(np.random.default_rng([m, num_classes]).integers(0, m, num_classes - 1))
    if num_classes > 2:
        cuts[1], cuts[-1] = cuts[0], m - 1
    return np.array([0, *np.sort(cuts), m], dtype=np.int64)


def assert_same_counts(engine: Engine, x: np.ndarray, reference: Any, num_classes: int, *quantiles: float) -> None:
    pool, offsets = engine.pool(x), split(len(x), num_classes)
    with engine.running():
        for quantile in quantiles:
            cutoff, counts = reference.class_counts(quantile, offsets)
            found = pool.class_counts(quantile, offsets)
            assert found[0] == cutoff
            assert_same_bits(found[1], counts)
            assert_same_bits(pool.class_counts_at(cutoff, offsets), counts)


def test_reference_counts_by_hand():
    x = np.array([[1, 0], [1, 0], [1, 1], [0, 1], [0, -1]], dtype=np.float32)
    pool = reference_pool(x)
    offsets = np.array([0, 2, 2, 4, 5])
    half = float(np.sqrt(0.5))
    assert pool.s[0, 2] == pytest.approx(half)
    wanted = [[1, 0, 1, 0], [1, 0, 1, 0], [2, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert_same_bits(pool.class_counts_at(0.0, offsets), np.array(wanted, np.int32))
    cutoff, counts = pool.class_counts(0.9, offsets)  # entry 21 of 25: the five of the diagonal and the pair 0-1 are 1
    assert cutoff == 1.0 and not counts.any()


def test_classes_within_a_range_of_rows():
    offsets = np.array([0, 3, 3, 7, 9])
    assert list(classes_within(offsets, 0, 9)) == [(0, 0, 3), (2, 3, 7), (3, 7, 9)]
    assert list(classes_within(offsets, 3, 7)) == [(2, 0, 4)]
    assert list(classes_within(offsets, 2, 8)) == [(0, 0, 1), (2, 1, 5), (3, 5, 6)]


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("kind", KINDS)
def test_counts_have_the_reference_bits_on_every_kind_of_rows(backend, kind):
    for m, dim, num_classes in zip(
        (1, TILE - 1, TILE, TILE + 1, 2 * TILE + 3), (8, 9, 16, 23, 33), (1, 4, 2, 9, 3), strict=True
    ):
        x, reference = case(kind, m, dim)
        assert_same_counts(Engine(backend), x, reference, num_classes, 0.0, 0.6, 0.9, 1.0)


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("kind", KINDS)
def test_counts_have_the_reference_bits_through_a_sampled_bracket(backend, kind):
    x, reference = case(kind, SAMPLED, 12)
    assert_same_counts(Engine(backend, tile=None), x, reference, 5, 0.9)


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("dtype", DTYPES)
def test_counts_have_the_reference_bits_for_every_dtype(backend, dtype):
    for kind in ("normal", "close"):
        x, reference = case(kind, TILE + 1, 21, dtype)
        assert_same_counts(Engine(backend), x, reference, 3, 0.9)


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("kind", ["normal", "binary"])
def test_threads_and_tiles_do_not_change_a_count(backend, kind):
    x, reference = case(kind, SAMPLED, 20)
    for threads in (1, 2):
        for tile in (64, 97, None):
            assert_same_counts(Engine(backend, threads, tile), x, reference, 40, 0.9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("backend", EXACT)
def test_counts_at_any_cutoff_leave_equal_entries_out(backend):
    for kind in ("normal", "close", "binary", "signs"):
        x, reference = case(kind, 2 * TILE + 3, 9)
        pool, offsets = Engine(backend).pool(x), split(len(x), 4)
        entries = reference.s[0, [1, 5, TILE, TILE + 1]]
        for cutoff in (*entries, *np.nextafter(entries, 2.0), *CUTOFFS):
            wanted = reference.class_counts_at(float(cutoff), offsets)
            assert_same_bits(pool.class_counts_at(float(cutoff), offsets), wanted)


@pytest.mark.parametrize("backend", ONE_PASS)
def test_bracket_that_misses_or_holds_too_many_is_mended(backend):
    for kind in ("normal", "binary"):
        x, reference = case(kind, SAMPLED, 12)
        pool, offsets = Engine(backend, threads=2, tile=64).pool(x), split(SAMPLED, 6)
        cutoff, counts = reference.class_counts(0.9, offsets)
        for bracket, capacity in (
            ((cutoff - 0.3, cutoff - 0.2), None),
            ((5.0, 6.0), None),
            (None, 3),
            ((-0.5, 0.1), 3),
        ):
            found = exact.cutoff_and_class_counts(pool, 0.9, offsets, bracket=bracket, capacity=capacity)
            assert found[0] == cutoff
            assert_same_bits(found[1], counts)


@pytest.mark.skipif("cpu" not in EXACT, reason="the native module was not built")
@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_counts_the_same(name):
    from proto_engine import _core

    before = _core.instruction_set()
    if not _core.use_instruction_set(name):
        pytest.skip(f"this machine has no {name}")
    try:
        for kind in ("normal", "binary"):
            x, reference = case(kind, SAMPLED, 20)
            assert_same_counts(Engine("cpu", threads=2, tile=97), x, reference, 7, 0.9)
    finally:
        assert _core.use_instruction_set(before)


@pytest.mark.skipif("cpu" not in EXACT, reason="the native module was not built")
def test_native_module_refuses_offsets_that_do_not_cover_the_rows():
    from proto_engine import _core

    unit = np.eye(4, dtype=np.float32)
    for offsets in ([0, 3], [1, 4], [0, 3, 2, 4], [0]):
        with pytest.raises(ValueError, match="offsets must"):
            _core.count_bracket_by_class(unit, np.array(offsets), -1.0, 1.0, 10, 2, 1)


# ---- on a GPU's launches, compiled for the host ----------------------------------------------------------


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return cuda_host_library.load(tmp_path_factory)


@pytest.mark.skipif(cuda_host_library.missing() is not None, reason=str(cuda_host_library.missing()))
@pytest.mark.parametrize(("loop", "dtype"), [("simt", "float32"), ("mma", "float16"), ("wgmma", "float32")])
def test_cuda_launches_on_the_host_count_the_same(core, monkeypatch, loop, dtype):
    """Tiles of 128: between two classes, across a border of classes, and of classes of a few rows."""
    monkeypatch.setattr(Engine, "native_cuda", core.cuda)
    monkeypatch.setattr(loop_checks, "choose_loop", lambda backend, device, named, loops: named)
    for kind, m, num_classes in (("normal", 300, 2), ("close", 150, 3), ("binary", 150, 40), ("equal", 40, 2)):
        x, reference = case(kind, m, 24, dtype)
        assert_same_counts(Engine(f"cuda:{loop}"), x, reference, num_classes, 0.9)


@pytest.mark.skipif(cuda_host_library.missing() is not None, reason=str(cuda_host_library.missing()))
def test_cuda_launches_on_the_host_count_in_slabs(core, monkeypatch):
    """More pairs next to the cutoff than are listed at once."""
    monkeypatch.setattr(Engine, "native_cuda", core.cuda)
    monkeypatch.setattr(loop_checks, "choose_loop", lambda backend, device, named, loops: named)
    monkeypatch.setattr(device_scan, "SLAB_TILES", 1)
    monkeypatch.setattr(device_scan, "SLAB_PAIRS", 128 * 128)
    x, reference = case("equal", 300, 8)
    assert_same_counts(Engine("cuda:simt"), x, reference, 3, 0.9)


@pytest.mark.skipif(pe.backends()["numba"] is not None, reason="numba is not installed")
def test_numba_cuda_in_the_simulator_counts_the_same():
    code = "import test_backends_contrast as tests; tests.check_numba_cuda()"
    folder = Path(__file__).parent
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr


def check_numba_cuda() -> None:
    from proto_engine.backends import numba_cuda

    numba_cuda._SLAB = 2
    for kind, m, num_classes in (("normal", 17, 3), ("binary", 9, 4)):
        x, reference = case(kind, m, 6)
        pool = Engine("numba-cuda", tile=4)
        assert_same_counts(pool, x, reference, num_classes, 0.9)


@pytest.mark.parametrize("backend", EXACT)
def test_selection_by_contrast_is_the_references(backend):
    if ":" in backend:
        pytest.skip("the public functions choose the loop")
    rng = np.random.default_rng(0)
    x = np.concatenate([KINDS[kind](rng, m, 10) for kind, m in (("normal", 60), ("binary", 40), ("duplicates", 50))])
    y = rng.integers(0, 4, len(x))
    options: dict[str, Any] = {"method": "density-contrast", "samples_per_class": 30, "prototypes_per_class": 0.4}
    wanted = select(x, y, backend="reference", **options)
    found = select(x, y, backend=backend, **options)
    for name in ("indices", "counts", "cutoff", "rho", "eta", "filtered", "consistent", "share", "contrast", "folded"):
        assert_same_bits(getattr(found, name), getattr(wanted, name))
