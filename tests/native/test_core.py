"""The native core against the float64 reference, on every edge that pointer arithmetic can get wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from proto_engine import _core
from proto_engine.backends.base import error_bound, eta_of
from proto_engine.backends.cpu import CpuBackend
from proto_engine.backends.exact import cutoff_and_density
from proto_engine.backends.reference import ReferenceBackend

REFERENCE = ReferenceBackend()
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
ISAS = ["baseline", "avx2", "avx512"]


@pytest.fixture(params=ISAS)
def instruction_set(request):
    before = _core.instruction_set()
    if not _core.use_instruction_set(request.param):
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    _core.use_instruction_set(before)


def features(m: int, d: int, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([seed, m, d])
    return (rng.standard_normal((m, d)) + 0.3).astype(dtype)


def test_sanitized_run_loads_the_sanitized_core():
    sanitized = os.environ.get("PROTO_ENGINE_SANITIZED") == "1"
    assert (b"__asan_init" in Path(_core.__file__).read_bytes()) == sanitized


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 7, 8, 9, 16, 31, 64, 100])
def test_squared_norms_and_unit_rows(instruction_set, dtype, d):
    x = features(13, d, dtype)
    backend = CpuBackend(threads=2)
    squares = backend.squared_norms(x)
    np.testing.assert_array_equal(squares, REFERENCE.squared_norms(x))
    unit = backend.normalize(x, squares)
    np.testing.assert_array_equal(unit, REFERENCE.normalize(x, squares).astype(np.float32))


def test_float16_every_bit_pattern(instruction_set):
    bits = np.arange(2**16, dtype=np.uint16)
    x = bits.view(np.float16).reshape(-1, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x[:, 0].astype(np.float64) ** 2
    np.testing.assert_array_equal(CpuBackend(threads=1).squared_norms(x), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 2, 15, 16, 17, 35, 64, 70])
def test_density_and_eta_equal_reference(instruction_set, dtype, m):
    x = features(m, 19, dtype)
    squares = REFERENCE.squared_norms(x)
    oracle = REFERENCE.pool(x, squares)
    pool = CpuBackend(threads=2, tile=16).pool(x, squares)
    for quantile in (0.0, 0.6, 1.0):
        cutoff, rho = oracle.density(quantile)
        got_cutoff, got_rho = pool.density(quantile)
        assert got_cutoff == cutoff
        np.testing.assert_array_equal(got_rho, rho)
        np.testing.assert_array_equal(pool.density_at(cutoff), rho)
        np.testing.assert_array_equal(eta_of(pool, rho, np.arange(m)), eta_of(oracle, rho, np.arange(m)))


@pytest.mark.parametrize("m", [600, 1025])
def test_density_sampled_bracket_equals_reference(instruction_set, m):
    x = features(m, 24)
    squares = REFERENCE.squared_norms(x)
    expected = REFERENCE.pool(x, squares).density(0.6)
    for tile in (64, 100, 2048):
        cutoff, rho = CpuBackend(threads=2, tile=tile).pool(x, squares).density(0.6)
        assert cutoff == expected[0]
        np.testing.assert_array_equal(rho, expected[1])


def test_density_ties_beyond_the_capacity(instruction_set):
    x = (features(90, 6) > 0.2).astype(np.float32)
    x[:, 0] = 1
    squares = REFERENCE.squared_norms(x)
    oracle = REFERENCE.pool(x, squares)
    for quantile in (0.0, 0.5, 0.9, 1.0):
        expected = oracle.density(quantile)
        pool = CpuBackend(threads=2, tile=16).pool(x, squares)
        cutoff, rho = cutoff_and_density(pool, quantile, bracket=(-1.0, 1.0), capacity=5)
        assert cutoff == expected[0]
        np.testing.assert_array_equal(rho, expected[1])


def test_capacity_is_respected():
    x = features(200, 8)
    backend = CpuBackend(threads=2, tile=32)
    pool = backend.pool(x, backend.squared_norms(x))
    inside = pool.count_bracket(-2.0, 2.0, 10)
    assert inside.num_inside == 200 * 199 // 2
    assert len(inside.row) == 0
    assert len(pool.count_bracket(-2.0, 2.0, inside.num_inside).row) == inside.num_inside


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_with_a_stride_and_an_offset(dtype):
    wide = features(40, 50, dtype)
    view = wide[3:33:2, 5:30]  # every second row, columns in the middle
    assert not view.flags.c_contiguous
    plain = np.ascontiguousarray(view)
    backend = CpuBackend(threads=2, tile=8)
    np.testing.assert_array_equal(backend.squared_norms(view), backend.squared_norms(plain))
    squares = backend.squared_norms(plain)
    folded = np.linspace(-1, 1, 75).reshape(3, 25)
    for got, want in zip(backend.top2(view, folded), backend.top2(plain, folded), strict=True):
        np.testing.assert_array_equal(got, want)
    got, want = backend.pool(view, squares).density(0.6), backend.pool(plain, squares).density(0.6)
    assert got[0] == want[0]
    np.testing.assert_array_equal(got[1], want[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [1, 2, 15, 16, 17, 40])
def test_scores_equal_reference(instruction_set, dtype, num_classes):
    x = features(300, 21, dtype)
    x[7], x[9], x[200] = 0, np.nan, np.inf
    folded = features(num_classes, 21, np.float64, seed=1) / 10
    if num_classes > 3:
        folded[3] = folded[1]  # equal scores: the lower class is first
    backend = CpuBackend(threads=2)
    for got, want in zip(backend.top2(x, folded), REFERENCE.top2(x, folded), strict=True):
        np.testing.assert_array_equal(got, want)
    sigma, expected = backend.score(x, folded), REFERENCE.score(x, folded)
    np.testing.assert_array_equal(np.isnan(sigma), np.isnan(expected))
    scale = np.linalg.norm(folded, axis=1).max()
    assert np.nanmax(np.abs(sigma - expected)) <= error_bound(21) * max(1.0, scale)


def test_similarity_is_symmetric_with_ones_on_the_diagonal():
    x = features(75, 12)
    squares = REFERENCE.squared_norms(x)
    s = CpuBackend(threads=2, tile=16).pool(x, squares).similarity()
    np.testing.assert_array_equal(s, s.T)
    np.testing.assert_array_equal(np.diag(s), 1.0)
    assert np.abs(s - REFERENCE.pool(x, squares).similarity()).max() <= error_bound(12)


def test_bad_arguments_are_refused_before_any_memory_is_read():
    x = features(4, 8)
    squares = CpuBackend(threads=1).squared_norms(x)
    index = np.array([0, 4])
    with pytest.raises(ValueError, match="row index out of range"):
        _core.pair_similarity(x, "float32", squares, index, index, 1)
    with pytest.raises(ValueError, match="squares"):
        _core.normalize(x, "float32", squares[:3], 1)
    with pytest.raises(ValueError, match="element size"):
        _core.squared_norms(x, "float64", 1)
    with pytest.raises(TypeError, match="int8"):
        _core.squared_norms(x, "int8", 1)
    with pytest.raises(ValueError, match="consecutive"):
        _core.squared_norms(np.asfortranarray(x), "float32", 1)
    with pytest.raises(ValueError, match="folded"):
        _core.score_top2(x, "float32", np.ones((2, 9)), 1e-6, 1)
    with pytest.raises(ValueError, match="no columns"):
        _core.score(x[:, :0], "float32", np.ones((2, 0)), 1)
    rows, one = np.arange(1), np.zeros(1, dtype=np.uint8)
    for order, limit, message in (([0, 1, 2], 2, "order must have one entry a row"), ([0, 1, 2, 3], 5, "limit out of")):
        with pytest.raises(ValueError, match=message):
            _core.extreme_similarity(x, "float32", squares, x, np.array(order), rows, np.array([limit]), one, 1e-6, 1)


def test_long_call_is_interrupted_and_lets_other_threads_run():
    x = features(20000, 64)
    backend = CpuBackend(threads=1, tile=256)
    pool = backend.pool(x, backend.squared_norms(x))
    ticks = []
    ticker = threading.Thread(target=lambda: [ticks.append(time.sleep(0.01)) for _ in range(20)])
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    start = time.perf_counter()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
    ticker.start()
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            for _ in range(100):  # each pass takes a good second
                pool.count_threshold(0.0)
    finally:
        timer.join()
        ticker.join()
        signal.signal(signal.SIGINT, before)
    assert len(ticks) == 20
    assert time.perf_counter() - start < 20


AT_THE_END = """
import threading, time
import numpy as np
from proto_engine.backends.cpu import CpuBackend
class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(0.6)  # other threads ask for the lock while Python ends
kept = Slow()
x = np.ones(({rows}, 64), dtype=np.float32)
backend = CpuBackend(threads=2)
pool = backend.pool(x, np.full({rows}, 64.0))
def work():
    while True:
        {call}
threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
print("main is done")
"""


@pytest.mark.parametrize(
    ("rows", "call"),
    [
        (60000, "pool.count_bracket(2.0, 3.0, 0)"),  # at work for all of the end, and looks for Ctrl-C meanwhile
        (2000, "pool.count_bracket(2.0, 3.0, 0)"),  # comes back meanwhile
        (2, "backend.squared_norms(x)"),  # has no threads of its own
    ],
)
def test_daemon_thread_at_work_does_not_abort_the_end_of_python(rows, call):
    program = AT_THE_END.format(rows=rows, call=call)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "main is done\n", "")


def test_forked_child_exits_although_the_parent_was_at_work():
    fork = "import os\nchild = os.fork()\nif child == 0: raise SystemExit(7)\nprint(os.waitpid(child, 0)[1] >> 8)"
    program = AT_THE_END.format(rows=60000, call="pool.count_bracket(2.0, 3.0, 0)").replace(
        'print("main is done")', fork
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr


FEW_THREADS = """
import resource, threading
import numpy as np
from proto_engine.backends.cpu import CpuBackend
x = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
def density(threads):
    backend = CpuBackend(threads=threads, tile=256)
    return backend.pool(x, backend.squared_norms(x)).density(0.6)
cutoff, rho = density(1)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + {room} * 2**20,) * 2)
try:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert {room} > 1024
except RuntimeError:
    assert {room} < 1024
again, counts = density(8)
assert again == cutoff and (counts == rho).all()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of the address space is Linux's")
@pytest.mark.skipif(os.environ.get("PROTO_ENGINE_SANITIZED") == "1", reason="sanitizers map memory of their own")
@pytest.mark.parametrize("room", [600, 1500])  # MiB for stacks of 1 GiB: no thread, and one
def test_results_are_the_same_where_threads_cannot_be_started(room):
    import resource

    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    if hard != resource.RLIM_INFINITY and hard < 2**30:
        pytest.skip("stacks are limited")
    done = subprocess.run(
        [sys.executable, "-c", FEW_THREADS.format(room=room)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, (2**30, hard)),  # glibc: of every thread
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_module_of_another_version_leaves_the_other_backends():
    """After sources were updated in place, and nothing was built of them."""
    program = """
import sys, types
sys.modules["proto_engine._core"] = stale = types.ModuleType("proto_engine._core")
import proto_engine
proto_engine._core, stale.cuda_architectures = stale, None
reasons = proto_engine.backends()
assert reasons["reference"] is None
print(reasons["cpu"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "of another version, install the package again" in done.stdout


@pytest.mark.parametrize("wanted", ["0", "-1", "4097", "99999999999", "two", "²"])
def test_number_of_threads_is_checked(monkeypatch, wanted):
    monkeypatch.setenv("PROTO_ENGINE_NUM_THREADS", wanted)
    with pytest.raises(ValueError, match=f"wanted a whole number from 1 to 4096, got '{wanted}'"):
        CpuBackend().squared_norms(features(3, 2))
