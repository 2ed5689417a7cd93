"""Every backend gives the bits of the reference: labels, best and second score; float32 scores keep the bound."""

from __future__ import annotations

import numpy as np
import pytest
from exact_cases import (
    DTYPES,
    REFERENCE,
    SCORING,
    TILE,
    Engine,
    assert_same_bits,
    assert_same_top2,
    case,
    class_vectors,
    reference_pool,
)

from proto_engine.backends.base import density_order, error_bound, eta_of


@pytest.mark.parametrize("backend", SCORING)
@pytest.mark.parametrize("num_classes", [1, 2, 3, 7, 40])
def test_top2_has_the_reference_bits_and_ties_go_to_the_lower_class(backend, num_classes):
    rng = np.random.default_rng(num_classes)
    folded = class_vectors(rng, num_classes, 21)
    for dtype in DTYPES.values():
        x = np.concatenate(
            [
                rng.standard_normal((60, 21)),
                rng.choice([-2.0, 0.5, 4.0], (40, 1)) * folded[rng.integers(0, num_classes, 40)],
            ]
        )
        assert_same_top2(Engine(backend), x.astype(dtype), folded)


@pytest.mark.parametrize("backend", SCORING)
def test_top2_of_many_rows_is_the_same_for_one_and_two_threads(backend, monkeypatch):
    rng = np.random.default_rng(0)
    x, folded = rng.standard_normal((5000, 33)).astype(np.float32), class_vectors(rng, 12, 33)
    for threads in (1, 2):
        monkeypatch.setenv("PROTO_ENGINE_NUM_THREADS", str(threads))
        assert_same_top2(Engine(backend, threads), x, folded)
        assert_same_top2(Engine(backend, threads), x[::3, ::-1], folded)


@pytest.mark.parametrize("backend", SCORING)
def test_top2_of_classes_that_float32_cannot_tell_apart(backend):
    rng = np.random.default_rng(0)
    for spread in (1e-9, 1e-8, 1e-7):
        folded = np.repeat(class_vectors(rng, 3, 24), 8, axis=0) * (1 + spread * rng.standard_normal((24, 24)))
        assert_same_top2(Engine(backend), rng.standard_normal((100, 24)).astype(np.float32), folded)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("backend", SCORING)
def test_read_only_arrays_are_welcome_everywhere(backend):
    x, _ = case("normal", TILE + 1, 21)
    folded = class_vectors(np.random.default_rng(0), 5, 21)
    folded.flags.writeable = False
    assert_same_top2(Engine(backend), x, folded)
    assert Engine(backend).score(x, folded).shape == (TILE + 1, 5)
    if backend != "faiss":
        engine = Engine(backend)
        squares = engine.squares(x).copy()
        squares.flags.writeable = False
        pool = engine.backend.pool(engine.rows(x), squares)
        rho = pool.density(0.6)[1]
        order = density_order(rho)
        order.flags.writeable = False
        assert_same_bits(eta_of(pool, rho, order, order), eta_of(reference_pool(x), rho, order))


@pytest.mark.parametrize("backend", SCORING)
def test_top2_where_all_classes_tie(backend):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 8)).astype(np.float32)
    folded = np.repeat(class_vectors(rng, 3, 8)[:1], 9, axis=0)
    label, best, second = Engine(backend).top2(x, folded)
    assert (label == 0).all()
    assert_same_bits(best, second)
    assert_same_top2(Engine(backend), x, folded)


BAD_ROWS = {
    "float16": (0.0, np.nan, np.inf, 1e30),
    "float32": (0.0, np.nan, -np.inf),
    "float64": (0.0, np.nan, np.inf, -0.0),
}


@pytest.mark.parametrize("backend", SCORING)
@pytest.mark.parametrize("dtype", BAD_ROWS)
@pytest.mark.filterwarnings("error")
def test_rows_without_a_direction_get_no_label_and_nan(backend, dtype):
    rng = np.random.default_rng(0)
    folded = class_vectors(rng, 5, 11)
    x = rng.standard_normal((20, 11))
    for at, value in enumerate(BAD_ROWS[dtype]):
        x[3 * at] = 0.0
        x[3 * at, 7] = value
    with np.errstate(over="ignore"):
        x = x.astype(dtype)
    bad = 3 * np.arange(len(BAD_ROWS[dtype]))
    label, best, second = Engine(backend).top2(x, folded)
    sigma = Engine(backend).score(x, folded)
    assert (label[bad] == -1).all() and (label >= 0).sum() == len(x) - len(bad)
    assert np.isnan(best[bad]).all() and np.isnan(second[bad]).all() and np.isnan(sigma[bad]).all()
    assert not np.isnan(np.delete(sigma, bad, axis=0)).any()
    assert_same_top2(Engine(backend), x, folded)
    assert_same_top2(Engine(backend), x[bad], folded)


@pytest.mark.parametrize("backend", SCORING)
@pytest.mark.parametrize("dtype", DTYPES)
def test_score_is_within_the_bound(backend, dtype):
    rng = np.random.default_rng(0)
    for n, dim, num_classes in ((1, 1, 1), (33, 40, 5), (1500, 16, 3)):
        folded = class_vectors(rng, num_classes, dim)
        x = rng.standard_normal((n, dim)).astype(DTYPES[dtype])
        sigma = Engine(backend).score(x, folded)
        assert sigma.dtype == np.float32 and sigma.shape == (n, num_classes)
        assert np.abs(sigma - REFERENCE.score(x, folded)).max() <= error_bound(dim)


@pytest.mark.parametrize("backend", SCORING)
@pytest.mark.parametrize("dtype", DTYPES)
def test_normalize_gives_unit_rows_to_float32(backend, dtype):
    for dim in (3, 16, 29):
        x, _ = case("normal", TILE + 1, dim, dtype)
        engine = Engine(backend)
        squares = engine.squares(x)
        assert_same_bits(squares, REFERENCE.squared_norms(x))
        unit = np.asarray(engine.backend.normalize(engine.rows(x), squares))
        assert unit.dtype == np.float32
        np.testing.assert_allclose(unit, REFERENCE.normalize(x, squares), rtol=2.0**-23, atol=0)
