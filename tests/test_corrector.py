"""The estimator: scikit-learn's own checks, and the same answers as the functions it wraps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import proto_engine as pe
from proto_engine import PrototypeCorrector

pytestmark = pytest.mark.filterwarnings("ignore:eta_max turned down")  # raw pixels of digits lie close together
WORDS = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


def expected_failures(estimator: PrototypeCorrector) -> dict[str, str]:
    failures = {"check_estimators_dtypes": "its random integers hold a row of zeros, which has no direction"}
    if estimator.prototypes_per_class == 8:
        failures["check_classifiers_train"] = (
            "its features lie in a plane, which has no 8 directions that are dense and yet apart by eta_max"
        )
    return failures


@parametrize_with_checks(
    [PrototypeCorrector(), PrototypeCorrector(prototypes_per_class=2)],
    expected_failed_checks=expected_failures,
)
def test_corrector_scikit_learn_check(estimator: PrototypeCorrector, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, true labels, and labels of which about 40 % were drawn anew."""
    x, truth = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    redrawn = rng.random(len(truth)) < 0.4
    noisy = np.where(redrawn, rng.integers(0, 10, len(truth)), truth)
    return x.astype(np.float32), truth, noisy


def test_corrector_agrees_with_the_functions(digits: tuple[np.ndarray, ...]) -> None:
    x, truth, noisy = digits
    options: dict[str, Any] = {
        "prototypes_per_class": 5,
        "samples_per_class": 100,
        "cutoff_quantile": 0.5,
        "eta_max": 0.98,
        "seed": 3,
    }
    corrector = PrototypeCorrector(**options, min_margin=0.01, policy="all").fit(x, noisy)
    prototypes = pe.select_prototypes(x, noisy, **options)
    assert np.array_equal(corrector.prototypes_.indices, prototypes.indices)
    wanted = pe.correct_labels(x, noisy, prototypes, min_margin=0.01)
    found = corrector.correct(x, noisy)
    for name in ("labels", "given", "score", "margin", "changed"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    np.testing.assert_array_equal(corrector.decision_function(x), pe.score_samples(x, prototypes))
    np.testing.assert_array_equal(corrector.predict(x), pe.correct_labels(x, noisy, prototypes).labels)
    assert (found.labels == truth).mean() > (noisy == truth).mean() + 0.1
    assert (corrector.predict(x) != found.labels).any()  # min_margin kept some labels


def test_corrector_passes_every_keyword_on(digits: tuple[np.ndarray, ...]) -> None:
    x, _, noisy = digits
    corrector = PrototypeCorrector(method="kmeans++", backend="reference", samples_per_class=None)
    wanted = pe.select_prototypes(x, noisy, method="kmeans++", backend="reference", samples_per_class=None)
    assert np.array_equal(corrector.fit(x, noisy).prototypes_.indices, wanted.indices)
    for name, value in [
        ("method", "none"),
        ("backend", "none"),
        ("eta_max", "x"),
        ("seed", -1),
        ("min_margin", -1),
        ("policy", "most"),
    ]:
        with pytest.raises((ValueError, TypeError), match=name):
            PrototypeCorrector(**{name: value}).fit_predict(x, noisy)
    assert clone(corrector).get_params() == corrector.get_params()


@pytest.mark.parametrize("kind", ["words", "objects", "floats", "offset", "booleans", "series", "tensor"])
def test_corrector_answers_in_the_type_of_the_labels(digits: tuple[np.ndarray, ...], tmp_path: Path, kind: str) -> None:
    x, _, noisy = digits
    values: Any = {
        "words": WORDS[noisy],
        "objects": WORDS[noisy].astype(object),
        "floats": noisy.astype(np.float64),
        "offset": noisy.astype(np.int16) * 10 - 7,
        "booleans": noisy > 4,
        "series": pd.Series(WORDS[noisy], index=np.arange(len(noisy))[::-1]),
    }.get(kind)
    if kind == "tensor":
        values = pytest.importorskip("torch").from_numpy(noisy)
    plain = np.asarray(values)
    classes, codes = np.unique(plain, return_inverse=True)
    wanted = classes[PrototypeCorrector().fit(x, codes).correct(x, codes).labels]
    corrector = PrototypeCorrector()
    corrected = corrector.fit_predict(x, values)
    assert np.array_equal(corrected, wanted)
    assert np.array_equal(corrector.classes_, classes)
    assert corrected.dtype == corrector.predict(x).dtype == classes.dtype
    found = corrector.correct(x, values)
    assert np.array_equal(found.given, plain)
    assert np.array_equal(found.changed, found.labels != plain)
    found.save(tmp_path / "out.parquet")
    read = pd.read_parquet(tmp_path / "out.parquet")
    assert read["suggested_label"].tolist() == found.to_frame()["suggested_label"].tolist() == corrected.tolist()


def test_corrector_two_classes_have_one_decision_value(digits: tuple[np.ndarray, ...]) -> None:
    x, _, noisy = digits
    corrector = PrototypeCorrector().fit(x, noisy > 4)
    values = corrector.decision_function(x)
    assert values.shape == (len(x),)
    clear = np.abs(values) > 1e-6
    assert np.array_equal((values > 0)[clear], corrector.predict(x)[clear])


@pytest.mark.parametrize("kind", ["memmap", "bank", "tensor", "lists", "frame", "float16", "integers"])
def test_corrector_takes_every_kind_of_features(digits: tuple[np.ndarray, ...], tmp_path: Path, kind: str) -> None:
    x, _, noisy = digits
    np.save(tmp_path / "x.npy", x)
    if kind == "tensor":
        features: Any = pytest.importorskip("torch").from_numpy(x)
    elif kind == "memmap":
        features = np.load(tmp_path / "x.npy", mmap_mode="r")
    elif kind == "bank":
        features = pe.FeatureBank.open(tmp_path / "x.npy")
    elif kind == "frame":
        features = pd.DataFrame(x, columns=[f"f{k}" for k in range(x.shape[1])])
    elif kind == "lists":
        features = x.tolist()
    else:  # the digits are whole numbers up to 16
        features = x.astype({"float16": np.float16, "integers": np.int64}[kind])
    wanted = PrototypeCorrector().fit(x, noisy)
    corrector = PrototypeCorrector().fit(features, noisy)
    assert corrector.n_features_in_ == x.shape[1]
    assert hasattr(corrector, "feature_names_in_") == (kind == "frame")
    assert np.array_equal(corrector.predict(features), wanted.predict(x))
    assert corrector.decision_function(features).shape == (len(x), 10)
    found = corrector.correct(features, noisy)
    assert all(type(getattr(found, name)) is np.ndarray for name in ("labels", "given", "score", "margin", "changed"))
    assert np.array_equal(found.labels, wanted.correct(x, noisy).labels)


def test_corrector_does_not_copy_what_the_engine_can_read(
    digits: tuple[np.ndarray, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, _, noisy = digits
    np.save(tmp_path / "x.npy", x)
    seen = []
    real = pe.corrector.select_prototypes  # type: ignore[attr-defined]
    monkeypatch.setattr(
        "proto_engine.corrector.select_prototypes",
        lambda bank, *args, **options: (seen.append(bank), real(bank, *args, **options))[1],
    )
    bank = pe.FeatureBank.open(tmp_path / "x.npy")
    for features in (x, x[:, ::2], np.load(tmp_path / "x.npy", mmap_mode="r")):
        PrototypeCorrector().fit(features, noisy)
        assert seen[-1].array is features
    PrototypeCorrector().fit(bank, noisy)
    assert seen[-1] is bank


def test_corrector_works_in_a_pipeline_and_in_cross_validation(digits: tuple[np.ndarray, ...]) -> None:
    x, truth, noisy = digits
    words = WORDS[noisy]
    pipeline = make_pipeline(MinMaxScaler(), PrototypeCorrector())
    assert np.mean(pipeline.fit(x, words).predict(x) == WORDS[truth]) > 0.6
    out_of_fold = cross_val_predict(pipeline, x, words, cv=3)
    assert np.mean(out_of_fold == WORDS[truth]) > 0.6
    values = cross_val_predict(PrototypeCorrector(), x, noisy, cv=3, method="decision_function")
    assert values.shape == (len(x), 10)
    assert np.mean(values.argmax(axis=1) == truth) > 0.6
    assert cross_val_score(PrototypeCorrector(), x, truth, cv=3).min() > 0.7


def test_corrector_bad_rows_follow_the_rule(digits: tuple[np.ndarray, ...]) -> None:
    x, _, noisy = digits
    x = x.copy()
    x[5], x[9, 3] = 0, np.nan
    with pytest.raises(ValueError, match=r"2 of 1797 rows .*\(rows 5, 9\)"):
        PrototypeCorrector().fit(x, noisy)
    for features in (x, x.tolist()):  # both ways through the checks
        corrector = PrototypeCorrector(on_bad_rows="keep-label").fit(features, noisy)
        found = corrector.correct(features, noisy)
        assert (found.labels[[5, 9]] == noisy[[5, 9]]).all()
        assert np.isnan(found.score[[5, 9]]).all()
        assert np.isnan(corrector.decision_function(features)[[5, 9]]).all()
        with pytest.raises(ValueError, match=r"2 of 1797 rows"):
            corrector.predict(features)


def test_corrector_refuses_bad_labels(digits: tuple[np.ndarray, ...]) -> None:
    x, _, noisy = digits
    corrector = PrototypeCorrector()
    with pytest.raises(NotFittedError):
        corrector.correct(x, noisy)
    with pytest.raises(ValueError, match="y: wanted 1797 labels, one a row of X, got 1796"):
        corrector.fit(x, noisy[1:])
    with pytest.raises(ValueError, match="requires y to be passed, but the target y is None"):
        corrector.fit(x, None)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        corrector.fit(x, noisy + 0.5)
    with pytest.raises(ValueError, match="contains NaN"):
        corrector.fit(x, np.where(noisy == 3, np.nan, noisy))
    corrector.fit(x, WORDS[noisy])
    with pytest.raises(ValueError, match=r"y: wanted labels that fit has seen, got \['ten'\]"):
        corrector.correct(x[:2], ["one", "ten"])
    with pytest.raises(ValueError, match=r"y: wanted labels that fit has seen, got \[1, 2\]"):
        corrector.correct(x[:2], [1, 2])
    with pytest.raises(ValueError, match="X has 3 features, but PrototypeCorrector is expecting 64"):
        corrector.predict(x[:, :3])


def test_corrector_correct_takes_some_of_the_classes_and_new_samples(digits: tuple[np.ndarray, ...]) -> None:
    x, truth, noisy = digits
    corrector = PrototypeCorrector(policy="all").fit(x[:1000], WORDS[noisy[:1000]])
    found = corrector.correct(x[1000:], np.full(797, "one"))
    assert set(found.given) == {"one"}
    assert np.mean(found.labels == WORDS[truth[1000:]]) > 0.5


def test_corrector_weighs_the_evidence_unless_told_otherwise(digits: tuple[np.ndarray, ...]) -> None:
    x, _, noisy = digits
    corrector = PrototypeCorrector().fit(x, WORDS[noisy])
    found = corrector.correct(x, WORDS[noisy])
    classes, codes = np.unique(WORDS[noisy], return_inverse=True)
    wanted = pe.label_evidence(x, codes)
    assert np.array_equal(found.changed, wanted.confident() & (found.likely != found.given))
    assert np.array_equal(found.issue_score, wanted.issue_score)
    assert np.array_equal(found.likely, classes[wanted.suggested])
    assert np.array_equal(found.labels, np.where(found.changed, found.likely, found.given))
    np.testing.assert_array_equal(found.score, pe.correct_labels(x, codes, corrector.prototypes_).score)
    assert 0 < found.changed.sum() < len(x)


def test_corrector_in_a_pipeline_corrects_what_comes_out_of_the_steps_before(digits: tuple[np.ndarray, ...]) -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, truth, noisy = digits
    x = x.astype(np.float64) + 0.5  # no column may be constant at zero
    corrected = make_pipeline(StandardScaler(), PrototypeCorrector()).fit_predict(x, noisy)
    scaled = StandardScaler().fit_transform(x)
    np.testing.assert_array_equal(corrected, PrototypeCorrector().fit_predict(scaled, noisy))
    assert (corrected == truth).mean() > (noisy == truth).mean()


def test_corrector_is_imported_on_demand() -> None:
    code = (
        "import sys, proto_engine as pe; assert 'sklearn' not in sys.modules; "
        "pe.PrototypeCorrector(); assert 'sklearn' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
