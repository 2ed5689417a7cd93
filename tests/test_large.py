"""A class whose similarity matrix has more than 2**31 entries."""

from __future__ import annotations

import numpy as np
import pytest

from proto_engine.backends.base import cutoff_rank, density_order, eta_of
from proto_engine.backends.cpu import CpuBackend
from proto_engine.backends.reference import pinned_dot


@pytest.mark.slow
def test_density_beyond_32_bit_counts():
    m, d = 46_400, 8
    assert m * m > 2**31
    x = np.random.default_rng(0).standard_normal((m, d)).astype(np.float32) + 0.3
    backend = CpuBackend()
    squares = backend.squared_norms(x)
    pool = backend.pool(x, squares)
    cutoff, rho = pool.density(0.6)
    above, below = pool.count_threshold(cutoff)
    np.testing.assert_array_equal(rho, above - below + 1)  # the diagonal is above
    rank = cutoff_rank(0.6, m)
    assert below.sum() <= rank < m * m - above.sum() - m  # the cutoff is the entry of that rank
    double = x.astype(np.float64)
    for i in (0, 1, 20_000, m - 1):
        s = pinned_dot(double[i][None, :], double) / np.sqrt(squares[i] * squares)
        assert rho[i] == np.sign(s - cutoff).sum()


def test_eta_of_an_order_that_is_gathered_in_several_windows():
    m, d = 1100, 2**14 + 1  # fewer than m rows fit into a window of 64 MiB
    rng = np.random.default_rng(0)
    x = rng.standard_normal((m, d), dtype=np.float32)
    backend = CpuBackend()
    pool = backend.pool(x, backend.squared_norms(x))
    rho = rng.integers(0, m // 2, m)  # with ties
    order = density_order(rho)
    eta = eta_of(pool, rho, np.arange(m))
    for i in [*order[:3], *order[-3:], *rng.integers(0, m, 30)]:
        denser = np.flatnonzero(rho > rho[i])
        others = denser if len(denser) else np.arange(m)
        s = pool.pair_similarity(np.full(len(others), i), others)
        assert eta[i] == (s.max() if len(denser) else s.min())
