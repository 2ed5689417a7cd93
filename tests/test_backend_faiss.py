"""The faiss backend: scores and labels only, with or without the native module beside it."""

from __future__ import annotations

import numpy as np
import pytest
from exact_cases import DTYPES, REFERENCE, Engine, assert_same_bits, case

import proto_engine as pe
from proto_engine.backends import cpu
from proto_engine.backends.base import error_bound
from proto_engine.errors import BackendUnavailable

faiss = pytest.importorskip("faiss")
from proto_engine.backends import faiss as backend_module  # noqa: E402
from proto_engine.backends.faiss import FaissBackend  # noqa: E402


def unit(n: int, dim: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_pools_are_refused():
    x = case("normal", 17, 12)[0]
    backend = FaissBackend()
    with pytest.raises(BackendUnavailable, match="only scores"):
        backend.pool(x, backend.squared_norms(x))
    with pytest.raises(BackendUnavailable, match="only scores"):
        pe.select_prototypes(x, np.zeros(17, dtype=int), backend="faiss")


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_the_native_module(native, dtype, monkeypatch):
    if native and cpu.unavailable is not None:
        pytest.skip("the native module was not built")
    monkeypatch.setattr(cpu, "unavailable", None if native else "hidden by the test")
    engine = Engine("faiss")
    for n, dim in ((1, 1), (2100, 13), (30, 64), (30, 257), (30, 520), (30, 769)):
        x, folded = unit(n, dim).astype(DTYPES[dtype]), unit(9, dim, 1)
        x[n // 2] = 0
        for found, right in zip(engine.top2(x, folded), REFERENCE.top2(x, folded), strict=True):
            assert_same_bits(found, right)
        squares = engine.squares(x)
        assert_same_bits(squares, REFERENCE.squared_norms(x))
        good = squares > 0
        if good.any():
            units = engine.backend.normalize(x[good], squares[good])
            np.testing.assert_allclose(units, REFERENCE.normalize(x[good], squares[good]), rtol=2.0**-22)
            assert np.abs(engine.score(x, folded) - REFERENCE.score(x, folded))[good].max() <= error_bound(dim)


def test_only_rows_that_float32_cannot_decide_are_scored_in_full(monkeypatch):
    folded = unit(12, 40, 1)
    folded[5] = folded[4] * (1 + 1e-13)  # float32 cannot tell classes 4 and 5 apart
    folded[6] = folded[4] * (1 - 1e-13)
    x = np.concatenate([unit(200, 40), folded[[4, 4, 6]]])
    in_full = []
    scores = backend_module._pinned_scores

    def watched(rows: np.ndarray, vectors: np.ndarray, classes: np.ndarray | None) -> np.ndarray:
        if classes is None:
            in_full.append(len(rows))
        return scores(rows, vectors, classes)

    monkeypatch.setattr(backend_module, "_pinned_scores", watched)
    label, best, second = FaissBackend().top2(x, folded)
    for found, right in zip((label, best, second), REFERENCE.top2(x, folded), strict=True):
        assert_same_bits(found, right)
    assert label[-3:].tolist() == [5, 5, 5]
    assert 3 <= sum(in_full) < 60


def test_full_scores_are_computed_in_bounded_pieces(monkeypatch):
    folded = np.repeat(unit(1, 16, 1), 7, axis=0)
    x = unit(50, 16)
    monkeypatch.setattr(backend_module, "_PRODUCT_BYTES", 3 * folded.nbytes)
    for found, right in zip(FaissBackend().top2(x, folded), REFERENCE.top2(x, folded), strict=True):
        assert_same_bits(found, right)


def test_number_of_threads_is_set_and_restored(monkeypatch):
    monkeypatch.setenv("PROTO_ENGINE_NUM_THREADS", "3")
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        with backend_module._threads():
            assert faiss.omp_get_max_threads() == 3
        assert faiss.omp_get_max_threads() == 2
        with pytest.raises(ZeroDivisionError), backend_module._threads():
            _ = 1 / 0
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)
