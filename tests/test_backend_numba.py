"""The numba backend: its threads, and machine code that can be kept on disk or not."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from exact_cases import REFERENCE, Engine, assert_same_bits, assert_same_density, assert_same_pool, case

numba = pytest.importorskip("numba")
from proto_engine.backends import numba as backend_module  # noqa: E402
from proto_engine.backends import numba_loops, numba_pool, numba_tiles  # noqa: E402
from proto_engine.backends.exact import cutoff_and_density  # noqa: E402
from proto_engine.backends.reference import pinned_dot  # noqa: E402
from proto_engine.backends.work_sharing import share  # noqa: E402


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("num_items", [0, 1, 2, 500])
def test_share_gives_each_item_to_one_worker(threads, num_items):
    class Worker:
        def __init__(self) -> None:
            self.items: list[int] = []

        def __call__(self, item: int) -> None:
            self.items.append(item)

    workers = share(num_items, threads, Worker)
    assert len(workers) == max(1, min(threads, num_items))
    assert sorted(item for worker in workers for item in worker.items) == list(range(num_items))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_share_stops_all_workers_when_one_fails(error):
    done = []

    def work(item: int) -> None:
        if threading.current_thread() is threading.main_thread():
            raise error("here")
        done.append(item)
        time.sleep(0.001)

    before = threading.active_count()
    with pytest.raises(error):
        share(10_000, 3, lambda: work)
    assert len(done) < 10_000
    assert threading.active_count() == before


def test_share_raises_what_a_worker_raised_in_its_thread():
    done = []

    def work(item: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("there")
        done.append(item)
        time.sleep(0.001)

    with pytest.raises(ValueError, match="there"):
        share(10_000, 2, lambda: work)
    assert len(done) < 10_000


def test_pass_stops_at_the_next_tile_on_ctrl_c(monkeypatch):
    pool = Engine("numba", threads=2).pool(case("normal", 400, 12)[0])
    scan = numba_tiles.scan_tile
    scanned = []

    def interrupted(*arguments: object) -> int:
        scanned.append(1)
        if len(scanned) == 5:
            raise KeyboardInterrupt
        return int(scan(*arguments))

    monkeypatch.setattr(numba_tiles, "scan_tile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.count_bracket(-1.0, 1.0, 0)
    assert len(scanned) < 325  # tiles in all


def test_loops_keep_nothing_on_disk_that_would_be_unpickled():
    loops = [value for value in vars(numba_loops).values() if hasattr(value, "targetoptions")]
    assert len(loops) >= 7
    for loop in loops:
        assert loop.stats.cache_path is None
        assert not loop.targetoptions.get("fastmath")  # it would allow fused multiply-adds and reordered sums


def test_loops_let_other_threads_run():
    """A loop that held the GIL would keep the main thread from counting while it runs."""
    x = np.random.default_rng(0).standard_normal((400, 512))
    pairs = np.zeros(300_000, dtype=np.int64)
    out = np.empty(len(pairs))
    squares = np.ones(400)
    numba_loops.similar_pairs(x, squares, pairs[:1], pairs[:1], out[:1])  # compiled
    worker = threading.Thread(target=numba_loops.similar_pairs, args=(x, squares, pairs, pairs, out))
    ticks = 0
    worker.start()
    while worker.is_alive():
        ticks += 1
        time.sleep(0)
    assert ticks > 10


@pytest.mark.parametrize("dtypes", ["ff", "dd", "fd"])
def test_dot_is_the_pinned_sum_in_every_dimension(dtypes):
    dot = numba.njit(error_model="numpy")(lambda a, b: numba_loops._dot(a, b))
    rng = np.random.default_rng(0)
    for dim in (*range(1, 34), 255, 256, 257, 263, 264, 511, 512, 513, 769):  # and at the edges of its blocks
        a, b = rng.standard_normal(dim).astype(dtypes[0]), rng.standard_normal(dim).astype(dtypes[1])
        assert dot(a, b) == pinned_dot(a.astype(float), b.astype(float))
    with pytest.raises(numba.TypingError):  # elements must lie side by side
        dot(a[::2], b[::2])


def test_loops_mean_the_same_in_plain_python(monkeypatch):
    """What numba makes of the loops is no more and no less than what they say."""
    monkeypatch.setattr(numba_loops, "_dot", lambda a, b: float(pinned_dot(a.astype(float), b.astype(float))))
    for name in dir(numba_loops):
        for module in (backend_module, numba_pool, numba_tiles):
            if name in vars(module) and hasattr(getattr(numba_loops, name), "__wrapped__"):
                monkeypatch.setattr(module, name, getattr(numba_loops, name).__wrapped__)
    engine = Engine("numba")
    for kind in ("close", "binary"):
        x, reference = case(kind, 35, 9)
        assert_same_pool(engine, x, reference, (0.6,))
        assert_same_density(cutoff_and_density(engine.pool(x), 0.6, capacity=1), reference.density(0.6))
    folded = np.repeat(np.eye(9)[:4], 2, axis=0)
    x = np.concatenate([x, np.zeros((1, 9), np.float32)])
    for found, right in zip(engine.top2(x, folded), REFERENCE.top2(x, folded), strict=True):
        assert_same_bits(found, right)


def test_default_tile_and_threads_are_used():
    x, reference = case("duplicates", 400, 12)
    from proto_engine.backends.numba import NumbaBackend

    backend = NumbaBackend()
    squares = backend.squared_norms(x)
    assert_same_bits(backend.pool(x, squares).density(0.6)[1], reference.density(0.6)[1])
    assert_same_pool(Engine("numba", tile=None), x, reference, (0.6,))
