"""The reference against cases worked by hand, and the bound on float32 products."""

from __future__ import annotations

import numpy as np
import pytest
from exact_cases import EXACT, REFERENCE, Engine, assert_same_bits, reference_pool

from proto_engine.backends.base import cutoff_rank, error_bound, eta_of
from proto_engine.backends.reference import pinned_dot

# Rows of length 5: S_01 = 24/25, S_02 = (9 - 16)/25 = -7/25, S_12 = (12 - 12)/25 = 0.
# The nine entries of S in order: -.28 -.28 0 0 .96 .96 1 1 1.
HAND = np.array([[3.0, 4.0], [4.0, 3.0], [3.0, -4.0]])


def test_reference_similarity_by_hand():
    np.testing.assert_array_equal(reference_pool(HAND).similarity(), [[1, 0.96, -0.28], [0.96, 1, 0], [-0.28, 0, 1]])


@pytest.mark.parametrize(
    ("quantile", "index", "cutoff"),
    [(0, 0, -0.28), (0.4, 3, 0), (0.5, 4, 0.96), (0.6, 4, 0.96), (0.98, 7, 1), (1, 8, 1)],
)
def test_reference_cutoff_by_hand(quantile, index, cutoff):
    assert cutoff_rank(quantile, 3) == index  # floor(8 q)
    assert reference_pool(HAND).density(quantile)[0] == cutoff
    s = reference_pool(HAND).s
    assert cutoff == np.quantile(s, quantile, method="lower")


def test_reference_density_by_hand():
    pool = reference_pool(HAND)
    # Against 0: row 0 has 1 and .96 above, -.28 below; row 1 has 1 and .96 above, 0 equal;
    # row 2 has 1 above, -.28 below, 0 equal.
    assert pool.density_at(0.0).tolist() == [1, 2, 0]
    # Against .96: the diagonal above everywhere; .96 equal; the rest below.
    assert pool.density_at(0.96).tolist() == [0, 0, -1]
    assert pool.density_at(-0.28).tolist() == [2, 3, 2]
    assert pool.density_at(1.0).tolist() == [-2, -2, -2]  # the diagonal is equal
    assert pool.density_at(0.0).dtype == np.int64


def test_reference_eta_by_hand():
    """Row 1 is the densest: its eta is the least of (.96, 1, 0). Row 0 looks at row 1 only, row 2 at both.

    Started from S_ii = 1, rows 0 and 2 would get 1. Compared the wrong way round, row 0 would look at
    row 2 and get -.28, and row 2, then the one without a better, the least of its row: -.28.
    """
    pool = reference_pool(HAND)
    rho = np.array([1, 2, 0])
    assert eta_of(pool, rho, np.arange(3)).tolist() == [0.96, 0.0, 0.0]
    # Equal densities do not shadow each other: rows 0 and 1 are both the densest.
    assert eta_of(pool, np.array([0, 0, -1]), np.arange(3)).tolist() == [-0.28, 0.0, 0.0]


@pytest.mark.parametrize("backend", EXACT)
def test_backends_by_hand(backend):
    pool = Engine(backend).pool(HAND)
    cutoff, rho = pool.density(0.4)
    assert (cutoff, rho.tolist()) == (0.0, [1, 2, 0])
    assert eta_of(pool, rho, np.arange(3)).tolist() == [0.96, 0.0, 0.0]
    assert pool.density(0.6)[1].tolist() == [0, 0, -1]


def test_reference_sum_is_pinned_by_hand():
    """1e16 + 1 is 1e16 in float64: what cancels first decides what is left."""
    ones = np.ones(16)
    a = np.zeros(16)
    a[[0, 8, 1]] = 1e16, -1e16, 1.0  # lane 0 cancels, then lane 1 is added
    assert pinned_dot(a, ones) == 1.0
    a = np.zeros(16)
    a[[0, 1, 4]] = 1e16, 1.0, -1e16  # lanes 0 + 4 first, then (1 + 5)
    assert pinned_dot(a, ones) == 1.0
    a = np.zeros(16)
    a[[0, 1, 7]] = 1.0, 1e16, -1e16  # (1 + 5) + (3 + 7) before the 1 of lane 0
    assert pinned_dot(a, ones) == 1.0
    a = np.zeros(16)
    a[[0, 1, 2]] = 1e16, 1.0, -1e16  # (0 + 4) + (2 + 6) before lane 1
    assert pinned_dot(a, ones) == 1.0
    a = np.zeros(16)
    a[[0, 8, 2]] = 1e16, 1.0, -1e16  # lane 0 takes the 1 in and loses it
    assert pinned_dot(a, ones) == 0.0


# The values at some columns, and their pinned sum; all other columns are zero.
BLOCKS_BY_HAND = {
    # Block 0 is 0 and block 1 is 1; a lane 0 that went on into block 1 would swallow it.
    "a block is folded by itself": ({0: 1e16, 1: -1e16, 256: 1.0}, 1.0),
    # 1e16, and in block 1 -1e16 + 1 = -1e16; lanes over all columns would cancel 0 and 2 before lane 1 adds its 1.
    "what cancels is in another block": ({0: 1e16, 257: 1.0, 258: -1e16}, 0.0),
    # Column 255 still cancels column 0, and the 1 is left; in block 1, 1 - 1e16 = -1e16 would lose it.
    "the last column of a block": ({0: 1e16, 255: -1e16, 256: 1.0}, 1.0),
    # Block 1 cancels by itself and the 1 of block 0 is left; column 256 in block 0 would swallow it in lane 0.
    "the first column of a block": ({0: 1.0, 256: 1e16, 257: -1e16}, 1.0),
    # 1e16, 1e16 + 1 = 1e16, 0, 1. In pairs (1e16 + 1) + (-1e16 + 1) = 0; backwards 1, -1e16, -1e16, 0.
    "blocks are added in order": ({0: 1e16, 256: 1.0, 512: -1e16, 768: 1.0}, 1.0),
    # 1, 1 + 1e16 = 1e16, 0; from the last block on, the 1 would be left.
    "from the first block on": ({0: 1.0, 256: 1e16, 512: -1e16}, 0.0),
    # Block 1 is 0 and block 2 a single 1; a lane 0 that was not emptied would still hold the 1e16.
    "a block of one column": ({256: 1e16, 257: -1e16, 512: 1.0}, 1.0),
}


@pytest.mark.parametrize("name", BLOCKS_BY_HAND)
def test_reference_sum_goes_block_after_block_by_hand(name):
    values, wanted = BLOCKS_BY_HAND[name]
    a = np.zeros(max(values) + 1)
    a[list(values)] = list(values.values())
    assert pinned_dot(a, np.ones(len(a))) == wanted
    assert pinned_dot(np.append(a, 0.0), np.ones(len(a) + 1)) == wanted


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("name", BLOCKS_BY_HAND)
def test_backends_sum_block_after_block_by_hand(backend, name):
    """The row of ones has no others, so that its square is their number in any order."""
    values, wanted = BLOCKS_BY_HAND[name]
    x = np.zeros((2, max(values) + 1))
    x[0, list(values)], x[1, list(values)] = list(values.values()), 1.0
    squares = REFERENCE.squared_norms(x)
    assert squares[1] == len(values)
    found = Engine(backend).pool(x).pair_similarity(np.array([0]), np.array([1]))
    assert_same_bits(found, np.array([wanted]) / np.sqrt(squares[:1] * squares[1:]))


def test_reference_scores_by_hand():
    folded = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    rows = np.array([[3.0, 4.0], [4.0, 3.0], [0.0, 0.0], [np.nan, 1.0]])
    label, best, second = REFERENCE.top2(rows, folded)
    assert label.tolist() == [1, 0, -1, -1]  # classes 1 and 2 tie at .8: the lower one
    np.testing.assert_array_equal(best, [0.8, 0.8, np.nan, np.nan])
    np.testing.assert_array_equal(second, [0.8, 0.6, np.nan, np.nan])
    assert REFERENCE.top2(rows[:1], folded[:1])[2].tolist() == [-np.inf]
    np.testing.assert_array_equal(REFERENCE.score(rows, folded)[0], [0.6, 0.8, 0.8])


def test_error_bound_is_the_textbook_one():
    u = 2.0**-24
    assert error_bound(512) == 520 * u / (1 - 520 * u)
    assert all(error_bound(d) < error_bound(d + 1) for d in range(1, 100))
    assert 8 * u < error_bound(1) < 1e-6 < error_bound(4096) < 1e-3


@pytest.mark.parametrize("dim", [1, 2, 7, 64, 777, 4096])
def test_error_bound_holds_for_every_order_of_additions(dim):
    rng = np.random.default_rng(dim)
    rows = [
        rng.standard_normal(dim),
        rng.random(dim),
        np.ones(dim),
        rng.random(dim) ** 8,
        10.0 ** rng.uniform(-9, 9, dim),
    ]
    rows += [-rows[1], np.where(np.arange(dim) % 2, 1.0, -1.0) * rows[1], np.sort(rows[1])]
    x = np.array(rows)
    squares = pinned_dot(x, x)
    s = pinned_dot(x[:, None], x[None]) / np.sqrt(squares[:, None] * squares)
    unit = (x / np.sqrt(squares)[:, None]).astype(np.float32)
    product = unit[:, None] * unit[None]  # [n, n, D] float32
    for values in (product, product[..., ::-1], np.sort(product), np.sort(product)[..., ::-1]):
        running = np.cumsum(values, axis=-1, dtype=np.float32)[..., -1]
        assert np.abs(running - s).max() <= error_bound(dim)
    assert np.abs(unit @ unit.T - s).max() <= error_bound(dim)
