"""Centering and whitening: the map itself, banks behind it, and prototypes that carry it."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import fake_cupy
import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch
from problems import clustered

import proto_engine as pe
from proto_engine import cli, transform
from proto_engine.array_kinds import to_numpy

DTYPES = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16]


def mixed(n: int = 600, dim: int = 12, seed: int = 0) -> np.ndarray:
    """Rows whose directions vary by very different amounts, far from the origin.   [n, dim] float64"""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, dim)) * np.geomspace(1, 30, dim) @ rng.standard_normal((dim, dim)) + 20


def noisy(n: int = 800, dim: int = 10, num_classes: int = 4, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Classes told apart by directions that hardly vary, and labels of which a quarter are wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, n)
    x = rng.standard_normal((n, dim)) + 6 * np.eye(num_classes, dim)[truth]
    x[:, num_classes:] *= 20
    return (x + 5).astype(np.float32), np.where(rng.random(n) < 0.25, rng.integers(0, num_classes, n), truth)


def by_numpy(x: np.ndarray, power: float = 0.5, shrinkage: float = 0.01) -> np.ndarray:
    """Whitened rows, as NumPy computes them from the definition.   [N, D] float64"""
    x = x.astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False, bias=True))
    matrix = (vectors * (values + shrinkage * values.mean()) ** -power) @ vectors.T
    return (x - x.mean(axis=0)) @ matrix


def all_rows(bank: pe.FeatureBank, max_bytes: int | None = None) -> np.ndarray:
    return np.concatenate([rows for _, rows in bank.chunks(max_bytes)])


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("power", [0.5, 0.25])
def test_transform_whitens_as_numpy_does(dtype, power):
    x = mixed().astype(dtype)
    whitened = pe.BankTransform.fit(x, power=power).apply(x)
    assert (whitened.shape, whitened.dtype) == (x.shape, np.float32)
    want = by_numpy(x, power)
    np.testing.assert_allclose(all_rows(whitened), want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_transform_centers():
    x = mixed().astype(np.float32)
    got = all_rows(pe.BankTransform.fit(x, "center").apply(x))
    np.testing.assert_allclose(got, x - x.mean(axis=0, dtype=np.float64), rtol=1e-5, atol=1e-4)


def test_transform_whitens_to_the_identity_up_to_the_shrinkage():
    x = mixed(5000)
    values = np.linalg.eigvalsh(np.cov(x, rowvar=False, bias=True))
    covariance = np.cov(all_rows(pe.BankTransform.fit(x, shrinkage=1e-9).apply(x)), rowvar=False, bias=True)
    np.testing.assert_allclose(covariance, np.eye(12), atol=5e-3)  # the fit multiplies in float32
    shrunk = np.cov(all_rows(pe.BankTransform.fit(x).apply(x)), rowvar=False, bias=True)
    np.testing.assert_allclose(np.linalg.eigvalsh(shrunk), values / (values + 0.01 * values.mean()), atol=1e-4)


def test_transform_reads_files_a_chunk_at_a_time(tmp_path, monkeypatch):
    x = mixed(700, 6).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 6)
    pq.write_table(pa.table({"features": column}), tmp_path / "x.parquet", row_group_size=150)
    fitted = pe.BankTransform.fit(x)
    want = all_rows(fitted.apply(x))
    monkeypatch.setattr(transform, "BLOCK_ROWS", 64)
    for name in ("x.npy", "x.parquet"):
        bank = pe.FeatureBank.open(tmp_path / name)
        assert pe.BankTransform.fit(bank).same_as(fitted)
        whitened = fitted.apply(bank)
        sizes = [len(rows) for _, rows in whitened.chunks(100 * 6 * 4)]
        assert len(sizes) >= 7
        assert max(sizes) <= 100
        np.testing.assert_allclose(all_rows(whitened, 100 * 6 * 4), want, rtol=1e-6)
        np.testing.assert_allclose(whitened.rows([650, 0, 0, 3]), want[[650, 0, 0, 3]], rtol=1e-6)
        assert whitened.array is None
        assert "whitened rows" in repr(whitened)


def test_transform_takes_tensors_and_leaves_them_alone():
    x = torch.from_numpy(mixed())
    before = x.clone()
    fitted = pe.BankTransform.fit(x)
    whitened = fitted.apply(x)
    start, rows = next(iter(whitened.chunks()))
    assert (start, rows.dtype, whitened.dtype) == (0, torch.float32, torch.float32)
    assert torch.equal(x, before)
    np.testing.assert_allclose(rows.numpy(), all_rows(fitted.apply(x.numpy())), rtol=1e-6)
    assert isinstance(whitened.rows(torch.tensor([3, 1])), torch.Tensor)


def test_transform_stays_finite_with_constant_dimensions_and_few_rows():
    x = mixed(5, 12)
    x[:, 3:6] = 7.0
    for rows in (x, mixed(200, 12) * [1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0] + 3):
        fitted = pe.BankTransform.fit(rows)
        got = all_rows(fitted.apply(rows))
        assert np.isfinite(got).all()
        assert np.abs(np.linalg.eigvalsh(fitted.matrix)).max() * np.sqrt(rows.var(axis=0).mean()) <= 10.001


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_transform_whitens_the_same_in_any_unit(factor):
    x = mixed()
    small = all_rows(pe.BankTransform.fit(x * factor).apply(x * factor))
    np.testing.assert_allclose(small, all_rows(pe.BankTransform.fit(x).apply(x)), rtol=1e-4, atol=1e-4)


def test_transform_leaves_bad_rows_bad_and_out_of_the_fit():
    x = mixed().astype(np.float32)
    good = pe.BankTransform.fit(x)
    bad = np.concatenate([x, np.zeros((1, 12), "f4"), np.full((1, 12), np.nan, "f4"), np.full((1, 12), np.inf, "f4")])
    fitted = pe.BankTransform.fit(bad)
    assert fitted.same_as(good)
    rows = all_rows(fitted.apply(bad))
    assert (rows[600] == 0).all()
    assert not np.isfinite(rows[601:]).all(axis=1).any()
    labels = np.arange(603) % 2
    with pytest.raises(ValueError, match=r"got 3 of 603 rows with NaN, infinity or zero norm \(rows 600, 601, 602\)"):
        pe.select_prototypes(bad, labels, transform="whiten")
    found = pe.select_prototypes(bad, labels, transform="whiten", on_bad_rows="keep-label")
    assert found.indices.max() < 600
    assert not pe.correct_labels(bad, labels, found, on_bad_rows="keep-label").changed[600:].any()


def test_a_row_at_the_mean_is_refused_by_the_name_of_what_made_it_so():
    x, labels = np.array([[1, 0], [3, 0], [2, 0], [2, 1], [2, -1]], dtype=np.float32), np.array([0, 0, 0, 1, 1])
    pe.select_prototypes(x, labels, eta_max=2.0)
    with pytest.raises(ValueError, match=r"not all zero after the transform, got 1 of 5 rows .*\(rows 2\)"):
        pe.select_prototypes(x, labels, transform="center")
    found = pe.select_prototypes(x, labels, transform="center", on_bad_rows="keep-label")
    with pytest.raises(ValueError, match=r"after the transform, got 1 of 5 rows"):
        pe.correct_labels(x, labels, found)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (np.ones((1, 4)), "wanted at least 2 rows that are finite and not all zero, got 1"),
        (np.full((9, 4), 0.1), "wanted rows that differ, all 9 are equal"),
        (np.full((9, 4), 1e-200), "wanted rows that differ, all 9 are equal"),
        (np.full((9, 4), 1e308), "wanted rows that differ, all 9 are equal"),
        (np.zeros((3, 4)), "wanted at least one row that is finite and not all zero"),
    ],
)
def test_transform_says_why_it_cannot_be_fitted(rows, match):
    with pytest.raises(ValueError, match=match):
        pe.BankTransform.fit(rows)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["center", "whiten"])
@pytest.mark.parametrize("scale", [2.0**-146, 2.0**-400, 2.0**-990, 2.0**126, 2.0**515, 2.0**1010])
def test_transform_keeps_the_picks_of_features_of_any_scale(kind, scale):
    x, y = noisy(400)
    x = x.astype(np.float64)
    x[5] = 0
    options = {"transform": kind, "on_bad_rows": "keep-label", "eta_max": 1.0}
    want, got = pe.select_prototypes(x, y, **options), pe.select_prototypes(x * scale, y, **options)
    assert want.transform.scale == 1.0
    for name in ("indices", "vectors", "rho", "eta", "cutoff"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)
    np.testing.assert_array_equal(
        pe.correct_labels(x * scale, y, got, on_bad_rows="keep-label").score,
        pe.correct_labels(x, y, want, on_bad_rows="keep-label").score,
    )


@pytest.mark.parametrize("kind", ["center", "whiten"])
def test_transform_keeps_its_scale_on_disk_and_on_devices(kind, tmp_path, monkeypatch):
    x, y = noisy(200)
    tiny = x.astype(np.float64) * 2.0**-400
    found = pe.select_prototypes(tiny, y, transform=kind)
    assert found.transform.scale != 1.0
    assert not found.transform.same_as(replace(found.transform, scale=1.0))
    found.save(tmp_path / "p.safetensors")
    back = pe.Prototypes.load(tmp_path / "p.safetensors")
    assert back.transform.same_as(found.transform)
    np.testing.assert_array_equal(pe.score_samples(tiny, back), pe.score_samples(tiny, found))
    want = all_rows(found.transform.apply(tiny))
    np.testing.assert_array_equal(all_rows(found.transform.apply(torch.from_numpy(tiny))), want)
    cupy = fake_cupy.make()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    _, rows = next(iter(found.transform.apply(cupy.ndarray(tiny, device=1)).chunks()))
    np.testing.assert_array_equal(to_numpy(rows), want)


def test_file_of_an_ordinary_transform_has_no_scale(tmp_path):
    x, y = noisy(200)
    path = tmp_path / "p.safetensors"
    pe.select_prototypes(x, y, transform="center").save(path)
    arrays = safetensors.numpy.load_file(path)
    assert "transform.scale" not in arrays and "transform.mean" in arrays
    named = {"format": "proto_engine.prototypes.1", "transform": "center"}
    for scale, match in (
        (np.ones(2), r"wanted a transform.scale of shape \[1\]"),
        (np.full(1, 3.0), "scale: wanted a power"),
    ):
        safetensors.numpy.save_file({**arrays, "transform.scale": scale}, path, metadata=named)
        with pytest.raises(ValueError, match=match):
            pe.Prototypes.load(path)


def test_transform_refuses_wrong_arguments():
    x, y = noisy(60)
    fitted = pe.BankTransform.fit(x)
    with pytest.raises(ValueError, match="transform: wanted one of 'center', 'whiten', got 'sphere'"):
        pe.BankTransform.fit(x, "sphere")
    for power in (0.0, 0.6, float("nan")):
        with pytest.raises(ValueError, match="power: wanted a number above 0 and up to"):
            pe.BankTransform.fit(x, power=power)
    for shrinkage in (0.0, float("inf")):
        with pytest.raises(ValueError, match="shrinkage: wanted a number above 0"):
            pe.BankTransform.fit(x, shrinkage=shrinkage)
    for name in ("power", "shrinkage"):
        for value, kind in (("x", "str"), (None, "NoneType"), (True, "bool"), ([0.5], "list")):
            with pytest.raises(TypeError, match=f"{name}: wanted a number above 0.*, got {kind}"):
                pe.BankTransform.fit(x, **{name: value})
    with pytest.raises(TypeError, match="mean: wanted a numpy array of float64, got list"):
        pe.BankTransform("center", [0.0] * 8)
    with pytest.raises(TypeError, match="matrix: wanted a numpy array of float64, got list"):
        replace(fitted, matrix=[[1.0]])
    for value in (10**400, np.float32(np.inf)):
        with pytest.raises(ValueError, match="shrinkage: wanted a number above 0, got"):
            pe.BankTransform.fit(x, shrinkage=value)
    with pytest.raises(ValueError, match="transform: wanted one of 'center', 'whiten', got array"):
        pe.BankTransform.fit(x, np.array(["center", "whiten"]))
    for scale in (0.0, -2.0, 3.0, float("inf"), float("nan"), 1, 2.0**1001):
        with pytest.raises(ValueError, match=r"scale: wanted a power of two from 2\*\*-1000 to 2\*\*1000 as a float"):
            replace(fitted, scale=scale)
    with pytest.raises(ValueError, match="transform: wanted dimension 9 like the features, got 10"):
        fitted.apply(x[:, :9])
    with pytest.raises(ValueError, match="transform: wanted dimension 9 like the features, got 10"):
        pe.select_prototypes(x[:, :9], y, transform=fitted)
    with pytest.raises(ValueError, match="transform: wanted one of 'center', 'whiten', got 'sphere'"):
        pe.select_prototypes(x, y, transform="sphere")
    with pytest.raises(TypeError, match="transform: wanted 'center', 'whiten', a BankTransform or None, got bool"):
        pe.select_prototypes(x, y, transform=True)
    with pytest.raises(ValueError, match="wanted rows as they are stored, got a bank that went through a transform"):
        fitted.apply(fitted.apply(x))
    for change, match in (
        ({"kind": "center"}, "wanted a matrix for 'whiten' and none for 'center'"),
        ({"matrix": None}, "wanted a matrix for 'whiten' and none for 'center'"),
        ({"matrix": np.eye(9)}, r"wanted a matrix of \[10, 10\] finite float64 entries"),
        ({"mean": np.full(10, np.nan)}, "wanted a mean of D finite float64 entries"),
    ):
        with pytest.raises(ValueError, match=match):
            replace(fitted, **change)


def test_prototypes_and_rows_are_in_one_space():
    x, y = noisy()
    fitted = pe.BankTransform.fit(x)
    whitened = fitted.apply(x)
    first, second = (pe.select_prototypes(x, y, transform=t) for t in ("whiten", fitted))
    third, fourth = pe.select_prototypes(whitened, y), pe.select_prototypes(whitened, y, transform=fitted)
    for other in (second, third, fourth):
        assert other.transform.same_as(first.transform)
        np.testing.assert_array_equal(other.indices, first.indices)
    scores = pe.score_samples(x, first)
    np.testing.assert_array_equal(pe.score_samples(whitened, first), scores)
    np.testing.assert_array_equal(pe.correct_labels(x, y, third).labels, pe.correct_labels(whitened, y, first).labels)
    with pytest.raises(ValueError, match="wanted rows as they are stored, got a bank that went through another"):
        pe.score_samples(whitened, pe.select_prototypes(x, y))
    with pytest.raises(ValueError, match="wanted the transform 'center' of the prototypes, got a bank that went"):
        pe.score_samples(whitened, pe.select_prototypes(x, y, transform="center"))
    with pytest.raises(ValueError, match="wanted None or its own for a bank that went through one, got 'whiten'"):
        pe.select_prototypes(whitened, y, transform="whiten")


def test_whitened_prototypes_are_those_of_whitened_rows():
    x, y = noisy()
    whitened = all_rows(pe.BankTransform.fit(x).apply(x))
    for options in ({}, {"samples_per_class": None, "prototypes_per_class": 0.5}, {"method": "density-contrast"}):
        got, want = (
            pe.select_prototypes(x, y, transform="whiten", **options),
            pe.select_prototypes(whitened, y, **options),
        )
        np.testing.assert_array_equal(got.indices, want.indices)
        np.testing.assert_array_equal(got.vectors, want.vectors)
        np.testing.assert_array_equal(pe.score_samples(x, got), pe.score_samples(whitened, want))


@pytest.mark.parametrize("backend", ["cpu", "numba", "torch", "reference"])
def test_whitened_labels_agree_between_backends(backend):
    x, y = noisy(300)
    want = pe.correct_labels(
        x, y, pe.select_prototypes(x, y, transform="whiten", backend="reference"), backend="reference"
    )
    rows = torch.from_numpy(x) if backend == "torch" else x
    found = pe.select_prototypes(rows, y, transform="whiten", backend=backend)
    got = pe.correct_labels(rows, y, found, backend=backend)
    assert isinstance(got.labels, type(rows))
    np.testing.assert_array_equal(np.asarray(got.labels), want.labels)


def test_whitening_ignores_rotations_and_shifts():
    x, y = noisy()
    rotation = np.linalg.qr(np.random.default_rng(3).standard_normal((10, 10)))[0]
    turned = x @ rotation - 40
    want, got = (
        pe.correct_labels(rows, y, pe.select_prototypes(rows, y, transform="whiten"))
        for rows in (x.astype("f8"), turned)
    )
    np.testing.assert_array_equal(got.labels, want.labels)
    np.testing.assert_allclose(got.score, want.score, atol=1e-4)


def test_whitening_finds_labels_that_strong_directions_hide():
    x, y = noisy(2000)
    truth = (x[:, :4]).argmax(axis=1)
    plain, whitened = (
        pe.correct_labels(x, y, pe.select_prototypes(x, y, transform=t)).labels for t in (None, "whiten")
    )
    assert (whitened == truth).mean() > 0.9 > (plain == truth).mean()


@pytest.mark.parametrize("kind", ["center", "whiten"])
def test_prototypes_keep_their_transform_on_disk(kind, tmp_path):
    x, y = noisy()
    found = pe.select_prototypes(x, y, transform=kind)
    found.save(tmp_path / "p.safetensors", class_names=list("abcd"))
    back = pe.Prototypes.load(tmp_path / "p.safetensors")
    assert back.transform.same_as(found.transform)
    np.testing.assert_array_equal(pe.score_samples(x, back), pe.score_samples(x, found))


def test_prototypes_refuse_half_a_transform(tmp_path):
    x, y = noisy()
    path = tmp_path / "p.safetensors"
    pe.select_prototypes(x, y, transform="whiten").save(path)
    arrays = safetensors.numpy.load_file(path)
    named = {"format": "proto_engine.prototypes.1", "transform": "whiten"}
    for without, metadata, match in (
        ("transform.mean", named, "wanted the mean of the transform that the file names"),
        ("transform.matrix", named, "wanted a matrix for 'whiten'"),
        ("", {"format": named["format"]}, "wanted a file of format"),
        ("", {**named, "transform": "sphere"}, "wanted one of 'center', 'whiten', got 'sphere'"),
    ):
        kept = {name: array for name, array in arrays.items() if name != without}
        safetensors.numpy.save_file(kept, path, metadata=metadata)
        with pytest.raises(ValueError, match=match):
            pe.Prototypes.load(path)
    small = pe.BankTransform.fit(x[:, :9])
    with pytest.raises(ValueError, match="wanted a transform of dimension 10, got 9"):
        pe.score_samples(x, replace(pe.select_prototypes(x, y), transform=small))


# Of the published method, before there were transforms.
PUBLISHED = "2f17f53f3c0341e457b9fa0df6b8fd18"


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_published_method_is_what_it_was(backend):
    x, y = clustered(900, 16, 5)
    found = pe.select_prototypes(x, y, backend=backend)
    corrections = pe.correct_labels(x, y, found, backend=backend)
    assert found.transform is None
    digest = hashlib.sha256()
    for array in (found.indices, found.counts, found.cutoff, found.rho, found.eta, corrections.labels):
        digest.update(np.ascontiguousarray(array).tobytes())
    assert digest.hexdigest()[:32] == PUBLISHED


def test_corrector_and_command_line_whiten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x, y = noisy()
    np.save("x.npy", x)
    np.save("y.npy", y)
    want = pe.score_samples(x, pe.select_prototypes(x, y, transform="whiten"))
    np.testing.assert_allclose(pe.PrototypeCorrector(feature_transform="whiten").fit(x, y).decision_function(x), want)
    assert cli.main(["select", "x.npy", "y.npy", "-o", "p.safetensors", "--transform", "whiten", "--quiet"]) == 0
    assert cli.main(["score", "x.npy", "p.safetensors", "-o", "s.npy", "--quiet"]) == 0
    np.testing.assert_array_equal(np.load("s.npy"), want)
    out = Path("report.html")
    common = ["--policy", "all", "--quiet", "--report", str(out)]
    assert cli.main(["correct", "x.npy", "y.npy", "-o", "a.csv", "--transform", "whiten", *common]) == 0
    assert cli.main(["correct", "x.npy", "y.npy", "-o", "b.csv", "--prototypes", "p.safetensors", *common]) == 0
    assert Path("a.csv").read_text() == Path("b.csv").read_text()
    assert out.exists()
    capsys.readouterr()
    both = ["--prototypes", "p.safetensors", "--transform", "center"]
    assert cli.main(["correct", "x.npy", "y.npy", "-o", "c.csv", *both]) == 2
    assert "saved prototypes leave no room for --transform" in capsys.readouterr().err
    assert cli.main(["select", "x.npy", "y.npy", "-o", "q.safetensors", "--transform", "sphere"]) == 2
    assert "wanted one of 'center', 'whiten', got 'sphere'" in capsys.readouterr().err
