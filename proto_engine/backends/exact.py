"""Exact cutoff and density without storing S: one fast pass, and float64 only where it decides.

A backend supplies fast float32 similarities s32 with ``|s32 - S| <= bound`` (`error_bound`), and the
pinned float64 S of single pairs. This module turns them into exact results:

1. A sample of pairs brackets the cutoff in [lo, hi].
2. One pass over the tiles counts, for each row, s32 above the bracket, and keeps the few pairs inside.
3. Let t be the order statistic of the s32 at the cutoff's rank. Order statistics move by no more than
   their entries, so S_c lies within one bound of t, and only pairs with ``|s32 - t| <= 2 bound`` can lie
   on either side of S_c or be S_c. Those are looked up in float64; S_c is one of them.
4. rho follows from integer counts. The diagonal is not visited: S_ii is 1.

Counts by the class of the other row (`class_counts`) are found in the same way, in a pass of their own kind.

If the cutoff's rank falls outside the bracket, the bracket is widened. If more pairs than can be kept
lie inside it (ties: duplicate rows, binary features), S_c is closed in on by histograms of S and a last
pass counts against it: slower, but memory stays bounded.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .base import Pool, cutoff_rank, error_bound

SAMPLED_PAIRS_PER_ROW = 8, 256  # of few rows and of many: a million rows then take 1 GB of sample and 1.5 GB of pairs
SAMPLE_SIGMAS = 4.0  # a miss once in 12,000 calls, of a few hundred rows once in 3,000; each costs one more pass
KEEP_ALL_PAIRS = 2**16  # so few pairs that all may lie inside the bracket
MIN_CAPACITY = 2**20
HISTOGRAM_BINS = 4096
_BATCH = 2**18
_FARTHEST = 4.0  # beyond every similarity, and a float32


@dataclass
class Inside:
    """Outcome of a pass against a bracket: counts above it, and the pairs inside it."""

    above: np.ndarray  # [m] int64, or [m, C] int32 where the pass counts by class
    num_inside: int
    row: np.ndarray  # [n] int32, row < column; empty when num_inside exceeded the capacity
    column: np.ndarray  # [n] int32
    s32: np.ndarray  # [n] float32


class ExactPool(Pool):
    """A pool whose backend supplies the four passes below."""

    @abstractmethod
    def pair_similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Pinned S of pairs of rows.   [n] float64"""

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """S, or s32 where that is faster, of all pairs of two groups of rows, [g, b] each.   [g, b, b]"""
        g, b = first.shape
        left, right = np.repeat(first, b, axis=1), np.tile(second, b)  # [g, b b]
        return self.pair_similarity(left.ravel(), right.ravel()).reshape(g, b, b)

    @abstractmethod
    def count_bracket(self, lo: float, hi: float, capacity: int) -> Inside:
        """Count s32 > hi for each row; keep pairs with lo <= s32 <= hi (lo, hi are float32 values)."""

    @abstractmethod
    def histogram(self, lo: float, hi: float, bins: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        """Pairs with S < lo; and count, least and greatest S of ``bins`` equal bins of [lo, hi]."""

    @abstractmethod
    def count_threshold(self, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
        """#{j != i : S_ij > cutoff} and #{j != i : S_ij < cutoff}.   [m] int64 each"""

    @abstractmethod
    def class_counts_at(self, cutoff: float, offsets: np.ndarray) -> np.ndarray: ...

    @property
    def bound(self) -> float:
        return error_bound(self.dim)

    def reach_of(self, cutoff: float) -> tuple[float, float]:
        """The bracket outside of which s32 decides against a cutoff, of any size; its ends are float32 values."""
        nearest = float(np.clip(cutoff, -_FARTHEST, _FARTHEST))
        return float32_outwards(nearest - self.bound, nearest + self.bound)

    def density(self, quantile: float) -> tuple[float, np.ndarray]:
        return cutoff_and_density(self, quantile)

    def density_at(self, cutoff: float) -> np.ndarray:
        above, below = self.count_threshold(cutoff)
        return above - below + int(np.sign(1.0 - cutoff))  # the last term is the diagonal

    def class_counts(self, quantile: float, offsets: np.ndarray) -> tuple[float, np.ndarray]:
        """In two passes."""
        cutoff = self.density(quantile)[0]
        return cutoff, self.class_counts_at(cutoff, offsets)


class OnePassPool(ExactPool):
    """A pool whose pass against a bracket can count by class, so that cutoff and counts are found in one."""

    @abstractmethod
    def count_bracket_by_class(self, lo: float, hi: float, capacity: int, offsets: np.ndarray) -> Inside:
        """`count_bracket` with #{j of class c : s32 > hi} for each row."""

    def class_counts(self, quantile: float, offsets: np.ndarray) -> tuple[float, np.ndarray]:
        return cutoff_and_class_counts(self, quantile, offsets)


@dataclass
class _Found:
    """The cutoff, and what decides the pairs inside the bracket against it."""

    cutoff: float
    inside: Inside
    high: float  # pairs with a greater s32 are above the cutoff for certain
    first: np.ndarray  # [u] int64 rows of the pairs that s32 did not decide
    second: np.ndarray
    exact: np.ndarray  # [u] float64 their S

    def certain(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows of the pairs inside the bracket that are above the cutoff for certain, some at a time."""
        inside = self.inside
        for start in range(0, len(inside.s32), _BATCH):
            part = slice(start, start + _BATCH)
            above = inside.s32[part] > np.float32(self.high)
            yield inside.row[part][above], inside.column[part][above]


def cutoff_and_density(
    pool: ExactPool,
    quantile: float,
    *,
    bracket: tuple[float, float] | None = None,
    capacity: int | None = None,
) -> tuple[float, np.ndarray]:
    """The cutoff and rho of a pool; ``bracket`` and ``capacity`` replace the chosen ones (for tests)."""
    found = _search(pool, quantile, pool.count_bracket, bracket, capacity)
    if isinstance(found, float):
        return found, pool.density_at(found)
    cutoff, exact = found.cutoff, found.exact
    above = found.inside.above + int(cutoff < 1.0)
    equal = np.full(pool.m, int(cutoff == 1.0), dtype=np.int64)
    for sides in found.certain():  # bincount widens its input: a part at a time
        for side in sides:
            above += np.bincount(side, minlength=pool.m)
    for side in (found.first, found.second):
        above += np.bincount(side[exact > cutoff], minlength=pool.m)
        equal += np.bincount(side[exact == cutoff], minlength=pool.m)
    return cutoff, 2 * above + equal - pool.m


def cutoff_and_class_counts(
    pool: OnePassPool,
    quantile: float,
    offsets: np.ndarray,
    *,
    bracket: tuple[float, float] | None = None,
    capacity: int | None = None,
) -> tuple[float, np.ndarray]:
    """`Pool.class_counts` in one pass; ``bracket`` and ``capacity`` replace the chosen ones (for tests)."""

    def count(lo: float, hi: float, room: int) -> Inside:
        return pool.count_bracket_by_class(lo, hi, room, offsets)

    found = _search(pool, quantile, count, bracket, capacity)
    if isinstance(found, float):
        return found, pool.class_counts_at(found, offsets)
    counts = found.inside.above  # [m, C]
    class_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))  # [m]
    chosen = found.exact > found.cutoff
    for first, second in itertools.chain(found.certain(), [(found.first[chosen], found.second[chosen])]):
        np.add.at(counts, (first, class_of[second]), 1)
        np.add.at(counts, (second, class_of[first]), 1)
    return found.cutoff, counts


def _search(
    pool: ExactPool,
    quantile: float,
    count: Callable[[float, float, int], Inside],
    bracket: tuple[float, float] | None,
    capacity: int | None,
) -> _Found | float:
    """Steps 1 to 3, with passes by ``count``; the cutoff alone where it had to be closed in on."""
    rank = cutoff_rank(quantile, pool.m)
    lo, hi, room = bracket_of(pool, rank)
    lo, hi = (lo, hi) if bracket is None else float32_outwards(*bracket)
    room = room if capacity is None else capacity
    while True:
        inside = count(lo, hi, room)
        first = _entries_below(pool, inside, lo)  # entries of S whose s32 is below the bracket
        last = first + 2 * inside.num_inside + (pool.m if lo <= 1.0 <= hi else 0)
        step = max(3 * (hi - lo), 12 * pool.bound)  # a miss is a near one: the pairs still fit
        if rank < first:
            lo, hi = float32_outwards(lo - step, hi)
        elif rank >= last:
            lo, hi = float32_outwards(lo, hi + step)
        elif inside.num_inside > room:
            return _close_in(pool, rank, lo - pool.bound, hi + pool.bound)
        else:
            t = order_statistic(inside.s32, rank - first, pool.m if lo <= 1.0 <= hi else 0)
            low, high = float32_outwards(t - 2 * pool.bound, t + 2 * pool.bound)
            if lo <= low and high <= hi:
                return _finish(pool, inside, rank - first, t, diagonal_inside=lo <= 1.0 <= hi)
            lo, hi = float32_outwards(min(lo, t - 3 * pool.bound), max(hi, t + 3 * pool.bound))


def bracket_of(pool: ExactPool, rank: int) -> tuple[float, float, int]:
    """A bracket [lo, hi] that holds the entry of the given rank very probably, and room for its pairs."""
    m = pool.m
    num_pairs = m * (m - 1) // 2
    if num_pairs <= KEEP_ALL_PAIRS:
        return -np.inf, np.inf, num_pairs
    sample = _sample(pool)
    sample.sort()
    share = min(rank / (2 * num_pairs), 1.0)  # the diagonal's m entries are (nearly always) on top
    spread = SAMPLE_SIGMAS * np.sqrt(share * (1 - share) / len(sample)) + 1 / len(sample)
    low, high = int(np.floor((share - spread) * len(sample))), int(np.ceil((share + spread) * len(sample)))
    margin = 4 * pool.bound  # two for the pairs that float64 decides, two for s32 against the sample's s32
    lo = float(sample[low]) - margin if low >= 0 else -np.inf
    hi = float(sample[high]) + margin if high < len(sample) else np.inf
    expected = 2 * spread * num_pairs
    return *float32_outwards(lo, hi), int(max(MIN_CAPACITY, 4 * expected))


def order_statistic(values: np.ndarray, rank: int, ones: int) -> float:
    """Entry of the given rank of a sorted list that holds each value twice and ``ones`` times 1.0."""
    smaller = 2 * int(np.count_nonzero(values < 1.0))
    if rank >= smaller and ones:
        if rank < smaller + ones:
            return 1.0
        rank -= ones
    return float(np.partition(values, rank // 2)[rank // 2])


def _sample(pool: ExactPool) -> np.ndarray:
    """S of the pairs of random groups of rows, each with the next group: equally many for each row.

    Such pairs tell as much about the distribution of S as independent ones, and are a small matrix product.
    """
    each = int(np.clip(pool.m // 512, *SAMPLED_PAIRS_PER_ROW))  # in between the bracket's pairs stay near 55 m
    rows = np.random.default_rng(0).permutation(pool.m)[: pool.m // each * each]
    groups = rows.reshape(-1, each)
    after = np.roll(groups, -1, axis=0)
    sample = np.empty((len(groups), each, each), dtype=np.float32)
    step = max(1, _BATCH // each**2)
    for start in range(0, len(groups), step):
        part = slice(start, start + step)
        sample[part] = pool.between(groups[part], after[part])
    return sample.ravel()


def _entries_below(pool: ExactPool, inside: Inside, lo: float) -> int:
    above = int(inside.above.sum(dtype=np.int64)) // 2
    below = pool.m * (pool.m - 1) // 2 - above - inside.num_inside
    return 2 * below + (pool.m if lo > 1.0 else 0)


def _finish(pool: ExactPool, inside: Inside, rank: int, t: float, *, diagonal_inside: bool) -> _Found:
    """Step 3: look up the undecided pairs, take the order statistic among them."""
    # Rounded outwards to float32: a few more pairs are looked up, and no wider copy of s32 is made.
    low, high = float32_outwards(t - 2 * pool.bound, t + 2 * pool.bound)
    undecided = np.flatnonzero((inside.s32 >= np.float32(low)) & (inside.s32 <= np.float32(high)))
    num_below = int(np.count_nonzero(inside.s32 < np.float32(low)))
    first = inside.row[undecided].astype(np.int64)
    second = inside.column[undecided].astype(np.int64)
    exact = pool.pair_similarity(first, second)
    ones = pool.m if diagonal_inside and low <= 1.0 <= high else 0
    rank -= 2 * num_below + (pool.m if diagonal_inside and low > 1.0 else 0)
    return _Found(order_statistic(exact, rank, ones), inside, high, first, second, exact)


def _close_in(pool: ExactPool, rank: int, lo: float, hi: float) -> float:
    """Ties: narrow [lo, hi], which holds S_c, bin by bin until all values of the bin are equal."""
    lo, hi = max(lo, -2.0), min(hi, 2.0)
    while lo < hi:
        below, count, least, most = pool.histogram(lo, hi, HISTOGRAM_BINS)
        first, entries = 2 * below, 2 * count
        if lo > 1.0:
            first += pool.m
        elif hi >= 1.0:  # the diagonal joins the bin of 1.0
            b = min(int((1.0 - lo) / (hi - lo) * HISTOGRAM_BINS), HISTOGRAM_BINS - 1)
            entries[b] += pool.m
            least[b], most[b] = min(least[b], 1.0), max(most[b], 1.0)
        chosen = int(np.searchsorted(first + np.cumsum(entries), rank, side="right"))
        lo, hi = float(least[chosen]), float(most[chosen])
    return lo


def float32_outwards(lo: float, hi: float) -> tuple[float, float]:
    """[lo, hi] with ends that are float32 values, not narrower."""
    low, high = np.float32(lo), np.float32(hi)
    if low > lo:
        low = np.nextafter(low, np.float32(-np.inf))
    if high < hi:
        high = np.nextafter(high, np.float32(np.inf))
    return float(low), float(high)
