"""What callers pass in, and results in the caller's kind of array."""

from __future__ import annotations

import importlib
import sys
import warnings

import fake_cupy
import ml_dtypes
import numpy as np
import pytest
import torch
from exact_cases import available
from problems import clustered, select

import proto_engine as pe
from proto_engine.array_kinds import ArrayKind, to_numpy
from proto_engine.arrays import as_labels, as_matrix, kind_of
from proto_engine.ops import density, eta, normalize, resolve, score
from proto_engine.selection_checks import METHODS


class Dlpack:
    """Nothing but the DLPack protocol."""

    def __init__(self, array, device=None):
        self._array, self._device = array, device

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._device or self._array.__dlpack_device__()


FIELDS = ("indices", "vectors", "folded", "counts", "cutoff", "rho", "eta", "filtered")


@pytest.mark.parametrize("backend", ["cpu", "torch", "numba", "reference"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_torch_in_gives_torch_out_with_the_same_values(backend, dtype):
    x, y = clustered(120, 7, 3)
    array = x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    tensor = torch.from_numpy(x).to(getattr(torch, dtype))
    labels = torch.from_numpy(y)
    want, got = select(array, y, backend="reference"), select(tensor, labels, backend=backend)
    for name in FIELDS:
        assert isinstance(getattr(got, name), torch.Tensor), name
        np.testing.assert_array_equal(getattr(got, name).numpy(), getattr(want, name), err_msg=name)
    corrections = pe.correct_labels(tensor, labels, got, backend=backend)
    expected = pe.correct_labels(array, y, want, backend="reference")
    for name in ("labels", "given", "score", "margin", "changed"):
        assert isinstance(getattr(corrections, name), torch.Tensor), name
        np.testing.assert_array_equal(getattr(corrections, name).numpy(), getattr(expected, name), err_msg=name)
    scores = pe.score_samples(tensor, got, backend=backend)
    assert isinstance(scores, torch.Tensor)
    assert scores.shape == (120, 3)
    assert corrections.to_frame()["suggested_label"].tolist() == expected.labels.tolist()


def test_tensor_scores_of_bad_rows_and_empty_classes():
    x, y = clustered(60, 5, 2)
    x[4] = 0
    prototypes = select(x, y, num_classes=3, on_bad_rows="keep-label")
    got = pe.score_samples(torch.from_numpy(x), prototypes, on_bad_rows="keep-label")
    want = pe.score_samples(x, prototypes, on_bad_rows="keep-label")
    np.testing.assert_array_equal(got.numpy(), want)
    assert np.isnan(want[4]).all()
    assert np.isneginf(want[5, 2])


def test_density_peaks_and_similarity_answer_in_kind():
    x, _ = clustered(40, 5, 1)
    peaks = pe.density_peaks(torch.from_numpy(x))
    assert isinstance(peaks.rho, torch.Tensor)
    assert isinstance(peaks.eta, torch.Tensor)
    assert isinstance(pe.similarity(torch.from_numpy(x)), torch.Tensor)
    assert isinstance(pe.similarity(x), np.ndarray)
    assert pe.density_peaks(x, full_eta=False).eta is None


@pytest.mark.parametrize(
    "make", [Dlpack, np.asfortranarray, lambda x: x.tolist(), lambda x: np.repeat(x, 2, 1)[:, ::2]]
)
def test_other_arrays_are_read_as_they_are(make):
    x, y = clustered(80, 6, 2)
    x = x.astype(np.float64)
    np.testing.assert_array_equal(select(make(x), y).indices, select(x, y).indices)


def test_features_that_require_grad_are_read():
    x, y = clustered(50, 4, 2)
    tensor = torch.from_numpy(x).requires_grad_()
    np.testing.assert_array_equal(select(tensor, y).indices.numpy(), select(x, y).indices)


@pytest.mark.parametrize(
    ("error", "match", "value"),
    [
        (TypeError, "features: wanted float16.* got torch.int32", torch.ones(3, 2, dtype=torch.int32)),
        (ValueError, r"features: wanted \[N, D\].* got shape \(3,\)", torch.ones(3)),
        (ValueError, "features: wanted a torch tensor, .* got DLPack device", Dlpack(np.ones((2, 2)), (2, 0))),
        (ValueError, "features: wanted a .* array of floats, got list", [[1.0, 2.0], [3.0]]),
        (TypeError, "features: wanted a .* array of floats, got str", "bank.npy"),
        (TypeError, "features: wanted float16.* got >f4", np.ones((2, 2), ">f4")),
        (TypeError, "features: wanted float16.* got float128", np.ones((2, 2), np.longdouble)),
    ],
)
def test_matrix_is_refused_with_the_argument_named(error, match, value):
    with pytest.raises(error, match=match):
        as_matrix(value, "features")


def test_host_backend_refuses_features_on_another_device():
    tensor = torch.ones(4, 3, device="meta")  # stands in for a GPU
    with pytest.raises(ValueError, match=r"backend: wanted one that computes on meta, .* got 'cpu'"):
        resolve(tensor, "cpu")


@pytest.fixture(name="cupy")
def stand_in_for_cupy(monkeypatch):
    """CuPy without a GPU; torch takes its word that what it hands over can be read."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.make())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    registry = importlib.import_module("proto_engine.backends")._KNOWN
    monkeypatch.setitem(registry, "cupy", (lambda: "this CuPy computes nothing", registry["cupy"][1]))
    for name in ("self_check", "loop_checks"):
        checks = importlib.import_module(f"proto_engine.backends.{name}")
        monkeypatch.setattr(checks, "outcome", lambda part, device, check: None)  # what stands in here has no GPU
    return sys.modules["cupy"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_cupy_in_gives_cupy_out_with_the_same_values(cupy, dtype, method):
    x, y = clustered(120, 7, 3)
    x = x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    x[5] = 0
    features, labels = (cupy.ndarray(array, device=1) for array in (x, y))
    options = {"method": method, "num_classes": 4, "samples_per_class": 30, "on_bad_rows": "keep-label"}
    want, got = select(x, y, backend="reference", **options), select(features, labels, **options)
    corrections = pe.correct_labels(features, labels, got, on_bad_rows="keep-label")
    expected = pe.correct_labels(x, y, want, backend="reference", on_bad_rows="keep-label")
    for names, ours, theirs in (
        (FIELDS, got, want),
        (("labels", "given", "score", "margin", "changed"), corrections, expected),
    ):
        for name in names:
            value = getattr(ours, name)
            assert isinstance(value, cupy.ndarray) and value.device.id == 1, name
            np.testing.assert_array_equal(to_numpy(value), getattr(theirs, name), err_msg=name)
    scores = pe.score_samples(features, got, on_bad_rows="keep-label")
    assert scores.device.id == 1
    want_scores = pe.score_samples(x, want, backend="torch", on_bad_rows="keep-label")
    np.testing.assert_array_equal(to_numpy(scores), want_scores)
    assert corrections.to_frame()["suggested_label"].tolist() == expected.labels.tolist()


@pytest.mark.parametrize("kind", ["center", "whiten"])
def test_cupy_rows_are_transformed_where_they_are(cupy, kind):
    x, y = clustered(120, 7, 3)
    x[5] = 0
    features, labels = (cupy.ndarray(array, device=1) for array in (x, y))
    options = {"transform": kind, "on_bad_rows": "keep-label"}
    want, got = select(x, y, backend="torch", **options), select(features, labels, **options)
    assert got.transform.same_as(want.transform)
    np.testing.assert_array_equal(to_numpy(got.indices), want.indices)
    _, rows = next(iter(got.transform.apply(features).chunks()))
    assert isinstance(rows, cupy.ndarray) and rows.device.id == 1 and rows.dtype == np.float32
    np.testing.assert_array_equal(to_numpy(rows), got.transform.apply(x).rows(np.arange(120)))
    found = pe.correct_labels(features, labels, got, on_bad_rows="keep-label")
    expected = pe.correct_labels(x, y, want, on_bad_rows="keep-label")
    assert found.labels.device.id == 1
    np.testing.assert_array_equal(to_numpy(found.labels), expected.labels)


def test_cupy_arrays_go_through_every_operation(cupy, tmp_path):
    x, y = clustered(90, 6, 2)
    features, labels = cupy.ndarray(x, device=1), cupy.ndarray(y, device=1)
    peaks, expected = pe.density_peaks(features), pe.density_peaks(x)
    results = {
        "normalize": (normalize(features), normalize(x, backend="torch")),
        "similarity": (pe.similarity(features), pe.similarity(x, backend="torch")),
        "rho": (peaks.rho, expected.rho),
        "eta": (peaks.eta, expected.eta),
        "density": (density(features, cutoff=peaks.cutoff), expected.rho),
        "eta of rho": (eta(features, peaks.rho), expected.eta),
    }
    for name, (got, want) in results.items():
        assert got.device.id == 1, name
        np.testing.assert_array_equal(to_numpy(got), want, err_msg=name)
    mask = np.arange(90) % 3 > 0
    prototypes = select(features, labels, candidates=cupy.ndarray(mask, device=1))
    np.testing.assert_array_equal(to_numpy(prototypes.indices), select(x, y, candidates=mask).indices)
    prototypes.save(tmp_path / "p.safetensors")
    loaded = pe.Prototypes.load(tmp_path / "p.safetensors")
    np.testing.assert_array_equal(loaded.vectors, to_numpy(prototypes.vectors))
    scores = score(features, prototypes.folded)
    np.testing.assert_array_equal(to_numpy(scores), score(x, loaded.folded, backend="torch"))


def test_corrector_takes_cupy_arrays(cupy):
    x, y = clustered(90, 6, 2)
    features, labels = cupy.ndarray(x, device=1), cupy.ndarray(y, device=1)
    want, got = pe.PrototypeCorrector(), pe.PrototypeCorrector()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a collapsed class
        np.testing.assert_array_equal(got.fit_predict(features, labels), want.fit_predict(x, y))
    np.testing.assert_array_equal(got.predict(features), want.predict(x))


def test_host_backends_refuse_cupy_features(cupy):
    features = cupy.ndarray(np.ones((4, 3), np.float32), device=1)
    for backend in available("cpu", "numba", "faiss", "reference"):
        with pytest.raises(ValueError, match=rf"computes on cuda:1, .* got '{backend}'; pass features.get\(\)"):
            pe.select_prototypes(features, [0, 0, 1, 1], backend=backend)


def test_torch_without_a_gpu_says_that_it_cannot_read_cupy_arrays(cupy, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    features = cupy.ndarray(np.ones((4, 3), np.float32))
    with pytest.raises(pe.BackendUnavailable, match=r"torch .* cannot read CuPy arrays"):
        pe.select_prototypes(features, [0, 0, 1, 1], backend="torch")


@pytest.mark.parametrize(
    ("error", "match", "array"),
    [
        (TypeError, "features: wanted float16.* got int64", np.ones((2, 2), np.int64)),
        (ValueError, r"features: wanted \[N, D\].* got shape \(3,\)", np.ones(3)),
        (ValueError, r"features: wanted \[N, D\].* got shape \(0, 3\)", np.ones((0, 3))),
    ],
)
def test_cupy_matrix_is_refused_with_the_argument_named(cupy, error, match, array):
    with pytest.raises(error, match=match):
        as_matrix(cupy.ndarray(array), "features")


def test_kinds_convert_into_each_other(cupy):
    array = np.arange(6).reshape(2, 3)
    kinds = [ArrayKind(), ArrayKind("torch", torch.device("cpu")), ArrayKind("cupy", 2)]
    for source in kinds:
        for target in kinds:
            got = target.give(source.give(array))
            assert ArrayKind.of(got) == target
            np.testing.assert_array_equal(to_numpy(got), array)
    assert [kind.on_cpu for kind in kinds] == [True, True, False]
    assert [str(kind) for kind in kinds] == ["the host", "cpu", "cuda:2"]
    assert kinds[2].full((2,), 0.5, np.dtype(np.float32)).device.id == 2


def test_labels_of_any_integer_type(cupy):
    cupy_labels = cupy.ndarray(np.array([0, 1, 1], np.int32), device=3)
    for labels in (cupy_labels, [0, 1, 1], np.array([0, 1, 1], np.uint8), torch.tensor([0, 1, 1], dtype=torch.int16)):
        got = as_labels(labels, 3, 2)
        assert got.dtype == np.int64
        assert got.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("labels", "num_classes", "message"),
    [
        ([0, 2**63 - 1], None, "labels: wanted less than 16777216, got 9223372036854775807 at row 1"),
        (np.array([0, 2**63], np.uint64), None, "labels: wanted less than 16777216, got 9223372036854775808 at row 1"),
        (np.array([2**64 - 1, 0], np.uint64), 3, "labels: wanted less than num_classes = 3, got 1844.* at row 0"),
        ([0, 1], 10**19, "num_classes: wanted 16777216 at most, got 10000000000000000000"),
        ([0, 1], np.uint64(2**63), "num_classes: wanted 16777216 at most, got 9223372036854775808"),
    ],
)
def test_class_numbers_beyond_reason_are_refused(labels, num_classes, message):
    x = np.eye(2, dtype=np.float32)
    for call in (pe.select_prototypes, pe.label_evidence):
        with pytest.raises(ValueError, match=message):
            call(x, labels, num_classes=num_classes)


def test_bfloat16_tensor_becomes_numpy_without_rounding():
    tensor = torch.randn(5, 3).to(torch.bfloat16)
    array = to_numpy(tensor)
    assert array.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(array.astype(np.float32), tensor.float().numpy())
    assert kind_of(tensor).give(np.ones(2)).dtype == torch.float64


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_cupy_on_a_gpu_gives_cupy_on_that_gpu(dtype):
    cupy = pytest.importorskip("cupy")
    x, y = clustered(300, 20, 3)
    x = x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    x[5] = 0
    last = cupy.cuda.runtime.getDeviceCount() - 1  # where there are several, not the current one
    with cupy.cuda.Device(last):
        labels = cupy.asarray(y)
        banks = (cupy.asarray(x), cupy.asarray(np.repeat(x, 2, axis=1))[:, ::2], cupy.asarray(x.T.copy()).T)
    options = {"num_classes": 4, "samples_per_class": 50, "on_bad_rows": "keep-label"}
    want = select(x, y, backend="reference", **options)
    expected = pe.correct_labels(x, y, want, backend="reference", on_bad_rows="keep-label")
    reference = pe.score_samples(x, want, backend="reference", on_bad_rows="keep-label")
    for bank in banks:
        got = select(bank, labels, **options)
        corrections = pe.correct_labels(bank, labels, got, on_bad_rows="keep-label")
        scores = pe.score_samples(bank, got, on_bad_rows="keep-label")
        for array in (got.indices, corrections.labels, scores):
            assert isinstance(array, cupy.ndarray) and array.device.id == last
        for name in FIELDS:
            np.testing.assert_array_equal(to_numpy(getattr(got, name)), getattr(want, name), err_msg=name)
        for name in ("labels", "given", "score", "margin", "changed"):
            found = to_numpy(getattr(corrections, name))
            np.testing.assert_array_equal(found, getattr(expected, name), err_msg=name)
        np.testing.assert_allclose(to_numpy(scores), reference, rtol=0, atol=1e-5)


@pytest.mark.gpu
def test_cupy_work_on_a_stream_is_waited_for():
    """Features still being written on CuPy's stream are read after that, and results may be read on it."""
    cupy = pytest.importorskip("cupy")
    x, y = clustered(20_000, 256, 2)
    want = select(x, y, backend="cpu")
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        device = cupy.asarray(x)
        late = cupy.zeros_like(device)
        for _ in range(200):
            late += 1
        late[:] = device
        got = select(late, y)
        np.testing.assert_array_equal(to_numpy(got.indices), want.indices)
