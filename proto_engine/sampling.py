"""Class pools: which rows of a class take part in finding its prototypes."""

from __future__ import annotations

import numpy as np


def class_pools(
    labels: np.ndarray,
    num_classes: int,
    samples_per_class: int | None,
    seed: int,
    usable: np.ndarray | None = None,
    preferred: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Draw the pool of each class from the given labels, without replacement.

    Parameters
    ----------
    labels : numpy.ndarray of int64, [N]
        Given labels.
    num_classes : int
        C.
    samples_per_class : int or None
        m; a class with fewer rows uses them all, None uses all rows of every class.
    seed : int
        Each class draws from a generator of its own, seeded with (seed, class).
    usable : numpy.ndarray of bool, [N], optional
        Rows that may take part; by default all.
    preferred : numpy.ndarray of bool, [N], optional
        Rows that come first; the others only top the pool up to m.

    Returns
    -------
    list of numpy.ndarray of int64
        C ascending arrays of row numbers; empty for a class without usable rows.
    """
    rows = np.arange(len(labels)) if usable is None else np.flatnonzero(usable)
    keys = labels[rows].astype(np.uint16) if num_classes <= 2**16 else labels[rows]  # NumPy sorts 16 bits by radix
    by_class = rows[np.argsort(keys, kind="stable")]  # ascending within a class
    ends = np.cumsum(np.bincount(labels[rows], minlength=num_classes))
    pools = []
    for c, members in enumerate(np.split(by_class, ends[:-1])):
        if samples_per_class is not None and len(members) > samples_per_class:
            members = np.sort(_draw(members, samples_per_class, np.random.default_rng([seed, c]), preferred))
        pools.append(members)
    return pools


def class_seed(seed: int, c: int) -> int:
    """A seed for one class, below 2**32 as scikit-learn wants it."""
    if seed + c < 2**32:
        return seed + c
    return int(np.random.SeedSequence([seed, c]).generate_state(1)[0])


def _draw(members: np.ndarray, count: int, rng: np.random.Generator, preferred: np.ndarray | None) -> np.ndarray:
    if preferred is None:
        return rng.choice(members, count, replace=False)
    first, rest = members[preferred[members]], members[~preferred[members]]
    if len(first) >= count:
        return rng.choice(first, count, replace=False)
    return np.concatenate([first, rng.choice(rest, count - len(first), replace=False)])
