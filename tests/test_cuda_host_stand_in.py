"""The stand-in for CUDA that the host tests rest on: it computes what the manual says, and finds planted faults."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import cuda_host_library
import ml_dtypes
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(cuda_host_library.missing() is not None, reason=str(cuda_host_library.missing()))


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return cuda_host_library.load(tmp_path_factory)


@pytest.fixture(params=[0, 1, 2], ids=["in order", "shuffled", "shuffled otherwise"])
def seeded(core: ModuleType, request: pytest.FixtureRequest):
    core.set_seed(request.param)
    yield core
    core.set_seed(0)


# ---- faults ----------------------------------------------------------------------------------------------


def test_barrier_missing_is_seen(seeded):
    assert seeded.neighbors(True) == 0
    assert seeded.neighbors(False) > 0


def test_shared_memory_never_written_is_poison(seeded):
    assert seeded.sum_of_ones(True) == 64
    assert seeded.sum_of_ones(False) == 63  # -1 to begin with, in the second block too


def test_copy_without_its_wait_is_seen(seeded):
    assert seeded.copies(True) == 0
    assert seeded.copies(False) == 256


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("left_before_barrier", r"stuck: 24 threads left .thread 40 first.; 40 threads wait at __syncthreads"),
        ("half_a_warp_shuffles", r"stuck: 32 threads left .*; 32 threads wait at __shfl_xor_sync .thread 0 first"),
        ("a_shuffle_against_a_vote", r"comes to __shfl_xor_sync while other lanes of its warp wait at __any_sync"),
        ("unaligned_copy", r"cp\.async: both addresses must be multiples of 16"),
    ],
)
def test_threads_that_cannot_go_on_end_the_launch(core, kernel, message):
    for _ in range(3):  # what a failed launch leaves behind does not harm the next
        with pytest.raises(RuntimeError, match=message):
            getattr(core, kernel)()
    assert core.neighbors(True) == 0


@pytest.mark.skipif(not cuda_host_library.SANITIZED, reason="the module was built without AddressSanitizer")
def test_address_sanitizer_sees_an_overrun_of_shared_memory(core):
    script = "import importlib.machinery as m, sys; m.ExtensionFileLoader(*sys.argv[1:]).load_module().overrun()"
    command = [sys.executable, "-W", "ignore", "-c", script, cuda_host_library.NAME, core.__file__]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert outcome.returncode != 0
    assert "heap-buffer-overflow" in outcome.stderr
    assert "faults.cpp" in outcome.stderr


# ---- arithmetic ------------------------------------------------------------------------------------------


def test_every_half_has_its_value(core):
    halves = np.arange(2**16, dtype=np.uint16)
    found, wanted = core.half_to_float(halves), halves.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found, wanted)


def test_floats_are_rounded_to_halves_as_ieee_says(core):
    values = np.arange(2**15, dtype=np.uint16).view(np.float16).astype(np.float64)[:31744]  # the finite ones
    middles = (values[:-1] + values[1:]) / 2  # ties
    near = np.concatenate([values, middles, middles * (1 + 2.0**-20), middles * (1 - 2.0**-20)])
    far = np.array([65519.0, 65520.0, 1e6, np.inf, 2.0**-25, 2.0**-26, 1e-30, np.nan])
    x = np.concatenate([near, -near, far, -far]).astype(np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(core.float_to_half(x).view(np.float16), x.astype(np.float16))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_mma_multiplies_the_right_elements(core, dtype):
    """Small integers: every sum is exact, and each product can be told from the others."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(-8, 9, (16, 16)).astype(dtype), rng.integers(-8, 9, (8, 16)).astype(dtype)
    c = rng.integers(-8, 9, (16, 8)).astype(np.float32)
    wanted = c + a.astype(np.float32) @ b.astype(np.float32).T
    core.product(dtype is not np.float16, a.view(np.uint16), b.view(np.uint16), c)
    np.testing.assert_array_equal(c, wanted)


def test_mma_cuts_off_as_tensor_cores_do(core):
    """Never past the exact sum. Two steps of nine addends below 8 lose up to 2^-22 each, the sums up to 2^-20."""
    rng = np.random.default_rng(0)
    a, b = rng.random((16, 16)).astype(np.float16), rng.random((8, 16)).astype(np.float16)
    exact = a.astype(np.float64) @ b.astype(np.float64).T
    c = np.zeros((16, 8), np.float32)
    core.product(False, a.view(np.uint16), b.view(np.uint16), c)
    lost = exact - c
    assert (lost >= 0).all()
    assert (lost > 0).any()
    assert lost.max() <= 2 * (9 * 2.0**-22 + 2.0**-20)
