"""Every backend gives the bits of the reference where the pinned sum has several blocks, and at their edges."""

from __future__ import annotations

import numpy as np
import pytest
from exact_cases import (
    DTYPES,
    EXACT,
    LONG,
    REFERENCE,
    SCORING,
    TILE,
    Engine,
    assert_same_bits,
    assert_same_pool,
    assert_same_sums,
    assert_same_top2,
    case,
    class_vectors,
)

# In float64, sums of float16 or bfloat16 products seldom round: of such rows, only the scores tell.
ROUNDED = ("float32", "float64")


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("dtype", ROUNDED)
def test_sums_have_the_reference_bits(backend, dtype):
    for dim in LONG:
        x, reference = case("normal", TILE + 1, dim, dtype)
        assert_same_sums(Engine(backend), x, reference)


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("dtype", ROUNDED)
def test_pool_has_the_reference_bits(backend, dtype):
    for kind, dim in (("normal", 257), ("close", 520), ("duplicates", 769)):
        x, reference = case(kind, 2 * TILE + 3, dim, dtype)
        assert_same_pool(Engine(backend), x, reference, (0.0, 0.6))


@pytest.mark.parametrize("backend", SCORING)
@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_have_the_reference_bits(backend, dtype):
    for dim in LONG:
        x, _ = case("normal", TILE + 1, dim, dtype)
        assert_same_bits(Engine(backend).squares(x), REFERENCE.squared_norms(x))
        assert_same_top2(Engine(backend), x, class_vectors(np.random.default_rng(dim), 7, dim))


@pytest.mark.skipif("cpu" not in EXACT, reason="the native module was not built")
@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_has_the_reference_bits(name):
    from proto_engine import _core

    before = _core.instruction_set()
    if not _core.use_instruction_set(name):
        pytest.skip(f"this machine has no {name}")
    try:
        engine = Engine("cpu")
        for dtype in DTYPES:
            for dim in LONG:
                x, reference = case("normal", TILE + 1, dim, dtype)
                assert_same_sums(engine, x, reference)
                assert_same_top2(engine, x, class_vectors(np.random.default_rng(dim), 7, dim))
    finally:
        assert _core.use_instruction_set(before)
