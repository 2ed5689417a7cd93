"""method="density-contrast": the rule by hand, what must not change the outcome, and prototypes by share."""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction

import numpy as np
import pytest
from exact_cases import EXACT, reference_pool
from problems import clustered, select

import proto_engine as pe
from proto_engine.cli import main
from proto_engine.contrast import is_consistent

CONTRAST = {"method": "density-contrast", "samples_per_class": None}
ON_HOST = [name for name in EXACT if isinstance(name, str)]
NAMES = [field.name for field in fields(pe.Prototypes) if field.name != "transform"]


def same(a: pe.Prototypes, b: pe.Prototypes, names: list[str] = NAMES) -> None:
    for name in names:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def at_angles(*degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def by_hand(x: np.ndarray, y: np.ndarray, p: int, quantile: float) -> dict[int, list[int]]:
    """The rule from its definition, in fractions; no entry for a class without consistent rows."""
    s = reference_pool(x).s
    n, classes = len(x), np.unique(y)
    cutoff = np.sort(s.ravel())[int(np.floor(quantile * (n * n - 1)))]

    def share(i: int, c: int) -> Fraction:
        of_class = [j for j in np.flatnonzero(y == c) if j != i]
        return Fraction(sum(bool(s[i, j] > cutoff) for j in of_class), max(1, len(of_class)))

    picks = {}
    for c in classes.tolist():
        members = np.flatnonzero(y == c).tolist()
        consistent = [i for i in members if share(i, c) >= max(share(i, int(other)) for other in classes)]
        if consistent:
            picks[c] = sorted(consistent, key=lambda i: (-share(i, c), i))[:p]
    return picks


@pytest.mark.parametrize("backend", [*ON_HOST, "reference"])
def test_contrast_of_five_rows_worked_by_hand(backend):
    """Angles between rows: 0-1 10, 0-2 85, 0-3 90, 0-4 100, 1-2 75, 1-3 80, 1-4 90, 2-3 5, 2-4 15, 3-4 10 degrees.

    Of the 25 entries in ascending order the tenth and eleventh (from zero) are cos 75; floor(0.45 * 24) = 10. Four
    pairs are more similar: 2-4, 0-1, 3-4 and 2-3. Row 2 has no neighbor in class 0 and both rows of class 1.
    """
    x = at_angles(0, 10, 85, 90, 100)
    got = select(x, [0, 0, 0, 1, 1], prototypes_per_class=3, contrast_quantile=0.45, backend=backend, **CONTRAST)
    assert got.indices.tolist() == [[0, 1, -1], [3, 4, -1]]
    assert got.counts.tolist() == got.consistent.tolist() == [2, 2]
    assert got.rho.tolist() == [[1, 1, 0], [1, 1, 0]]
    assert got.cutoff.tolist() == [reference_pool(x).s[1, 2]] * 2
    np.testing.assert_array_equal(got.share, [[0.5, 0.5, np.nan], [1.0, 1.0, np.nan]])
    np.testing.assert_array_equal(got.contrast, [[0.5, 0.5, np.nan], [1 - 1 / 3, 1 - 1 / 3, np.nan]])
    np.testing.assert_array_equal(got.filtered, [1 - 2 / 3, 0.0])
    assert np.isnan(got.eta).all()


@pytest.mark.parametrize("quantile", [0.3, 0.9])
@pytest.mark.parametrize("kind", ["continuous", "ties"])
def test_contrast_follows_the_rule_written_out(kind, quantile):
    x, y = clustered(70, 5, 4, seed=4, noise=0.4)
    if kind == "ties":
        x = np.rint(x / 2) + np.float32(0.5)
    y[3] = 4  # a class of one
    wanted = by_hand(x, y, 6, quantile)
    results = [
        select(x, y, num_classes=6, prototypes_per_class=6, contrast_quantile=quantile, backend=backend, **CONTRAST)
        for backend in [*ON_HOST, "reference"]
    ]
    got = results[0]
    for c in range(5):
        if c in wanted:
            assert got.indices[c, : got.counts[c]].tolist() == wanted[c]
        else:
            assert got.consistent[c] == 0
    assert got.indices[4].tolist() == [3, -1, -1, -1, -1, -1]
    assert got.counts[5] == 0 and np.isnan(got.cutoff[5])
    for other in results[1:]:
        same(got, other)


def test_shares_are_compared_without_rounding():
    """(s - 1) / s of two sizes near 2**31 are one float64."""
    sizes = np.array([2**31 - 1, 2**31 - 2])
    counts = sizes[None, :] - 1
    assert counts[0, 0] / sizes[0] == counts[0, 1] / sizes[1]
    assert is_consistent(counts, sizes, 0).tolist() == [True]
    assert is_consistent(counts, sizes, 1).tolist() == [False]


def test_class_whose_rows_all_lie_in_others_follows_the_published_rule():
    x, y = clustered(300, 6, 3, seed=1)
    y[y == 2] = np.arange((y == 2).sum()) % 2  # class 2 ...
    strangers = np.concatenate([np.flatnonzero(y == 0)[:1], np.flatnonzero(y == 1)[:1]])
    x[strangers] *= 1.5
    y[strangers] = 2  # ... is a row of either other class
    with pytest.warns(UserWarning, match=r"density-contrast: classes \[2\] have no row"):
        got = pe.select_prototypes(x, y, prototypes_per_class=4, **CONTRAST)
    published = select(x, y, prototypes_per_class=4, samples_per_class=None)
    for name in set(NAMES) - {"consistent", "share", "contrast"}:
        np.testing.assert_array_equal(getattr(got, name)[2], getattr(published, name)[2], err_msg=name)
    assert got.consistent[2] == 0 and np.isnan(got.share[2]).all()
    assert (got.consistent[:2] > 0).all() and np.isfinite(got.share[:2]).all()


def test_equal_rows_are_all_consistent_and_the_lowest_are_taken():
    got = select(np.ones((12, 3), np.float32), np.arange(12) % 3, prototypes_per_class=2, **CONTRAST)
    assert got.indices.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert got.consistent.tolist() == [4, 4, 4]
    assert (got.cutoff == 1).all() and (got.share == 0).all() and (got.contrast == 0).all()


def test_order_of_classes_and_rows_does_not_matter():
    x, y = clustered(400, 8, 4, seed=2, noise=0.3)
    options = {"prototypes_per_class": 1.0, **CONTRAST}  # every consistent row: no tie is cut
    got = select(x, y, **options)
    turned = np.array([2, 0, 3, 1])
    other = select(x, turned[y], **options)
    for name in set(NAMES) - {"cutoff"}:
        np.testing.assert_array_equal(getattr(other, name)[turned], getattr(got, name), err_msg=name)
    assert (other.cutoff == got.cutoff[0]).all()
    order = np.random.default_rng(0).permutation(400)
    shuffled = select(x[order], y[order], **options)
    for c in range(4):
        rows = [order[shuffled.indices[c, : shuffled.counts[c]]], got.indices[c, : got.counts[c]]]
        assert len(rows[0]) == got.consistent[c] and set(rows[0]) == set(rows[1])
    same(shuffled, got, ["counts", "consistent", "filtered", "cutoff", "rho", "share"])


def test_sampled_pools_are_those_of_the_published_rule():
    x, y = clustered(900, 8, 3, seed=5, noise=0.3)
    got = select(x, y, method="density-contrast", samples_per_class=60, prototypes_per_class=1.0, seed=3)
    pools = select(x, y, samples_per_class=60, prototypes_per_class=1.0, seed=3, eta_max=2.0)
    for c in range(3):
        assert set(got.indices[c]) - {-1} <= set(pools.indices[c])
    inside = np.sort(pools.indices.ravel())
    alone = select(x[inside], y[inside], prototypes_per_class=1.0, **CONTRAST)
    np.testing.assert_array_equal(np.where(alone.indices < 0, -1, inside[alone.indices]), got.indices)


def test_candidates_alone_are_picked_and_counted():
    x, y = clustered(300, 8, 3, seed=6, noise=0.3)
    allowed = np.random.default_rng(1).random(300) < 0.3
    everyone = select(x, y, prototypes_per_class=1.0, **CONTRAST)
    got = select(x, y, prototypes_per_class=1.0, candidates=allowed, **CONTRAST)
    for c in range(3):
        wanted = [i for i in everyone.indices[c].tolist() if i >= 0 and allowed[i]]
        assert got.indices[c, : got.counts[c]].tolist() == wanted
        assert got.consistent[c] == len(wanted)
        assert got.filtered[c] == 1 - len(wanted) / (allowed & (y == c)).sum()


def test_contrast_finds_the_core_of_a_class_that_another_one_has_invaded():
    """A tight foreign crowd is the densest spot of class 0: the published rule picks it, density contrast does not."""
    rng = np.random.default_rng(7)
    centers = np.eye(8)[:2] * 3
    own = centers[0] + rng.standard_normal((120, 8))
    foreign = centers[1] + 0.3 * rng.standard_normal((80, 8))
    theirs = centers[1] + 0.3 * rng.standard_normal((200, 8))
    x, y = np.concatenate([own, foreign, theirs]), np.repeat([0, 1], 200)
    assert (select(x, y, samples_per_class=None, cutoff_quantile=0.8).indices[0] >= 120).all()
    assert (select(x, y, contrast_quantile=0.5, **CONTRAST).indices[0] < 120).all()


# ---- prototypes by share ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["density-peaks", "density-contrast"])
def test_share_of_a_class_is_that_many_prototypes(method):
    x, y = clustered(500, 8, 3, seed=8)
    y[(y == 1) & (np.arange(500) % 2 == 0)] = 0
    options = {"method": method, "samples_per_class": None, "eta_max": 2.0}
    got = select(x, y, prototypes_per_class=0.07, **options)
    sizes = np.bincount(y)
    wanted = [-(-7 * int(m) // 100) for m in sizes]
    assert len(set(wanted)) > 1 and got.indices.shape == (3, max(wanted))
    for c, count in enumerate(wanted):
        one = select(x, y, prototypes_per_class=count, **options)
        for name in NAMES:
            a, b = getattr(got, name)[c], getattr(one, name)[c]
            np.testing.assert_array_equal(a[:count] if a.ndim and name != "folded" else a, b, err_msg=name)
        assert (got.indices[c, count:] == -1).all()


def test_share_is_taken_as_written_and_is_one_row_at_least():
    x, y = np.ones((100, 2), np.float32), np.zeros(100, int)
    for share, wanted in ((0.07, 7), (0.0701, 8), (1e-9, 1), (1.0, 100), (np.float32(0.5), 50)):
        assert select(x, y, prototypes_per_class=share, eta_max=2.0).counts.tolist() == [wanted]


def test_thousands_of_prototypes_score_save_and_load(tmp_path):
    x, y = clustered(4000, 12, 2, seed=9, noise=0.2)
    got = select(x, y, prototypes_per_class=1.0, **CONTRAST)
    assert got.counts.max() > 1000 and got.vectors.shape == (2, got.counts.max(), 12)
    got.save(tmp_path / "p.safetensors")
    back = pe.Prototypes.load(tmp_path / "p.safetensors")
    same(back, got)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for c in range(2):
        mean = (unit @ got.vectors[c, : got.counts[c]].T).mean(axis=1)
        np.testing.assert_allclose(pe.score_samples(x, back)[:, c], mean, atol=1e-5)
    truth = clustered(4000, 12, 2, seed=9)[1]
    assert (pe.correct_labels(x, y, back).labels == truth).mean() > (y == truth).mean()


def test_vectors_made_class_by_class_have_the_same_bits(monkeypatch):
    x, y = clustered(300, 8, 4, seed=10)
    together = select(x, y)
    monkeypatch.setattr("proto_engine.picked_classes._BLOCK_ELEMENTS", 1)
    same(select(x, y), together)


# ---- where it is called from -----------------------------------------------------------------------------


def test_wrong_arguments_are_named():
    x, y = clustered(40, 4, 2)
    for options, error, match in (
        ({"contrast_quantile": 1.5}, ValueError, "contrast_quantile: wanted a number from 0 to 1, got 1.5"),
        ({"contrast_quantile": "high"}, TypeError, "contrast_quantile: wanted a number"),
        ({"prototypes_per_class": 1.5}, ValueError, "prototypes_per_class: wanted a whole number, or a share .* 1.5"),
        ({"prototypes_per_class": 0.0}, ValueError, "prototypes_per_class: .* got 0.0"),
        ({"prototypes_per_class": float("nan")}, ValueError, "prototypes_per_class: .* got nan"),
        ({"prototypes_per_class": True}, TypeError, "prototypes_per_class: wanted a whole number, got bool"),
        ({"prototypes_per_class": 0.5, "method": "kmeans++"}, ValueError, "whole number for method 'kmeans"),
    ):
        with pytest.raises(error, match=match):
            pe.select_prototypes(x, y, **options)
    if pe.backends()["faiss"] is None:
        with pytest.raises(pe.BackendUnavailable, match="only scores"):
            pe.select_prototypes(x, y, method="density-contrast", backend="faiss")


def test_corrector_and_command_line_take_it(tmp_path, capsys):
    x, y = clustered(300, 8, 3, seed=11, noise=0.2)
    wanted = select(x, y, prototypes_per_class=0.5, contrast_quantile=0.8, **CONTRAST)
    estimator = pe.PrototypeCorrector(prototypes_per_class=0.5, contrast_quantile=0.8, **CONTRAST)
    same(estimator.fit(x, y).prototypes_, wanted)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    files = [str(tmp_path / name) for name in ("x.npy", "y.npy")]
    output = str(tmp_path / "p.safetensors")
    options = ["--method", "density-contrast", "--contrast-quantile", "0.8", "--samples-per-class", "all"]
    assert main(["select", *files, "-o", output, *options, "--prototypes-per-class", "0.5", "--quiet"]) == 0
    same(pe.Prototypes.load(output), wanted)
    with pytest.raises(SystemExit):
        main(["select", *files, "-o", output, "--prototypes-per-class", "half"])
    assert "wanted a whole number, a share such as 0.5, or 'auto', got 'half'" in capsys.readouterr().err
