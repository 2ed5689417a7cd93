"""prototypes_per_class="auto": more of a clean class, less of a noisy one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import proto_engine as pe
from proto_engine import cli
from proto_engine.core_shares import core_shares

NOISE = np.array([0.0, 0.1, 0.3, 0.1])  # of the classes as given


def problem(n: int = 1600, dim: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Four well separated classes whose given labels hold different shares of other classes' rows."""
    rng = np.random.default_rng(seed)
    given = np.repeat(np.arange(4), n // 4)
    others = (given + rng.integers(1, 4, n)) % 4
    truth = np.where(rng.random(n) < NOISE[given], others, given)
    x = rng.standard_normal((n, dim)) + 7 * np.eye(4, dim)[truth]
    return x.astype(np.float32), given, truth


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return problem()


def select(x, y, **options) -> pe.Prototypes:
    """Whole classes, and no eta: `counts` are then what was wanted."""
    whole = {"samples_per_class": None, "eta_max": 1.1, "prototypes_per_class": "auto"}
    return pe.select_prototypes(x, y, **{**whole, **options})


def test_auto_takes_less_of_a_noisier_class(data):
    x, given, truth = data
    wrong = np.array([(truth != given)[given == c].mean() for c in range(4)])
    shares = select(x, given).counts / 400
    np.testing.assert_allclose(shares, np.clip(1.1 - 1.5 * wrong, 0.5, 1.0), atol=0.06)
    assert shares[0] == 1.0
    assert shares[2] < shares[1] - 0.15


def test_auto_is_the_share_that_it_says(data):
    x, given, _ = data
    shares = core_shares(pe.FeatureBank(x), given, 4, np.ones(len(x), dtype=bool), 0)
    found = select(x, given)
    np.testing.assert_array_equal(found.counts, np.ceil(np.array(shares) * 400 - 1e-9))
    alone = select(x, given, prototypes_per_class=shares[2])
    np.testing.assert_array_equal(alone.indices[2, : alone.counts[2]], found.indices[2, : found.counts[2]])


def test_auto_is_a_share_of_the_pool_that_was_drawn(data):
    x, given, _ = data
    np.testing.assert_array_equal(select(x, given, samples_per_class=50).counts, np.ceil(select(x, given).counts / 8))


@pytest.mark.parametrize("options", [{"backend": "torch"}, {"method": "density-contrast"}, {"transform": "whiten"}])
def test_auto_goes_with_the_other_options(data, options):
    x, given, _ = data
    found = select(torch.from_numpy(x) if "backend" in options else x, given, **options)
    limit = select(x, given).counts
    assert (np.asarray(found.counts) <= limit).all()
    if "method" not in options:  # of density contrast, no more than the consistent rows
        np.testing.assert_array_equal(np.asarray(found.counts), limit)


def test_auto_takes_half_of_classes_that_cannot_be_judged():
    x, given, _ = problem(400)
    small = np.flatnonzero(given == 3)[:10]  # fewer than can be judged
    keep = np.concatenate([np.flatnonzero(given < 3), small])
    assert select(x[keep], given[keep], num_classes=6).counts[3:].tolist() == [5, 0, 0]
    random = np.random.default_rng(1).integers(0, 4, 400)
    np.testing.assert_array_equal(select(x, random).counts, np.ceil(np.bincount(random) / 2))


def test_auto_leaves_bad_rows_out(data):
    x, given, _ = data
    bad = np.concatenate([x, np.full((40, 12), np.nan, "f4")])
    labels = np.concatenate([given, np.full(40, 2)])
    np.testing.assert_array_equal(select(bad, labels, on_bad_rows="keep-label").counts, select(x, given).counts)
    with pytest.raises(ValueError, match="got 40 of 1640 rows with NaN"):
        select(bad, labels)


def test_auto_refuses_what_it_cannot_do(data):
    x, given, _ = data
    with pytest.raises(ValueError, match="prototypes_per_class: wanted a whole number, a share or 'auto', got 'some'"):
        select(x, given, prototypes_per_class="some")
    with pytest.raises(ValueError, match=r"wanted a whole number for method 'kmeans\+\+', got 'auto'"):
        select(x, given, method="kmeans++")


def test_auto_on_the_command_line_and_in_the_corrector(data, tmp_path, monkeypatch, capsys):
    x, given, _ = data
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", x)
    np.save("y.npy", given)
    want = pe.select_prototypes(x, given, prototypes_per_class="auto", eta_max=1.1)
    options = ["--prototypes-per-class", "auto", "--eta-max", "1.1", "--quiet"]
    assert cli.main(["select", "x.npy", "y.npy", "-o", "p.safetensors", *options]) == 0
    np.testing.assert_array_equal(pe.Prototypes.load("p.safetensors").indices, want.indices)
    fitted = pe.PrototypeCorrector(prototypes_per_class="auto", eta_max=1.1).fit(x, given)
    np.testing.assert_array_equal(fitted.prototypes_.indices, want.indices)
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        cli.main(["select", "x.npy", "y.npy", "-o", "p.safetensors", "--prototypes-per-class", "many"])
    assert "wanted a whole number, a share such as 0.5, or 'auto', got 'many'" in capsys.readouterr().err
