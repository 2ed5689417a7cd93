"""The public functions with backend="cuda", its launches compiled for the host: the bits of the CPU backend."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cuda_host_library
import numpy as np
import pytest
from exact_cases import DTYPES, KINDS, assert_same_bits
from problems import select

import proto_engine as pe
from proto_engine.backends import choose, device_backend, device_density, gpu_record, loop_checks, outcomes, small_case
from proto_engine.backends.cuda import CudaBackend

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import small_launches

pytestmark = [
    pytest.mark.skipif(cuda_host_library.missing() is not None, reason=str(cuda_host_library.missing())),
    pytest.mark.skipif(pe.backends()["cpu"] is not None, reason="the native module was not built"),
]
self_check = sys.modules["proto_engine.backends.self_check"]  # a function has its name
backends_module = sys.modules["proto_engine.backends"]
LOOPS = ("simt", "mma", "wgmma", "wgmma-cluster")
FIELDS = ("indices", "counts", "cutoff", "rho", "eta", "filtered", "vectors", "folded")


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return cuda_host_library.load(tmp_path_factory)


@pytest.fixture
def use(core, monkeypatch) -> Callable[..., None]:
    """Makes the launches on the host the backend "cuda", with one of its loops, and a native module of one's own."""
    monkeypatch.setattr(outcomes, "_outcomes", {})

    def use(loop: str | None, native: Any = None, checked: bool = False) -> None:
        made = lambda: CudaBackend(loop, native or core.cuda)  # noqa: E731
        monkeypatch.setitem(backends_module._KNOWN, "cuda", (lambda: None, made))
        if not checked:
            monkeypatch.setattr(outcomes, "_outcomes", {(f"cuda/{part}", 0): None for part in (*LOOPS, "score")})

    return use


def assert_same_prototypes(x: np.ndarray, labels: np.ndarray, **options: Any) -> pe.Prototypes:
    wanted = select(x, labels, backend="cpu", **options)
    found = select(x, labels, backend="cuda", **options)
    for field in FIELDS:
        assert_same_bits(getattr(found, field), getattr(wanted, field))
    return found


def ragged(dtype: str = "float16", dim: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Classes of 1, 2, 130, 300, 0 and 40 rows in disorder, of different kinds.   [473, D]"""
    rng = np.random.default_rng(5)
    kinds = {0: ("normal", 1), 1: ("equal", 2), 2: ("duplicates", 130), 3: ("normal", 300), 5: ("binary", 40)}
    labels = np.concatenate([np.full(m, c) for c, (_, m) in kinds.items()])
    x = np.concatenate([KINDS[kind](rng, m, dim) for kind, m in kinds.values()]).astype(DTYPES[dtype])
    order = rng.permutation(len(x))
    return x[order], labels[order]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("loop", LOOPS)
def test_prototypes_of_ragged_classes(use, loop, dtype):
    use(loop)
    assert_same_prototypes(*ragged(dtype), samples_per_class=None)


@pytest.mark.parametrize("options", [{"cutoff_quantile": 0.0}, {"cutoff_quantile": 1.0}, {"samples_per_class": 64}])
def test_prototypes_with_other_options(use, options):
    use("mma")
    assert_same_prototypes(*ragged(), **{"samples_per_class": None, **options})


def test_prototypes_among_candidates(use):
    use("simt")
    x, labels = ragged()
    allowed = np.random.default_rng(0).random(len(x)) < 0.2
    allowed[labels < 2] = True
    found = assert_same_prototypes(x, labels, samples_per_class=None, candidates=allowed)
    assert allowed[found.indices[found.indices >= 0]].all()


@pytest.mark.parametrize("kind", ["equal", "signs", "binary", "close"])
@pytest.mark.parametrize("loop", ["simt", "mma"])
def test_prototypes_where_the_quick_way_ends(use, loop, kind):
    """More ties than a list holds: the bounded way takes over, for that class alone."""
    use(loop)
    rng = np.random.default_rng(2)
    x = np.concatenate([KINDS[kind](rng, 390, 24), KINDS["normal"](rng, 140, 24)]).astype(np.float16)
    assert_same_prototypes(x, np.repeat([0, 1], [390, 140]), samples_per_class=None)


@pytest.mark.parametrize("case", ["all too alike", "the least dense may be picked"])
def test_prototypes_far_down_the_density_order(use, case):
    """The device looks at 256 rows of the order."""
    use("mma")
    x = KINDS["normal"](np.random.default_rng(4), 400, 24).astype(np.float16)
    labels = np.zeros(400, dtype=np.int64)
    if case == "all too alike":
        found = assert_same_prototypes(x, labels, samples_per_class=None, eta_max=-0.9)
        assert found.counts[0] == 1
    else:
        rho = pe.density_peaks(x, backend="cpu").rho
        assert_same_prototypes(x, labels, samples_per_class=None, candidates=np.argsort(rho)[:20])


def test_prototypes_the_way_of_large_classes(use, monkeypatch):
    use("mma")
    monkeypatch.setattr(device_density, "SMALL_CLASS", 100)
    monkeypatch.setattr(device_density, "_LEAST_ROOM", 2**10)
    rng = np.random.default_rng(6)
    x = KINDS["normal"](rng, 1100, 24).astype(np.float16)
    assert_same_prototypes(x, np.repeat([0, 1, 2], [700, 90, 310]), samples_per_class=None)


def test_prototypes_batch_by_batch(use, monkeypatch):
    use("simt")
    monkeypatch.setattr(device_backend, "_BATCH_BYTES", 200 * 80)
    assert_same_prototypes(*ragged(), samples_per_class=None)


@pytest.mark.parametrize("loop", LOOPS)
def test_prototypes_do_not_depend_on_the_order_of_threads(core, use, loop):
    use(loop)
    try:
        for seed in (1, 2):
            core.set_seed(seed)
            assert_same_prototypes(*ragged(), samples_per_class=None)
    finally:
        core.set_seed(0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_density_peaks_and_similarity(use, dtype):
    use("mma")
    x = KINDS["normal"](np.random.default_rng(7), 140, 37).astype(DTYPES[dtype])
    found, wanted = (pe.density_peaks(x, backend=name) for name in ("cuda", "cpu"))
    assert found.cutoff == wanted.cutoff
    assert_same_bits(found.rho, wanted.rho)
    assert_same_bits(found.eta, wanted.eta)
    both = [pe.similarity(x, backend=name) for name in ("cuda", "reference")]
    np.testing.assert_allclose(*both, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_corrected_labels(use, dtype):
    use("simt")
    x, labels = ragged(dtype)
    x[7] = 0
    prototypes = select(x, labels, backend="cpu", on_bad_rows="keep-label")
    options: dict[str, Any] = {"on_bad_rows": "keep-label"}
    found, wanted = (pe.correct_labels(x, labels, prototypes, backend=name, **options) for name in ("cuda", "cpu"))
    for field in ("labels", "score", "margin", "changed"):
        assert_same_bits(getattr(found, field), getattr(wanted, field))


# ---- self-check --------------------------------------------------------------------------------------------------


class Wrong:
    """The native module with one launch that spoils the first entry of its last result."""

    def __init__(self, native: Any, name: str, argument: int) -> None:
        self._native, self._name, self._argument = native, name, argument

    def __getattr__(self, name: str) -> Any:
        launch = getattr(self._native, name)
        if name != self._name:
            return launch

        def spoiled(*arguments: Any) -> None:
            launch(*arguments)
            ctypes.c_ubyte.from_address(arguments[self._argument]).value ^= 1

        return spoiled


class Noting:
    """A native module that keeps the names of what is asked of it."""

    def __init__(self, cuda: Any) -> None:
        self._cuda, self.names = cuda, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(self._cuda, name)


@pytest.fixture
def launched(core) -> Noting:
    return Noting(core.cuda)


@pytest.fixture
def small(monkeypatch):
    """A smaller case than on a GPU."""
    case = small_case.small_cases()[1]
    monkeypatch.setattr(loop_checks, "small_cases", lambda: (case,))
    monkeypatch.setattr(small_case, "small_cases", lambda: (case,))


@pytest.mark.skipif(cuda_host_library.SANITIZED, reason="takes minutes there; the small launches are the same ones")
def test_self_check_passes(core, monkeypatch):
    monkeypatch.setattr(outcomes, "_outcomes", {})
    found = self_check._outcomes_of(CudaBackend(None, core.cuda))
    assert found == dict.fromkeys((*(f"cuda/{loop}" for loop in LOOPS), "cuda/score", "cuda/score-cluster"))


@pytest.mark.parametrize(
    ("launch", "argument", "reason"),
    [
        ("rho", -2, "float32 rows, class 0: density 0 "),
        ("pick", -2, "picks of float32 rows, class 0: eta 0 "),
        ("squares", -2, "float32 rows, class 0: squares 0 "),
        ("score_top2", -2, "second best score 0 "),
    ],
)
def test_self_check_finds_a_wrong_bit(core, use, small, launch, argument, reason):
    use(None, native=Wrong(core.cuda, launch, argument), checked=True)
    x, labels = ragged("float32")
    with pytest.raises(pe.BackendUnavailable, match="failed its self-check") as error:
        if launch == "score_top2":
            pe.correct_labels(x, labels, select(x, labels, backend="cpu"), backend="cuda")
        else:
            select(x, labels, backend="cuda")
    assert reason in str(error.value)


def test_auto_takes_the_fastest_verified_loop_that_passes(core, use, small, monkeypatch):
    runs = [{"compute_capability": "9.0", "verified": frozenset({"cuda/simt", "cuda/mma"})}]
    monkeypatch.setattr(gpu_record, "recorded_runs", lambda: runs)
    use(None, checked=True)
    backend = choose("auto", on_cpu=False, device=0)
    assert isinstance(backend, CudaBackend) and backend.loop(0) == "mma"
    use(None, native=Wrong(core.cuda, "inverse", -2), checked=True)  # float16 rows alone have need of it
    assert choose("auto", on_cpu=False, device=0).name == "cuda"
    monkeypatch.setattr(outcomes, "_outcomes", {})
    monkeypatch.setitem(backends_module._KNOWN, "torch", (lambda: "not now", lambda: None))
    monkeypatch.setitem(backends_module._KNOWN, "cupy", (lambda: "not now", lambda: None))
    use(None, native=Wrong(core.cuda, "rho", -2), checked=True)
    with pytest.raises(pe.BackendUnavailable, match=r"'auto' found none .*'cuda': failed its self-check"):
        choose("auto", on_cpu=False, device=0)


def test_verified_clusters_score_for_the_public_functions(use, launched, monkeypatch):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((300, 520)).astype(np.float16), rng.integers(0, 4, 300)
    wanted = select(x, labels, backend="cpu")
    corrections = pe.correct_labels(x, labels, wanted, backend="cpu")
    for verified, launch in ((set(), "score_top2"), ({"cuda/score-cluster"}, "score_top2_cluster")):
        runs = [{"compute_capability": "9.0", "verified": frozenset(verified)}]
        monkeypatch.setattr(gpu_record, "recorded_runs", lambda runs=runs: runs)
        use(None, native=launched, checked=True)
        pe.correct_labels(x, labels, wanted, backend="cuda")  # what checks itself does so now, single blocks as well
        assert "score_top2" in launched.names
        launched.names.clear()
        found = pe.correct_labels(x, labels, wanted, backend="cuda")
        assert {name for name in launched.names if name.startswith("score_")} == {launch}
        for field in ("labels", "score", "margin"):
            assert_same_bits(getattr(found, field), getattr(corrections, field))


# ---- what compute-sanitizer examines -----------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_small_launches_give_the_reference(core, loop):
    assert small_launches.differences(CudaBackend(loop, core.cuda), loop) == []


def test_small_launches_of_clusters_give_the_reference(core, launched):
    assert small_launches.differences(CudaBackend(native=launched, clusters=True), "score-cluster") == []
    assert "score_top2_cluster" in launched.names and "score_top2" not in launched.names
    wrong = CudaBackend(native=Wrong(core.cuda, "score_top2_cluster", -2), clusters=True)
    assert small_launches.differences(wrong, "score-cluster") == [
        f"{rows} rows of {dim}: second" for rows, dim in small_launches.CLUSTER_CASES
    ]


def test_small_launches_notice_what_is_wrong(core):
    found = small_launches.differences(CudaBackend("simt", Wrong(core.cuda, "rho", -2)), "simt")
    assert any(name.endswith("rho") for name in found)


def test_small_launches_launch_everything(launched):
    small_launches.differences(CudaBackend("mma", launched), "mma")
    small_launches.differences(CudaBackend(native=launched, clusters=True), "score-cluster")
    headers = [cuda_host_library.NATIVE / "cuda" / name for name in ("proto_engine_cuda.h", "score.h")]
    wanted = {name for path in headers for name in re.findall(r"\bcudaError_t launch_(\w+)\(", path.read_text())}
    assert len(wanted) > 20
    assert wanted - launched.names == set()
