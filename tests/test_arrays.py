"""What callers pass in, and results in the caller's kind of array."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from problems import clustered, select

import proto_engine as pe
from proto_engine.arrays import as_labels, as_matrix, kind_of, to_numpy


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
        (ValueError, "features: wanted an array in host memory, got DLPack device", Dlpack(np.ones((2, 2)), (2, 0))),
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
    tensor = torch.ones(4, 3, device="meta")
    with pytest.raises(ValueError, match=r"backend: wanted one that computes on meta, .* got 'cpu'"):
        pe.select_prototypes(tensor, [0, 0, 1, 1], backend="cpu")


def test_labels_of_any_integer_type():
    for labels in ([0, 1, 1], np.array([0, 1, 1], np.uint8), torch.tensor([0, 1, 1], dtype=torch.int16)):
        got = as_labels(labels, 3, 2)
        assert got.dtype == np.int64
        assert got.tolist() == [0, 1, 1]


def test_bfloat16_tensor_becomes_numpy_without_rounding():
    tensor = torch.randn(5, 3).to(torch.bfloat16)
    array = to_numpy(tensor)
    assert array.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(array.astype(np.float32), tensor.float().numpy())
    assert kind_of(tensor).give(np.ones(2)).dtype == torch.float64
