"""The self-check: what it notices, what becomes of a part that fails it, and what "auto" may take."""

from __future__ import annotations

import json
import logging
import sys
import threading

import numpy as np
import pytest
from exact_cases import REFERENCE, available

import proto_engine as pe
from proto_engine.backends import choose, gpu_record, outcomes, small_case
from proto_engine.backends.base import Picks
from proto_engine.backends.cuda import loops_of
from proto_engine.backends.device import loops_left_out
from proto_engine.backends.device_backend import DeviceBackend
from proto_engine.backends.reference import ReferenceBackend, ReferencePool
from proto_engine.errors import BackendUnavailable

backends_module = sys.modules["proto_engine.backends"]
SLOWEST_FIRST = ["simt", "mma", "wgmma"]


class FakeGpu(DeviceBackend):
    """Tile loops that are the reference, but for those that go wrong."""

    name = "fake"
    wrong: dict[str, str] = {}  # noqa: RUF012  what goes wrong, by loop
    capability = (9, 0)

    def __init__(self, loop: str | None = None, clusters: bool | None = None) -> None:
        super().__init__(loop, clusters=clusters)
        self.runs: list[str] = []

    def gpu(self, device, stream):
        raise AssertionError("there is none")

    def _available_loops(self, device):
        return SLOWEST_FIRST

    def _clusters_can_score(self, device):
        return self.capability == (9, 0) and "score-cluster" not in loops_left_out()

    def compute_capability(self, device):
        return self.capability

    def copied(self, rows, device=0, stream=0):
        return rows

    def squared_norms(self, rows):
        return REFERENCE.squared_norms(rows)

    def pool(self, rows, squares):
        return FakePool(rows, squares, self._fault())

    def pick_ragged(self, rows, squares, sizes, p, quantile, eta_max, may_pick=None):
        self.runs.append(self.loop(0))
        case = next(case for case in small_case.small_cases() if case.rows is rows)
        fault = self._fault()
        if fault == "error":
            raise RuntimeError("an illegal memory access\nwas encountered")
        if fault == "memory":
            raise MemoryError("device memory: out of memory")
        picks: list[Picks | None] = [answer.picks for answer in case.classes]
        if fault == "pick":
            right = picks[0]
            picks[0] = Picks(right.rows[::-1], right.rho, right.eta, right.cutoff, right.filtered)
        return [None] * len(picks) if fault == "no pick" else picks

    def _fault(self):
        return self.wrong.get(self.loop(0))

    def score(self, rows, folded):
        return REFERENCE.score(rows, folded)

    def top2(self, rows, folded):
        output = self._top2_output(0)
        label, best, second = REFERENCE.top2(rows, folded)
        if "score" in self.wrong or (output.launch.endswith("cluster") and "score-cluster" in self.wrong):
            second[-1] = np.nextafter(second[-1], 2.0)
        return label, best, second


class FakePool(ReferencePool):
    def __init__(self, rows, squares, fault):
        super().__init__(rows, squares)
        self._fault = fault

    def density(self, quantile):
        cutoff, rho = super().density(quantile)
        if self._fault == "cutoff":
            cutoff = float(np.nextafter(cutoff, 2.0))
        if self._fault == "density":
            rho[-1] += 1
        return cutoff, rho

    def extreme(self, order, rows, limit, smallest):
        eta = super().extreme(order, rows, limit, smallest)
        if self._fault == "eta":
            eta[0] = np.nextafter(eta[0], -1.0)
        return eta


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing checked so far, no record, no fault."""
    monkeypatch.setattr(outcomes, "_outcomes", {})
    monkeypatch.setattr(FakeGpu, "wrong", {})
    record(monkeypatch)


def record(monkeypatch, *verified, capability="9.0"):
    runs = [{"compute_capability": capability, "verified": frozenset(verified)}]
    monkeypatch.setattr(gpu_record, "recorded_runs", lambda: runs)


# ---- the cases ---------------------------------------------------------------------------------------------------


def test_answers_are_those_of_the_reference():
    whole, fractions = small_case.small_cases()
    part = whole.parts()[1]
    slow = ReferencePool(whole.rows[part], whole.squares[part])
    np.testing.assert_array_equal(small_case.WholePool(whole.rows[part], whole.squares[part]).s, slow.s)
    assert whole.rows.dtype == np.float16 and fractions.rows.dtype == np.float32
    for case in (whole, fractions):
        assert any(0 < answer.picks.filtered < 1 for answer in case.classes)
        assert any(len(answer.picks.rows) == small_case.PICKS for answer in case.classes)
        assert (case.top2[1] == case.top2[2]).any() and (case.top2[1] > case.top2[2]).any()
        assert any(len(np.unique(answer.rho)) < len(answer.rho) for answer in case.classes)


def test_every_backend_that_runs_here_passes():
    found = pe.self_check()
    assert list(pe.backends()) == list(dict.fromkeys(name.partition("/")[0] for name in found))
    for name, reason in pe.backends().items():
        if reason is not None:
            assert found[name] == f"unavailable: {reason}"
        else:
            assert {found[part] for part in found if part.partition("/")[0] == name} == {None}


@pytest.mark.parametrize("name", available("cpu", "torch"))
def test_a_wrong_bit_of_a_host_backend_is_found(monkeypatch, name):
    backend = backends_module.get(name)
    right = type(backend).top2

    def wrong(self, rows, folded):
        label, best, second = right(self, rows, folded)
        best[3] = np.nextafter(best[3], 0.0)
        return label, best, second

    monkeypatch.setattr(type(backend), "top2", wrong)
    reason = pe.self_check()[name]
    assert reason is not None and reason.startswith("float16 rows: best score 3 (1 of 733 differ) is ")


# ---- tile loops --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("cutoff", "float16 rows, class 0: cutoff is "),
        ("density", "float16 rows, class 0: density 529 "),
        ("eta", "float16 rows, class 0: eta 17 "),
        ("pick", "picks of float16 rows, class 0: rows 0 "),
        ("no pick", "picks of float16 rows, class 0: not found"),
        ("error", "RuntimeError: an illegal memory access was encountered"),
    ],
)
def test_a_loop_that_goes_wrong_is_unavailable_and_said_once(monkeypatch, caplog, fault, reason):
    monkeypatch.setattr(FakeGpu, "wrong", {"mma": fault})
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match=r"'fake' is unavailable: failed its self-check \(mma: ") as error:
            FakeGpu("mma").loop(0)
        assert reason in str(error.value)
    warnings = [entry for entry in caplog.records if entry.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].getMessage().startswith("fake/mma failed its self-check on device 0 and is not used: " + reason)
    assert FakeGpu("simt").loop(0) == "simt"


def test_a_loop_is_checked_once_for_each_device():
    backend = FakeGpu("mma")
    assert [backend.loop(0), backend.loop(0), backend.loop(1)] == ["mma"] * 3
    assert backend.runs == ["mma"] * 2 * len(small_case.small_cases())
    assert set(outcomes._outcomes) == {("fake/mma", 0), ("fake/mma", 1)}


def test_a_loop_is_checked_once_by_many_threads():
    backend = FakeGpu()
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(backend.loop(0))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["simt"] * 8
    assert len(backend.runs) == len(small_case.small_cases())


def test_want_of_memory_is_no_verdict(monkeypatch):
    monkeypatch.setattr(FakeGpu, "wrong", {"simt": "memory"})
    with pytest.raises(BackendUnavailable, match="no memory for its self-check"):
        FakeGpu().loop(0)
    FakeGpu.wrong.clear()
    assert FakeGpu().loop(0) == "simt"


def test_the_plainest_loop_is_used_where_none_is_verified():
    assert FakeGpu().loop(0) == "simt"


def test_the_fastest_verified_loop_is_used(monkeypatch):
    record(monkeypatch, "fake/simt", "fake/mma", "other/wgmma")
    assert FakeGpu().loop(0) == "mma"
    assert FakeGpu("wgmma").loop(0) == "wgmma"  # by name
    record(monkeypatch, "fake/mma", capability="8.0")
    assert FakeGpu().loop(0) == "simt"


def test_a_verified_loop_that_fails_makes_room_for_the_next(monkeypatch):
    record(monkeypatch, "fake/mma", "fake/wgmma")
    monkeypatch.setattr(FakeGpu, "wrong", {"wgmma": "density"})
    assert FakeGpu().loop(0) == "mma"
    outcomes._outcomes.clear()
    monkeypatch.setattr(FakeGpu, "wrong", {"wgmma": "density", "mma": "eta"})
    assert FakeGpu().loop(0) == "simt"
    outcomes._outcomes.clear()
    monkeypatch.setattr(FakeGpu, "wrong", {"wgmma": "density", "mma": "eta", "simt": "error"})
    with pytest.raises(
        BackendUnavailable, match=r"wgmma: float16 rows, class 0: density.*; mma: .*eta.*; simt: Runtime"
    ):
        FakeGpu().loop(0)


def test_a_loop_that_cannot_run_there_is_an_error():
    with pytest.raises(BackendUnavailable, match="loop: wanted one of 'simt', 'mma', 'wgmma' on device 0, got 'tma'"):
        FakeGpu("tma").loop(0)


def test_scores_are_checked_by_themselves(monkeypatch):
    case = small_case.small_cases()[0]
    assert FakeGpu().top2(case.rows, case.folded)[0].shape == (733,)
    outcomes._outcomes.clear()
    monkeypatch.setattr(FakeGpu, "wrong", {"score": "bit"})
    with pytest.raises(BackendUnavailable, match=r"'fake' cannot score: .*second best score 732"):
        FakeGpu().top2(case.rows, case.folded)
    assert FakeGpu().loop(0) == "simt"


def launch_of_scores(**options):
    return FakeGpu(**options)._top2_output(0).launch


def test_clusters_score_where_they_are_verified_or_asked_for(monkeypatch):
    assert launch_of_scores() == "score_top2" and launch_of_scores(clusters=True) == "score_top2_cluster"
    record(monkeypatch, "fake/score-cluster")
    assert launch_of_scores() == "score_top2_cluster" and launch_of_scores(clusters=False) == "score_top2"
    monkeypatch.setattr(FakeGpu, "capability", (8, 0))
    assert launch_of_scores() == "score_top2"
    with pytest.raises(BackendUnavailable, match="'fake' cannot score in clusters: device 0 does not run them"):
        launch_of_scores(clusters=True)


def test_clusters_that_fail_their_check_leave_the_scores_to_single_blocks(monkeypatch, caplog):
    record(monkeypatch, "fake/score-cluster")
    monkeypatch.setattr(FakeGpu, "wrong", {"score-cluster": "bit"})
    case = small_case.small_cases()[0]
    for found, right in zip(FakeGpu().top2(case.rows, case.folded), case.top2, strict=True):
        np.testing.assert_array_equal(found, right)
    assert "fake/score-cluster failed its self-check on device 0 and is not used" in caplog.text
    with pytest.raises(BackendUnavailable, match=r"cannot score in clusters: .*second best score 732"):
        launch_of_scores(clusters=True)
    monkeypatch.setenv("PROTO_ENGINE_WITHOUT_LOOPS", "score-cluster")
    outcomes._outcomes.clear()
    assert launch_of_scores() == "score_top2" and ("fake/score-cluster", 0) not in outcomes._outcomes
    with pytest.raises(BackendUnavailable, match=r"does not run them \(PROTO_ENGINE_WITHOUT_LOOPS leaves out score-cl"):
        launch_of_scores(clusters=True)
    monkeypatch.setitem(backends_module._KNOWN, "fake", (lambda: None, FakeGpu))
    assert pe.self_check()["fake/score-cluster"] == "unavailable: left out by PROTO_ENGINE_WITHOUT_LOOPS"


def test_every_loop_of_a_backend_is_listed(monkeypatch):
    monkeypatch.setitem(backends_module._KNOWN, "fake", (lambda: None, FakeGpu))
    monkeypatch.setattr(FakeGpu, "wrong", {"wgmma": "cutoff"})
    monkeypatch.setattr(FakeGpu, "_available_loops", lambda self, device: ["simt", "wgmma"])
    found = {name: reason for name, reason in pe.self_check().items() if name.startswith("fake")}
    loops = [f"fake/{name}" for name in ("simt", "mma", "wgmma", "wgmma-cluster")]
    assert list(found) == [*loops, "fake/score", "fake/score-cluster"]
    assert found["fake/simt"] is None and found["fake/score"] is None and found["fake/score-cluster"] is None
    assert found["fake/mma"] == "unavailable: does not run on compute capability 9.0"
    assert found["fake/wgmma"].startswith("float16 rows, class 0: cutoff is ")


def test_a_loop_that_is_left_out_is_never_started(monkeypatch):
    monkeypatch.setitem(backends_module._KNOWN, "fake", (lambda: None, FakeGpu))
    monkeypatch.setattr(FakeGpu, "_available_loops", lambda self, device: loops_of(self.capability))
    monkeypatch.setattr(FakeGpu, "wrong", {"simt": "error", "wgmma": "error"})
    monkeypatch.setenv("PROTO_ENGINE_WITHOUT_LOOPS", "wgmma,simt")
    record(monkeypatch, "fake/wgmma")
    assert loops_of((9, 0)) == ["mma", "wgmma-cluster"] and loops_of((8, 6)) == ["mma"]
    assert FakeGpu().loop(0) == "mma"  # neither the fastest that is verified nor the plainest
    with pytest.raises(BackendUnavailable, match="loop: wanted one of 'mma', 'wgmma-cluster' on device 0, got 'wgmma'"):
        FakeGpu("wgmma").loop(0)
    found = pe.self_check()
    assert found["fake/simt"] == found["fake/wgmma"] == "unavailable: left out by PROTO_ENGINE_WITHOUT_LOOPS"
    assert found["fake/mma"] is None
    monkeypatch.setenv("PROTO_ENGINE_WITHOUT_LOOPS", "mma,tma")
    with pytest.raises(ValueError, match=r"WITHOUT_LOOPS: wanted some of simt, mma, .*, score-cluster, got tma"):
        loops_of((9, 0))


# ---- auto --------------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    """Two backends for features on a GPU: the fake, and one without tile loops in the place of torch."""

    class Plain(ReferenceBackend):
        name = "plain"
        takes_device_arrays = True

    monkeypatch.setitem(backends_module._KNOWN, "fake", (lambda: None, FakeGpu))
    monkeypatch.setitem(backends_module._KNOWN, "plain", (lambda: None, Plain))
    monkeypatch.setattr(backends_module, "_AUTO_ON_GPU", ("fake", "plain"))
    monkeypatch.setattr(backends_module, "_said", set())
    outcomes._outcomes["plain/cuda", 0] = None
    return monkeypatch


def test_auto_takes_no_loop_that_is_not_verified(gpu, caplog):
    caplog.set_level(logging.INFO)
    for _ in range(2):
        assert choose("auto", on_cpu=False, device=0).name == "plain"
    said = [entry.getMessage() for entry in caplog.records]
    assert said == [
        "backend 'fake' passed over: no recorded run on a GPU of compute capability 9.0 has verified one of its "
        "tile loops",
        "backend 'auto' chose 'plain': the fastest to be trusted with features on this GPU",
    ]
    record(gpu, "fake/simt")
    assert choose("auto", on_cpu=False, device=0).name == "fake"


def test_auto_moves_on_where_all_verified_loops_fail(gpu):
    record(gpu, "fake/mma", "fake/wgmma")
    gpu.setattr(FakeGpu, "wrong", {"wgmma": "density"})
    assert choose("auto", on_cpu=False, device=0).name == "fake"
    outcomes._outcomes.pop(("fake/mma", 0))
    gpu.setattr(FakeGpu, "wrong", {"wgmma": "density", "mma": "error"})
    assert choose("auto", on_cpu=False, device=0).name == "plain"


def test_auto_moves_on_where_the_scores_fail(gpu):
    record(gpu, "fake/mma")
    gpu.setattr(FakeGpu, "wrong", {"score": "bit"})
    assert choose("auto", on_cpu=False, device=0).name == "plain"


def test_auto_without_any_backend_to_trust_is_an_error(gpu):
    outcomes._outcomes["plain/cuda", 0] = "wrong"
    with pytest.raises(
        BackendUnavailable, match=r"found none for features on a GPU .*'fake': no recorded.*'plain': wrong"
    ):
        choose("auto", on_cpu=False, device=0)
    with pytest.raises(BackendUnavailable, match=r"'plain' is unavailable: failed its self-check \(wrong\)"):
        choose("plain", on_cpu=False, device=0)
    assert choose("plain", on_cpu=True).name == "plain"


def test_devices_of_other_kinds_are_left_to_torch(gpu):
    torch = pytest.importorskip("torch")
    record(gpu, "fake/mma")
    assert choose("auto", on_cpu=False, device=torch.device("cuda", 0)).name == "fake"
    assert choose("auto", on_cpu=False, device=torch.device("mps")).name == "plain"


# ---- the record --------------------------------------------------------------------------------------------------


def test_record_says_what_is_verified_where(tmp_path, monkeypatch, caplog):
    monkeypatch.undo()
    path = tmp_path / "gpu_verified.json"
    read = gpu_record.recorded_runs.__wrapped__
    assert read(path) == ()
    runs = [
        {"compute_capability": "9.0", "verified": ["cuda/simt", "cuda/mma"]},
        {"compute_capability": "8.0", "verified": ["cuda/simt"]},
    ]
    path.write_text(json.dumps({"runs": runs}))
    found = read(path)
    monkeypatch.setattr(gpu_record, "recorded_runs", lambda: found)
    assert gpu_record.verified((9, 0)) == {"cuda/simt", "cuda/mma"}
    assert gpu_record.verified((8, 0)) == {"cuda/simt"}
    assert gpu_record.verified((8, 6)) == gpu_record.verified(None) == frozenset()
    for text in ("{", '{"runs": [{}]}', "[]", '{"runs": 3}'):
        caplog.clear()
        path.write_text(text)
        assert read(path) == ()
        assert "no tile loop counts as verified" in caplog.text
