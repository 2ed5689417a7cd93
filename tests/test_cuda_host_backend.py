"""The CUDA backend from end to end, on the host: the same bits as the reference."""

from __future__ import annotations

from types import ModuleType

import cuda_host_library
import numpy as np
import pytest
from exact_cases import KINDS, QUANTILES, Engine, assert_same_pool, case

from proto_engine.backends.cuda import CudaBackend

pytestmark = pytest.mark.skipif(cuda_host_library.missing() is not None, reason=str(cuda_host_library.missing()))
LOOPS = ("simt", "mma")


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return cuda_host_library.load(tmp_path_factory)


class HostEngine(Engine):
    """The CUDA backend over the launches that were compiled for the host."""

    def __init__(self, core: ModuleType, loop: str) -> None:
        self.name = "cuda"
        self.backend = CudaBackend(loop, core.cuda)

    def rows(self, x: np.ndarray):
        return self.backend.native(x)


@pytest.mark.parametrize("m", [1, 2, 5, 128, 129])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loop", LOOPS)
def test_pool_has_the_bits_of_the_reference(core, loop, kind, m):
    x, reference = case(kind, m, 24)
    assert_same_pool(HostEngine(core, loop), x, reference, (0.4, 0.98))
