"""select_prototypes and density_peaks: the rules of the method, and what must not change the outcome."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import clustered, select

import proto_engine as pe
from proto_engine import selection
from proto_engine.backends.base import density_order
from proto_engine.backends.reference import ReferenceBackend


def same(a: pe.Prototypes, b: pe.Prototypes) -> None:
    for name in ("indices", "vectors", "folded", "counts", "cutoff", "rho", "eta", "filtered"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def by_hand(x: np.ndarray, p: int, quantile: float, eta_max: float) -> list[int]:
    """The published rule written out for one class, every eta from its definition."""
    squares = ReferenceBackend().squared_norms(x)
    s = ReferenceBackend().pool(x, squares).similarity()
    m = len(s)
    cutoff = np.sort(s.ravel())[int(np.floor(quantile * (m * m - 1)))]
    rho = np.sign(s - cutoff).sum(axis=1)
    picks = []
    for rank, i in enumerate(sorted(range(m), key=lambda i: (-rho[i], i))):
        denser = rho > rho[i]
        eta = s[i, denser].max() if denser.any() else s[i].min()
        if (eta < eta_max or rank == 0) and len(picks) < p:
            picks.append(i)
    return picks


@pytest.mark.parametrize("eta_max", [-1.0, 0.2, 0.5, 0.8, 0.95, 2.0])
@pytest.mark.parametrize("quantile", [0.4, 0.6])
@pytest.mark.parametrize("p", [1, 8, 100])
def test_selection_follows_the_rule_written_out(eta_max, quantile, p):
    x, _ = clustered(60, 5, 2, seed=3)
    got = select(
        x, np.zeros(60, int), prototypes_per_class=p, cutoff_quantile=quantile, eta_max=eta_max, samples_per_class=None
    )
    expected = by_hand(x, p, quantile, eta_max)
    assert got.indices[0][: got.counts[0]].tolist() == expected
    assert (got.indices[0][got.counts[0] :] == -1).all()


@pytest.mark.parametrize("method", ["density-peaks", "kmeans++", "density-peaks-euclidean"])
def test_selection_finds_rows_of_the_class_only(method):
    x, y = clustered(300, 8, 4, noise=0.3)
    got = select(x, y, method=method, samples_per_class=50, prototypes_per_class=6)
    for c in range(4):
        rows = got.indices[c]
        assert len(set(rows)) == 6
        assert (y[rows] == c).all()
        unit = x[rows].astype(float) / np.linalg.norm(x[rows].astype(float), axis=1, keepdims=True)
        np.testing.assert_allclose(got.vectors[c], unit, rtol=1e-6)
        np.testing.assert_allclose(got.folded[c], unit.mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("method", ["density-peaks", "kmeans++", "density-peaks-euclidean"])
def test_selection_of_empty_tiny_and_duplicate_classes(method):
    x, y = clustered(200, 6, 3)
    y = y.copy()
    y[y == 1] = 0  # class 1 is empty
    y[5], y[6], y[7] = 3, 4, 4  # one row; two rows
    y[8:20] = 5
    x[8:20] = x[8]  # equal rows
    got = select(x, y, num_classes=7, method=method, prototypes_per_class=4)
    assert got.counts[1] == 0
    assert got.counts[6] == 0
    assert (got.indices[1] == -1).all()
    assert got.indices[3].tolist() == [5, -1, -1, -1]
    assert np.isnan(got.cutoff[1])
    assert 1 <= got.counts[4] <= 2
    assert 1 <= got.counts[5] <= 4
    assert np.isnan(got.eta[1]).all()
    corrections = pe.correct_labels(x, y, got)
    assert not np.isin(corrections.labels, [1, 6]).any()
    scores = pe.score_samples(x, got)
    assert np.isneginf(scores[:, [1, 6]]).all()
    assert np.isfinite(scores[:, [0, 2, 3, 4, 5]]).all()


def test_densest_row_is_taken_when_the_filter_passes_nothing():
    x = np.ones((20, 3), dtype=np.float32) + 0.001 * np.random.default_rng(0).standard_normal((20, 3)).astype("f4")
    with pytest.warns(UserWarning, match="eta_max turned down more than half of 1 classes"):
        got = pe.select_prototypes(x, np.zeros(20, int))
    assert got.counts[0] == 1
    rho = pe.density_peaks(x, full_eta=False).rho
    assert got.indices[0, 0] == density_order(rho)[0]
    assert got.filtered[0] == 19 / 20


def test_equal_densities_never_shadow_each_other_and_the_lower_row_comes_first():
    # Two orthogonal pairs of equal rows: S is 1 within a pair and 0 across, all rho are equal, all rows
    # are of the highest density, eta is the min of S = 0 for each, and the picks are rows 0, 1, 2, ...
    x = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.float32)
    got = pe.select_prototypes(x, np.zeros(4, int), prototypes_per_class=3)
    assert got.indices[0].tolist() == [0, 1, 2]
    assert got.eta[0].tolist() == [0.0, 0.0, 0.0]


def test_selection_is_lazy_about_eta(monkeypatch):
    x, _ = clustered(2000, 16, 1)
    from proto_engine.backends.cpu import CpuPool

    asked = []
    original = CpuPool.extreme
    monkeypatch.setattr(
        CpuPool, "extreme", lambda self, o, rows, *a: asked.append(len(rows)) or original(self, o, rows, *a)
    )
    pe.select_prototypes(x, np.zeros(2000, int), samples_per_class=None, backend="cpu")
    assert 16 <= sum(asked) < 500


def test_candidates_alone_become_prototypes_and_fill_the_pool_first():
    x, y = clustered(400, 8, 2, seed=1)
    verified = np.flatnonzero(y == 0)[::7]
    mask = np.zeros(400, bool)
    mask[verified] = True
    with pytest.warns(UserWarning, match=r"classes \[1\] have none"):
        by_mask = pe.select_prototypes(x, y, candidates=mask, samples_per_class=60)
    assert by_mask.counts[0] > 0
    assert set(by_mask.indices[0]) - {-1} <= set(verified)
    assert by_mask.counts[1] > 0
    same(by_mask, select(x, y, candidates=verified, samples_per_class=60))
    few = select(x, y, candidates=verified, samples_per_class=len(verified))
    alone = select(x[verified], np.zeros(len(verified), int), samples_per_class=None)
    assert few.indices[0].tolist() == verified[alone.indices[0]].tolist()


def test_bad_rows_are_named_or_left_out():
    x, y = clustered(120, 6, 3)
    x[3], x[50, 2], x[70] = 0, np.nan, np.inf
    with pytest.raises(ValueError, match=r"features: .* got 3 of 120 rows .*rows 3, 50, 70"):
        pe.select_prototypes(x, y)
    got = select(x, y, on_bad_rows="keep-label")
    kept = np.setdiff1d(np.arange(120), [3, 50, 70])
    clean = select(x[kept], y[kept])
    np.testing.assert_array_equal(got.indices, np.where(clean.indices < 0, -1, kept[clean.indices]))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_float16_overflow_is_a_bad_row(backend):
    x = np.array([[1.0, 2.0], [70000.0, 1.0]]).astype(np.float32)
    with np.errstate(over="ignore"):
        half = x.astype(np.float16)
    with pytest.raises(ValueError, match=r"got 1 of 2 rows .*\(rows 1\)"):
        pe.select_prototypes(half, [0, 0], backend=backend)


# ---- what must not change the outcome -----------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 90), st.integers(1, 12), st.integers(0, 1000), st.sampled_from(["normal", "binary", "duplicates"])
)
def test_selection_is_the_same_for_permuted_rows_up_to_ties(m, d, seed, kind):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((m, d)).astype(np.float32) + 0.2
    if kind == "binary":
        x = (x > 0).astype(np.float32) + 0.0
        x[:, 0] = 1
    if kind == "duplicates":
        x = x[rng.integers(0, max(1, m // 2), m)]
    order = rng.permutation(m)
    a, b = pe.density_peaks(x), pe.density_peaks(x[order])
    assert a.cutoff == b.cutoff
    np.testing.assert_array_equal(a.rho[order], b.rho)
    np.testing.assert_array_equal(a.eta[order], b.eta)


def test_selection_permutes_with_the_classes():
    x, y = clustered(300, 8, 5, noise=0.2)
    relabel = np.array([3, 0, 4, 1, 2])
    a, b = select(x, y, samples_per_class=None), select(x, relabel[y], samples_per_class=None)
    np.testing.assert_array_equal(a.indices, b.indices[relabel])
    np.testing.assert_array_equal(
        pe.correct_labels(x, relabel[y], b).labels, relabel[pe.correct_labels(x, y, a).labels]
    )


def test_selection_ignores_the_length_of_rows():
    x, y = clustered(200, 8, 2)
    scale = 2.0 ** np.random.default_rng(0).integers(-20, 20, (200, 1)).astype(np.float32)  # exact
    a, b = select(x, y), select(x * scale.astype(np.float32), y)
    np.testing.assert_array_equal(a.indices, b.indices)
    np.testing.assert_array_equal(a.rho, b.rho)


def test_selection_turns_with_the_features():
    x, y = clustered(250, 8, 2)
    x = np.round(x * 64).astype(np.float64)
    rotation = np.eye(8)[np.random.default_rng(0).permutation(8)] * np.array([1, -1, 1, 1, -1, 1, -1, 1])  # exact
    a, b = select(x, y), select(x @ rotation, y)
    np.testing.assert_array_equal(a.indices, b.indices)
    np.testing.assert_array_equal(a.rho, b.rho)


def test_duplicating_every_row_keeps_the_picks():
    x, _ = clustered(80, 6, 1)
    once = pe.density_peaks(x, cutoff_quantile=0.5)
    twice = pe.density_peaks(np.repeat(x, 2, axis=0), cutoff_quantile=0.5)
    assert twice.cutoff == pytest.approx(once.cutoff, abs=0.02)
    np.testing.assert_array_equal(twice.rho[::2], twice.rho[1::2])
    np.testing.assert_array_equal(twice.eta[::2], twice.eta[1::2])


def test_seed_decides_the_draw():
    x, y = clustered(500, 8, 2)
    a, b, c = (select(x, y, samples_per_class=40, seed=s) for s in (1, 1, 2))
    same(a, b)
    assert (a.indices != c.indices).any()


# ---- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "match", "change"),
    [
        (ValueError, r"labels: wanted 10 entries.* got 9", {"labels": np.zeros(9, int)}),
        (TypeError, r"labels: wanted integers, got float64", {"labels": np.zeros(10)}),
        (
            ValueError,
            r"labels: wanted 0 or more, got -1 at row 4",
            {"labels": np.array([0, 1, 0, 1, -1, 0, 0, 0, 0, 0])},
        ),
        (
            ValueError,
            r"labels: wanted less than num_classes = 2, got 5 at row 0",
            {"labels": np.full(10, 5), "num_classes": 2},
        ),
        (ValueError, r"labels: wanted one dimension", {"labels": np.zeros((10, 1), int)}),
        (ValueError, r"features: wanted \[N, D\].*\(0, 4\)", {"features": np.zeros((0, 4), np.float32)}),
        (ValueError, r"features: wanted \[N, D\].*\(10,\)", {"features": np.zeros(10, np.float32)}),
        (TypeError, r"features: wanted float16.* got int64", {"features": np.ones((10, 4), int)}),
        (TypeError, r"features: wanted float16.* got object", {"features": np.full((10, 4), None)}),
        (TypeError, r"features: wanted float16.* got complex", {"features": np.ones((10, 4), complex)}),
        (ValueError, r"prototypes_per_class: wanted 1 or more, got 0", {"prototypes_per_class": 0}),
        (ValueError, r"prototypes_per_class: wanted .* a share .* got 2.0", {"prototypes_per_class": 2.0}),
        (ValueError, r"samples_per_class: wanted 1 or more, got -3", {"samples_per_class": -3}),
        (ValueError, r"cutoff_quantile: wanted a number from 0 to 1, got 1.5", {"cutoff_quantile": 1.5}),
        (TypeError, r"cutoff_quantile: wanted a number from 0 to 1, got str", {"cutoff_quantile": "0.6"}),
        (ValueError, r"eta_max: wanted a finite number, got nan", {"eta_max": float("nan")}),
        (ValueError, r"method: wanted one of 'density-peaks', .* got 'best'", {"method": "best"}),
        (ValueError, r"on_bad_rows: wanted one of 'raise', 'keep-label', got 'skip'", {"on_bad_rows": "skip"}),
        (ValueError, r"backend: wanted 'auto' or one of 'cpu', .* got 'gpu'", {"backend": "gpu"}),
        (TypeError, r"backend: wanted 'auto' or a name from backends\(\), got list", {"backend": ["cpu"]}),
        (ValueError, r"on_bad_rows: wanted one of .* got array", {"on_bad_rows": np.array(["raise", "raise"])}),
        (ValueError, r"prototypes_per_class: wanted 16777216 at most, got 4611", {"prototypes_per_class": 2**62}),
        (ValueError, r"eta_max: wanted a finite number, got a whole number of 1329 bits", {"eta_max": 10**400}),
        (ValueError, r"eta_max: wanted a finite number, got inf", {"eta_max": np.float32(np.inf)}),
        (ValueError, r"cutoff_quantile: .* got a whole number of 16610 bits", {"cutoff_quantile": 10**5000}),
        (ValueError, r"seed: wanted 0 or more, got -1", {"seed": -1}),
        (ValueError, r"num_classes: wanted 1 or more, got 0", {"num_classes": 0}),
        (ValueError, r"candidates: wanted a mask of 10 entries, got 3", {"candidates": np.ones(3, bool)}),
        (ValueError, r"candidates: wanted rows 0 to 9, got 0 to 10", {"candidates": [0, 10]}),
        (TypeError, r"candidates: wanted row numbers or a bool mask, got float64", {"candidates": [0.5]}),
        (ValueError, r"candidates: wanted one dimension", {"candidates": np.ones((10, 1), bool)}),
    ],
)
def test_selection_refuses_with_the_argument_named(error, match, change):
    arguments = {"features": np.random.default_rng(0).random((10, 4)).astype("f4"), "labels": np.arange(10) % 2}
    arguments |= change
    features, labels = arguments.pop("features"), arguments.pop("labels")
    with pytest.raises(error, match=match):
        pe.select_prototypes(features, labels, **arguments)


def test_kmeans_takes_seeds_of_any_size():
    x, y = clustered(120, 5, 3)
    picks = [select(x, y, method="kmeans++", seed=seed).indices for seed in (2**32 - 1, 2**32, 2**70)]
    assert all((indices >= 0).all() for indices in picks)
    assert (picks[0] != picks[1]).any() and (picks[1] != picks[2]).any()
    seeds = []

    def pick(unit, p, may_pick, *, seed):
        seeds.append(seed)
        return np.arange(1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "pick_kmeans", pick)
        for seed in (7, 2**32 - 2):
            select(x, y, method="kmeans++", seed=seed)
    assert seeds[:5] == [7, 8, 9, 2**32 - 2, 2**32 - 1]  # as long as scikit-learn takes them
    assert 0 <= seeds[5] < 2**32


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("scale", [2.0**-1000, 2.0**-660, 2.0**-300, 2.0**300, 2.0**660, 2.0**1015])
def test_euclidean_picks_do_not_depend_on_the_scale(scale):
    x, y = clustered(150, 5, 3)
    x = x.astype(np.float64)
    options = {"method": "density-peaks-euclidean", "seed": 1}
    np.testing.assert_array_equal(select(x * scale, y, **options).indices, select(x, y, **options).indices)


def test_named_backend_that_cannot_run_is_refused_never_replaced():
    x, y = clustered(20, 4, 2)
    assert pe.backends()["cuda"] is not None
    with pytest.raises(pe.BackendUnavailable, match="backend 'cuda' is unavailable: "):
        pe.select_prototypes(x, y, backend="cuda")
    assert issubclass(pe.BackendUnavailable, RuntimeError)


def test_auto_says_once_what_it_chose(caplog):
    from proto_engine import backends as _  # noqa: F401
    from proto_engine.backends import _said

    _said.clear()
    x, y = clustered(20, 4, 2)
    with caplog.at_level("INFO", logger="proto_engine"):
        pe.select_prototypes(x, y)
        pe.select_prototypes(x, y)
    assert [r.message for r in caplog.records] == ["backend 'auto' chose 'cpu': the fastest that runs on the host here"]


def test_float64_of_any_size_has_a_direction():
    x, y = clustered(60, 5, 2)
    exact = np.round(x.astype(np.float64) * 1024)
    a = select(exact, y)
    for power in (900, -900):
        b = select(np.ldexp(exact, power), y)
        np.testing.assert_array_equal(a.indices, b.indices)
        np.testing.assert_array_equal(a.eta, b.eta)
