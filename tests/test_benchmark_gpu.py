"""Timing and memory on a GPU: the order of calls with a stand-in for torch.cuda, the real thing where there is one."""

from __future__ import annotations

import ctypes
import sys
import types

import pytest
import torch
from benchmark_house import variant

import gpu  # isort: skip
import gpu_memory  # isort: skip
import places  # isort: skip


class FakeCuda:
    """Writes down what is asked of it; its events take their time from a counter."""

    def __init__(self):
        self.said, self.now = [], 0.0
        self.reserved, self.allocated, self.broken = 0, 0, False
        self.properties = types.SimpleNamespace(
            name="fake", major=9, minor=0, total_memory=1000, L2_cache_size=50 * 2**10
        )

    def Event(self, enable_timing):
        cuda = self

        class Event:
            def record(self):
                cuda.said.append("record")
                self.at = cuda.now

            def elapsed_time(self, end):
                return (end.at - self.at) * 1e3

        return Event()

    def synchronize(self, device=None):
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access\nmore")
        self.said.append("synchronize")

    def empty_cache(self):
        self.said.append("empty")

    def mem_get_info(self, device=None):
        return 700, 1000

    def memory_reserved(self, device=None):
        return self.reserved

    def memory_allocated(self, device=None):
        return self.allocated

    def current_device(self):
        return 0

    def get_device_properties(self, device):
        return self.properties


@pytest.fixture
def fake(monkeypatch):
    """A Gpu over that stand-in; its flush buffer lies in host memory."""
    cuda = FakeCuda()
    monkeypatch.setattr(gpu.torch, "cuda", cuda)
    zeros = torch.zeros
    monkeypatch.setattr(gpu.torch, "zeros", lambda n, dtype, device: zeros(n, dtype=dtype))
    monkeypatch.setattr(gpu, "driver_version", lambda: "570.1")
    return gpu.Gpu(seconds=0.4), cuda


def test_gpu_about_names_device_driver_and_cuda(fake):
    place, _ = fake
    about = place.about()
    assert (about["on"], about["device"], about["driver"], about["capability"]) == ("cuda", "fake", "570.1", "9.0")
    assert about["l2_bytes"] == 50 * 2**10 and about["cuda"] == torch.version.cuda
    assert place.available_bytes() == 700


def test_gpu_flush_writes_twice_the_cache_and_gives_back_spare_memory(fake):
    place, cuda = fake
    place.flush()
    assert place._buffer.nbytes == 2 * 50 * 2**10 and bool((place._buffer == 1).all())
    assert "empty" not in cuda.said
    cuda.reserved, cuda.allocated = 900, 100
    place.flush()
    assert "empty" in cuda.said


def test_gpu_clock_times_between_events_and_waits_for_the_end(fake):
    place, cuda = fake

    def call():
        cuda.said.append("call")
        cuda.now += 0.25

    found = place.clock(call, ends_on_host=False)
    assert cuda.said == ["record", "call", "record", "synchronize"] and found.events == pytest.approx(0.25)
    cuda.said.clear()
    place.clock(call, ends_on_host=True)  # starts on an idle GPU
    assert cuda.said == ["synchronize", "record", "call", "record", "synchronize"]
    assert found.wall > 0


def test_gpu_has_enough_of_slow_variants_sooner(fake):
    place, _ = fake
    assert place.enough([1e-4] * 50, None) and not place.enough([1e-4] * 49, None)
    assert place.enough([0.1] * 5, None) and not place.enough([0.1] * 4, None)
    assert place.enough([0.7] * 3, None) and place.enough([6.0] * 2, None) and not place.enough([60.0], None)
    assert place.enough([60.0], 1) and not place.enough([1.0] * 6, 7)


def test_gpu_that_answers_no_more_is_lost(fake):
    place, cuda = fake
    place.recover()
    cuda.broken = True
    with pytest.raises(places.DeviceLost, match=r"\(CUDA error: an illegal memory access\)"):
        place.recover()


def test_gpu_unavailable_says_why(monkeypatch):
    monkeypatch.setattr(gpu.torch.version, "cuda", None)
    assert "was built without CUDA" in gpu.unavailable()
    monkeypatch.setattr(gpu.torch.version, "cuda", "12.8")
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    assert "finds no NVIDIA GPU" in gpu.unavailable()
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: True)
    assert gpu.unavailable() is None


def test_gpu_driver_version_from_the_system_or_its_tool(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "_DRIVER", tmp_path / "version")
    monkeypatch.setattr(gpu.subprocess, "run", lambda *_, **__: types.SimpleNamespace(stdout="550.2\n550.2\n"))
    assert gpu.driver_version() == "550.2"
    (tmp_path / "version").write_text("570.86.15\n")
    assert gpu.driver_version() == "570.86.15"

    def missing(*_, **__):
        raise FileNotFoundError

    (tmp_path / "version").unlink()
    monkeypatch.setattr(gpu.subprocess, "run", missing)
    monkeypatch.setattr(gpu, "_DRIVER_TOLD", tmp_path / "told")
    assert gpu.driver_version() is None
    (tmp_path / "told").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan\n")
    assert gpu.driver_version() == "570.86.15"


# memory


class FakeDriver:
    """CUDA's driver as far as its default pool goes: 40 bytes in use, up to 100 during a call."""

    def __init__(self, status=0):
        self.status, self.high, self.reset = status, 500, False

    def cuDeviceGetDefaultMemPool(self, pool, device):
        ctypes.cast(pool, ctypes.POINTER(ctypes.c_void_p))[0] = 1234
        return self.status

    def cuMemPoolGetAttribute(self, pool, attribute, value):
        assert pool.value == 1234
        ctypes.cast(value, ctypes.POINTER(ctypes.c_uint64))[0] = {7: 40, 8: self.high}[attribute]
        return 0

    def cuMemPoolSetAttribute(self, pool, attribute, value):
        assert attribute == 8 and ctypes.cast(value, ctypes.POINTER(ctypes.c_uint64))[0] == 0
        self.high = 0
        return 0


class FakeMemory(FakeCuda):
    """An allocator of torch that grows from 10 to 70 bytes; free memory falls from 900 to 600."""

    high, free = 1000, 900

    def reset_peak_memory_stats(self):
        self.high = 10

    def memory_allocated(self, device=None):
        return 10

    def max_memory_allocated(self):
        return self.high

    def mem_get_info(self, device=None):
        return self.free, 1000


def fake_cupy(pool, *, usable=True):
    available = types.SimpleNamespace(is_available=lambda: usable)
    return types.SimpleNamespace(cuda=available, get_default_memory_pool=lambda: pool)


@pytest.fixture
def memory(monkeypatch):
    cuda, driver = FakeMemory(), FakeDriver()
    monkeypatch.setattr(gpu_memory.torch, "cuda", cuda)
    monkeypatch.setattr(gpu_memory.ctypes, "CDLL", lambda name: driver)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)

    def call():
        cuda.high, driver.high, cuda.free = 70, 100, 600

    return call, driver


def test_gpu_memory_adds_the_peaks_of_the_allocators(memory, monkeypatch):
    call, _ = memory
    before = gpu_memory.used_now()
    assert before == gpu_memory.Used(10, 40, 0)
    found = gpu_memory.peak_of_call(call, "allocators", before)
    assert (found.growth, found.peak) == (70 - 10 + 100 - 40, 70 + 100)
    blocks = iter([5, 25])
    pool = types.SimpleNamespace(free_all_blocks=lambda: None, total_bytes=lambda: next(blocks))
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(pool))
    before = gpu_memory.used_now()
    assert gpu_memory.peak_of_call(call, "allocators", before).growth == 120 + 20


def test_gpu_memory_counts_what_a_variant_keeps_between_its_calls(memory):
    before = gpu_memory.Used(10, 15, 0)  # 25 of the 40 bytes in CUDA's pool came with the first call
    found = gpu_memory.peak_of_call(lambda: None, "allocators", before)
    assert (found.growth, found.peak) == (25, 50)


def test_gpu_spare_memory_is_given_back(memory, monkeypatch):
    freed = []
    pool = types.SimpleNamespace(
        free_all_blocks=lambda: freed.append("cupy"), total_bytes=lambda: 30, used_bytes=lambda: 8
    )
    gpu_memory.torch.cuda.reserved = 110
    assert gpu_memory.spare() == 100
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(pool))
    assert gpu_memory.spare() == 122
    gpu_memory.release()
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(pool, usable=False))
    gpu_memory.torch.cuda.said.clear()
    gpu_memory.release()
    assert freed == ["cupy"] and gpu_memory.torch.cuda.said == ["empty"]


@pytest.mark.parametrize("meter", ["free memory", "allocators"])
def test_gpu_memory_without_counters_watches_the_free_memory(memory, meter):
    call, driver = memory
    driver.status = 801  # not supported
    before = gpu_memory.used_now()
    assert before.pool is None
    found = gpu_memory.peak_of_call(call, meter, before)
    assert (found.growth, found.peak, found.source) == (300, 400, "free memory of the card, sampled")


def test_gpu_memory_watcher_ends_with_a_call_that_fails(memory):
    import threading

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        gpu_memory.peak_of_call(lambda: 1 / 0, "free memory", gpu_memory.used_now())
    assert threading.active_count() == before


@pytest.mark.gpu
def test_gpu_clock_and_memory_on_a_device():
    place = gpu.Gpu(seconds=0.1)
    x = torch.rand(2048, 2048, device="cuda")
    for ends_on_host in (False, True):
        place.flush()
        found = place.clock(lambda: x @ x, ends_on_host=ends_on_host)
        assert 0 < found.events < 1 and 0 < found.wall < 1
    size = 64 * 2**20
    counted = variant("a", lambda _: torch.empty(size, dtype=torch.uint8, device="cuda"))
    grown = place.memory_of(counted, None, place.memory_mark())
    assert size <= grown.growth < size + 2**22 and grown.peak > grown.growth
    watched = variant("b", lambda _: torch.empty(size, dtype=torch.uint8, device="cuda"), meter="free memory")
    assert size <= place.memory_of(watched, None, place.memory_mark()).growth < size + 2**26
    assert place.about()["device"] and place.l2_bytes > 2**20


@pytest.mark.gpu
def test_gpu_pool_of_the_driver_has_counters():
    torch.cuda.init()
    pool = gpu_memory.DriverPool(torch.cuda.current_device())
    pool.start()
    assert pool.used() >= 0 and pool.high() >= 0
