"""The CUDA build: what it holds, how it fails without a GPU, and (gpu) that it gives the CPU's bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import has_gpu

import proto_engine as pe

_core = pytest.importorskip("proto_engine._core", reason="the native module was not built")
compiled = pytest.mark.skipif(_core.cuda_architectures is None, reason="built without CUDA")


@compiled
def test_kernels_are_compiled_for_ampere_and_hopper():
    assert {"80-real", "90a-real"} <= set(_core.cuda_architectures.split())


@compiled
@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_launch_without_a_gpu_is_an_error_not_a_crash():
    with pytest.raises(RuntimeError, match=r"^normalize: "):
        _core.cuda_normalize(0, 1, 1, 0, 0, 0)


def test_cuda_backend_says_why_it_is_unavailable():
    assert "normalize" in pe.backends()["cuda"] or "CUDA" in pe.backends()["cuda"]


@compiled
@pytest.mark.gpu
@pytest.mark.parametrize(("m", "d"), [(1, 1), (31, 7), (33, 64), (1000, 515)])
def test_normalize_gives_the_bits_of_the_cpu(m, d):
    from proto_engine.backends.cpu import CpuBackend

    x = np.random.default_rng(0).standard_normal((m, d)).astype(np.float32)
    on_gpu = torch.from_numpy(x).cuda()
    squares = torch.empty(m, dtype=torch.float64, device="cuda")
    unit = torch.empty_like(on_gpu)
    stream = torch.cuda.current_stream().cuda_stream
    _core.cuda_normalize(on_gpu.data_ptr(), m, d, squares.data_ptr(), unit.data_ptr(), stream)
    backend = CpuBackend()
    np.testing.assert_array_equal(squares.cpu().numpy(), backend.squared_norms(x))
    np.testing.assert_array_equal(unit.cpu().numpy(), backend.normalize(x, backend.squared_norms(x)))
