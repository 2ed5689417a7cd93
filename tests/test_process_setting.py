"""Settings of the whole process: of overlapping calls, of the caller's own threads, and of forked children."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import numpy as np
import pytest
import threadpoolctl
from problems import clustered

import proto_engine as pe
from proto_engine.backends.host import single_threaded_blas
from proto_engine.backends.process_setting import ProcessSetting


class Dial:
    """Something that a setting turns to 1."""

    def __init__(self) -> None:
        self.value = 7

    def turn(self) -> Callable[[], None]:
        before, self.value = self.value, 1
        return lambda: setattr(self, "value", before)


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]


def test_overlapping_calls_share_the_setting_and_the_last_one_out_takes_it_back():
    dial = Dial()
    setting = ProcessSetting(dial.turn)
    with setting.held():
        inside, leave = threading.Event(), threading.Event()

        def other():
            with setting.held():
                inside.set()
                leave.wait()

        thread = threading.Thread(target=other)
        thread.start()
        inside.wait()
        assert dial.value == 1
    assert dial.value == 1  # the other one is still in
    leave.set()
    thread.join()
    assert dial.value == 7


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

        thread = threading.Thread(target=other)
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
