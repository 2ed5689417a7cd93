"""Settings of the whole process: of overlapping calls, of the caller's own threads, and of forked children."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from problems import clustered

import proto_engine as pe
from proto_engine.backends.host import _controller, single_threaded_blas
from proto_engine.backends.process_setting import ProcessSetting, Undo


class Dial:
    """Something that a setting turns to 1."""

    def __init__(self) -> None:
        self.value = 7

    def turn(self, undo: Undo) -> None:
        undo.append(functools.partial(setattr, self, "value", self.value))
        self.value = 1


def blas_threads() -> list[int]:
    """Of the libraries whose number is the process's; FAISS may have brought one that counts for each thread."""
    return [library["num_threads"] for library in _controller().info() if library.get("threading_layer") != "openmp"]


def test_overlapping_calls_share_the_setting_and_the_last_one_out_takes_it_back():
    dial = Dial()
    setting = ProcessSetting(dial.turn)
    with setting.held():
        inside, leave = threading.Event(), threading.Event()

        def other():
            with setting.held():
                inside.set()
                leave.wait()

        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        inside.wait()
        assert dial.value == 1
    assert dial.value == 1  # the other one is still in
    leave.set()
    thread.join()
    assert dial.value == 7


@pytest.mark.parametrize("where", range(4))
def test_an_interrupt_while_it_is_set_or_taken_back_leaves_nothing_behind(where):
    """Before the change, after it, and before and after it is taken back."""
    dial, left = Dial(), [where]

    def interrupted(step: int) -> None:
        if left == [step]:
            left.clear()
            raise KeyboardInterrupt

    def take_back() -> None:
        interrupted(2)
        dial.value = 7
        interrupted(3)

    def turn(undo: Undo) -> None:
        undo.append(take_back)
        interrupted(0)
        dial.value = 1
        interrupted(1)

    setting = ProcessSetting(turn)
    with pytest.raises(KeyboardInterrupt), setting.held():
        assert dial.value == 1
    assert (left, dial.value) == ([], 7)
    with setting.held():
        assert dial.value == 1
    assert dial.value == 7


def test_who_waits_while_the_first_one_is_interrupted_sets_it():
    dial, entered, other = Dial(), threading.Event(), []

    def turn(undo: Undo) -> None:
        if not other:  # the first one: interrupted while the second one waits for the lock
            second = threading.Thread(target=wait, daemon=True)
            other.append(second)
            second.start()
            entered.wait()
            raise KeyboardInterrupt
        dial.turn(undo)

    def wait() -> None:
        entered.set()
        with setting.held():
            seen.append(dial.value)

    seen: list[int] = []
    setting = ProcessSetting(turn)
    with pytest.raises(KeyboardInterrupt), setting.held():
        pass
    other[0].join()
    assert (seen, dial.value) == ([1], 7)


INTERRUPTED = """
import signal
from contextlib import suppress
import numpy as np
import proto_engine as pe
from proto_engine.backends.host import _controller

rng = np.random.default_rng(0)
x, y = rng.standard_normal((400, 16)).astype("f4"), np.arange(400) % 4
def blas_threads():
    return [library["num_threads"] for library in _controller().info()]
pe.select_prototypes(x, y, backend="cpu")
before, interrupted = blas_threads(), 0
signal.signal(signal.SIGALRM, signal.default_int_handler)
for _ in range(100):
    with suppress(KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, float(rng.uniform(1e-4, 4e-3)))
        for _ in range(20):  # an interrupt that comes while an object is taken down is lost
            pe.select_prototypes(x, y, backend="cpu")
        interrupted -= 1
    interrupted += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert blas_threads() == before
assert interrupted > 10, interrupted
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="a system without timers")
def test_calls_interrupted_anywhere_leave_the_threads_of_the_blas_as_they_were():
    """In a process of its own: what watches this one must not be interrupted."""
    command = [sys.executable, "-W", "ignore", "-c", INTERRUPTED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_one_thread_for_the_blas_leaves_openmp_to_each_thread():
    """OpenMP counts for each thread by itself: who leaves last must not get the number of who came first."""
    torch = pytest.importorskip("torch")
    before, blas = torch.get_num_threads(), blas_threads()
    torch.set_num_threads(3)
    try:
        entered, leave = threading.Event(), threading.Event()

        def other():
            torch.set_num_threads(1)
            with single_threaded_blas():
                entered.set()
                leave.wait()

        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        entered.wait()
        with single_threaded_blas():
            assert set(blas_threads()) == {1}
            leave.set()
            thread.join()
        assert torch.get_num_threads() == 3
        assert blas_threads() == blas
    finally:
        torch.set_num_threads(before)


def test_any_thread_sets_and_restores_the_threads_of_the_blas():
    before = blas_threads()
    if max(before, default=1) == 1:
        pytest.skip("the BLAS has one thread here anyway")
    seen: list[set[int]] = []

    def alone():
        with single_threaded_blas():
            seen.append(set(blas_threads()))
        seen.append(set(blas_threads()))

    for _ in range(2):  # the first thread that sets a number must not keep it from the next one
        thread = threading.Thread(target=alone, daemon=True)
        thread.start()
        thread.join()
        alone()
    assert seen == [{1}, set(before)] * 4

    entered, leave = threading.Event(), threading.Event()

    def last():
        with single_threaded_blas():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=last, daemon=True)
    with single_threaded_blas():
        thread.start()
        entered.wait()
    leave.set()
    thread.join()
    assert blas_threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_within_a_call_sets_and_restores_by_itself():
    dial = Dial()
    setting = ProcessSetting(dial.turn)
    with setting.held():
        child = os.fork()
        if child == 0:
            seen = [dial.value]
            with setting.held():
                seen.append(dial.value)
            os._exit(0 if [*seen, dial.value] == [7, 1, 7] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert dial.value == 1
    assert dial.value == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_selects_the_same_prototypes():
    x, y = clustered(300, 16, 3)
    wanted = pe.select_prototypes(x, y, backend="cpu").indices
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(pe.select_prototypes(x, y, backend="cpu").indices, wanted) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
