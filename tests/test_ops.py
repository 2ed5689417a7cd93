"""The five operations one by one, by hand and by argument."""

from __future__ import annotations

import numpy as np
import pytest
from problems import clustered

import proto_engine as pe
from proto_engine import ops
from proto_engine.backends import error_bound

# Three unit rows in the plane at 0, 60 and 90 degrees: S_01 = 1/2, S_02 = 0, S_12 = sqrt(3)/2.
PLANE = np.array([[1, 0], [0.5, np.sqrt(0.75)], [0, 1]])
BACKENDS = ["reference", "cpu", "numba", "torch"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_operations_by_hand(backend):
    x = PLANE * [[2], [3], [0.5]]  # lengths do not matter
    np.testing.assert_allclose(ops.normalize(x, backend=backend), PLANE, atol=1e-7)
    s = [[1, 0.5, 0], [0.5, 1, np.sqrt(0.75)], [0, np.sqrt(0.75), 1]]
    np.testing.assert_allclose(ops.similarity(x, backend=backend), s, atol=1e-7)
    # Sorted entries: 0 0 .5 .5 .866 .866 1 1 1; index floor(q 8).
    for quantile, entry in ((0.0, 0.0), (0.3, 0.5), (0.5, np.sqrt(0.75)), (0.6, np.sqrt(0.75)), (1.0, 1.0)):
        assert ops.cutoff(x, quantile=quantile, backend=backend) == pytest.approx(entry, abs=1e-15)
    # Against 0.6: row 0 has 1 above and 2 below, row 1 has 2 and 1, row 2 has 2 and 1.
    rho = ops.density(x, cutoff=0.6, backend=backend)
    assert rho.tolist() == [-1, 1, 1]
    # Rows 1 and 2 are densest and take the least of their row; row 0 takes the larger of S_01 and S_02.
    np.testing.assert_allclose(ops.eta(x, rho, backend=backend), [0.5, 0.5, 0.0], atol=1e-15)
    np.testing.assert_allclose(ops.score(x, PLANE[:2], backend=backend), np.array(s)[:, :2], atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_density_counts_an_equal_entry_as_zero(backend):
    x = np.array([[1.0, 0], [1, 0], [0, 1]])
    assert ops.density(x, cutoff=1.0, backend=backend).tolist() == [-1, -1, -2]
    assert ops.density(x, cutoff=0.0, backend=backend).tolist() == [2, 2, 1]
    assert ops.density(x, cutoff=-0.5, backend=backend).tolist() == [3, 3, 3]
    assert ops.density(x, cutoff=1.5, backend=backend).tolist() == [-3, -3, -3]


def test_density_peaks_agrees_with_the_single_operations():
    x, _ = clustered(150, 9, 1)
    peaks = pe.density_peaks(x, cutoff_quantile=0.4)
    assert peaks.cutoff == ops.cutoff(x, quantile=0.4)
    np.testing.assert_array_equal(peaks.rho, ops.density(x, cutoff=peaks.cutoff))
    np.testing.assert_array_equal(peaks.eta, ops.eta(x, peaks.rho))


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (
            ValueError,
            r"rho: wanted one entry a row of features, \[3\], got shape \(2,\)",
            lambda: ops.eta(PLANE, [1, 2]),
        ),
        (TypeError, "rho: wanted integers, got float64", lambda: ops.eta(PLANE, [1.0, 2.0, 3.0])),
        (TypeError, "cutoff: wanted a number, got str", lambda: ops.density(PLANE, cutoff="0.5")),
        (ValueError, "cutoff: wanted a finite number, got inf", lambda: ops.density(PLANE, cutoff=np.inf)),
        (
            ValueError,
            r"folded: wanted \[C, 2\] like the features, got \(1, 3\)",
            lambda: ops.score(PLANE, np.ones((1, 3))),
        ),
        (ValueError, "quantile: wanted a number from 0 to 1, got -0.1", lambda: ops.cutoff(PLANE, quantile=-0.1)),
        (TypeError, "quantile: wanted a number from 0 to 1, got bool", lambda: ops.cutoff(PLANE, quantile=True)),
        (
            ValueError,
            r"got 1 of 3 rows with NaN, infinity or zero norm \(rows 1\)",
            lambda: ops.normalize(PLANE * [[1], [0], [1]]),
        ),
        (pe.BackendUnavailable, "faiss", lambda: ops.cutoff(PLANE, backend="faiss")),
    ],
)
def test_operations_refuse_with_the_argument_named(error, match, call):
    with pytest.raises(error, match=match):
        call()


def test_bad_rows_message_names_the_first_few_only():
    message = ops.bad_rows_message(np.arange(10, 30), 100)
    assert "got 20 of 100 rows" in message
    assert "(rows 10, 11, 12, 13, 14, ...)" in message


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_score_takes_vectors_of_any_length(dtype):
    x = np.random.default_rng(0).standard_normal((20, 6)).astype(dtype)
    folded = np.array([[3.0, 4.0, 0, 0, 0, 0], [0, 0, 0.5, 0, 0, 0], [0, 0, 0, 0, -1e6, 0]])
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    found = ops.score(x, folded)
    np.testing.assert_allclose(found, unit @ folded.T, rtol=0, atol=2e6 * error_bound(6))
    with pytest.raises(ValueError, match="folded: wanted finite vectors"):
        ops.score(x, np.full((1, 6), np.nan))
    with pytest.raises(ValueError, match=r"folded: wanted vectors no longer than .*, got entries up to 1e\+200"):
        ops.score(x, np.full((1, 6), 1e200))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "rho", [np.array([2**63 + 5, 2, 2**64 - 1], dtype=np.uint64), np.array([7, -(2**63), 2**63 - 1])]
)
def test_eta_takes_densities_of_any_size(backend, rho):
    np.testing.assert_array_equal(
        ops.eta(PLANE, rho, backend=backend), ops.eta(PLANE, np.array([1, 0, 2]), backend=backend)
    )
