"""Class pools: whole or drawn, seeded, by given label."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from proto_engine.sampling import class_pools


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(1, 20), st.integers(0, 5))
def test_pools_hold_rows_of_their_class_without_repeats(labels, m, seed):
    labels = np.array(labels)
    for pool, members in zip(
        class_pools(labels, 6, m, seed), (np.flatnonzero(labels == c) for c in range(6)), strict=True
    ):
        assert len(pool) == min(m, len(members))
        assert (np.diff(pool) > 0).all()
        assert np.isin(pool, members).all()


def test_whole_classes_are_all_rows():
    labels = np.array([1, 0, 1, 3])
    assert [pool.tolist() for pool in class_pools(labels, 4, None, 0)] == [[1], [0, 2], [], [3]]


def test_unusable_rows_stay_out_and_preferred_rows_come_first():
    labels = np.zeros(100, dtype=int)
    usable = np.arange(100) % 2 == 0
    preferred = np.arange(100) < 20
    (pool,) = class_pools(labels, 1, 30, 0, usable, preferred)
    assert usable[pool].all()
    assert preferred[pool].sum() == 10
    assert len(pool) == 30
    (pool,) = class_pools(labels, 1, 6, 0, usable, preferred)
    assert preferred[pool].all()


def test_draws_depend_on_seed_and_class_and_cover_the_class():
    labels = np.repeat([0, 1], 50)
    a, b = class_pools(labels, 2, 10, 7), class_pools(labels, 2, 10, 8)
    assert a[0].tolist() != b[0].tolist()
    assert a[0].tolist() != (a[1] - 50).tolist()
    seen = np.unique(np.concatenate([class_pools(labels, 2, 10, s)[0] for s in range(60)]))
    assert len(seen) == 50
