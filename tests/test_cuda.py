"""The CUDA build: what it holds, how it fails without a GPU, and (gpu) that it gives the CPU's bits."""

from __future__ import annotations

import pytest
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
    with pytest.raises(RuntimeError, match=r"^fill: "):
        _core.cuda.fill(0, 0, 1, 0)


def test_cuda_backend_says_why_it_is_unavailable():
    assert "normalize" in pe.backends()["cuda"] or "CUDA" in pe.backends()["cuda"]
