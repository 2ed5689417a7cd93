"""Mean and covariance in one walk: the same numbers as numpy's, whatever the blocks, the dtype and the offset."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import proto_engine as pe
from proto_engine.moments import BLOCK_ROWS, bank_moments, row_blocks


def sample(n: int, d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + rng.standard_normal(d)


@pytest.mark.parametrize("n", [1, 2, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 2 * BLOCK_ROWS + 3])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_moments_agree_with_numpy_over_block_borders(n, dtype):
    x = sample(n, 12).astype(dtype)
    double = x.astype(np.float64)
    mean, covariance, count = bank_moments(x)
    assert count == n
    np.testing.assert_allclose(mean, double.mean(axis=0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(covariance, np.atleast_2d(np.cov(double.T, bias=True)), rtol=1e-5, atol=2e-5)
    np.testing.assert_array_equal(covariance, covariance.T)


@pytest.mark.parametrize(("offset", "dtype"), [(1e4, np.float32), (1e9, np.float64)])
def test_moments_keep_their_digits_under_a_large_offset(offset, dtype):
    x = (sample(6000, 8) + offset).astype(dtype)
    expected = np.cov(x.astype(np.float64).T, bias=True)
    np.testing.assert_allclose(bank_moments(x).covariance, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("scale", "dtype"), [(1e-30, np.float32), (1e30, np.float32), (1e120, np.float64)])
def test_moments_of_extreme_scale_are_scaled_moments(scale, dtype):
    x = sample(500, 6)
    got = bank_moments((x * scale).astype(dtype)).covariance / scale / scale
    np.testing.assert_allclose(got, np.cov(x.T, bias=True), rtol=1e-4, atol=1e-4)


def test_moments_leave_out_rows_without_a_direction():
    x = sample(300, 5).astype(np.float32)
    bad = x.copy()
    bad[[3, 50]], bad[7, 2], bad[299, 0] = 0, np.nan, np.inf
    good = np.delete(x, [3, 50, 7, 299], axis=0)
    mean, covariance, count = bank_moments(bad)
    assert count == 296
    np.testing.assert_allclose(mean, good.astype(np.float64).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(covariance, np.cov(good.T.astype(np.float64), bias=True), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="at least one row"):
        bank_moments(np.zeros((4, 3), dtype=np.float32))


def test_moments_are_the_same_bits_from_memory_npy_and_parquet(tmp_path):
    x = sample(BLOCK_ROWS + 900, 7).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 7)
    pq.write_table(pa.table({"features": column}), tmp_path / "x.parquet", row_group_size=700)
    inside = bank_moments(x)
    for name in ("x.npy", "x.parquet"):
        for got, wanted in zip(bank_moments(pe.FeatureBank.open(tmp_path / name)), inside, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_row_blocks_are_cut_by_shape_alone(tmp_path):
    x = sample(2 * BLOCK_ROWS + 5, 3).astype(np.float16)
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 3)
    pq.write_table(pa.table({"features": column}), tmp_path / "x.parquet", row_group_size=1000)
    for bank in (pe.FeatureBank(x), pe.FeatureBank.open(tmp_path / "x.parquet")):
        starts, blocks = zip(*row_blocks(bank), strict=True)
        assert starts == (0, BLOCK_ROWS, 2 * BLOCK_ROWS)
        assert all(rows.dtype == np.float32 for rows in blocks)
        np.testing.assert_array_equal(np.concatenate(blocks), x.astype(np.float32))
