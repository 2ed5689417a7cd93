"""faiss on a GPU: what is made of its products, with a stand-in for it on the host; and (gpu) with faiss itself."""

from __future__ import annotations

import numpy as np
import pytest
from exact_cases import DTYPES, REFERENCE, assert_same_bits, class_vectors

import proto_engine as pe
from proto_engine.backends.base import condition_numpy, error_bound

faiss = pytest.importorskip("faiss")
torch = pytest.importorskip("torch")
from proto_engine.backends import faiss_gpu  # noqa: E402
from proto_engine.backends.faiss import FaissBackend  # noqa: E402
from proto_engine.backends.torch_rows import to_tensor  # noqa: E402


class StandIn:
    """As wrong as the bound allows, in random directions."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def nearest(self, queries, vectors, k):
        x, f = queries.double(), vectors.double()
        allowed = (
            faiss_gpu.search_bound(queries.shape[1], queries.dtype)
            - faiss_gpu._ROUNDINGS.get(queries.dtype, 1.0) * 2.0**-24
        )  # the vectors have been rounded already
        signs = torch.randint(0, 2, (len(x), len(f)), generator=torch.Generator().manual_seed(0)) * 2 - 1
        s = x @ f.T + signs * (0.99 * allowed * x.norm(dim=1)[:, None] * f.norm(dim=1))
        self.asked.append(k)
        found = s.float().topk(k, dim=1)
        return found.values, found.indices

    def products(self, queries, vectors):
        return queries @ vectors.T


def problem(n: int, dim: int, num_classes: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([n, dim, num_classes])
    folded = class_vectors(rng, num_classes, dim)
    x = rng.standard_normal((n, dim))
    near = np.arange(0, n, 3)
    x[near] = rng.choice([-2.0, 0.5, 4.0], (len(near), 1)) * folded[rng.integers(0, num_classes, len(near))]
    return x.astype(DTYPES[dtype]), folded


def assert_right(x: np.ndarray, folded: np.ndarray) -> None:
    found = faiss_gpu.top2(to_tensor(x), folded, StandIn())
    for result, wanted in zip(found, REFERENCE.top2(x, folded), strict=True):
        assert_same_bits(result, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [1, 2, 8, 9, 40])
def test_top2_is_exact_however_wrong_faiss_may_be(dtype, num_classes):
    for n, dim in ((1, 1), (60, 21), (40, 300)):
        assert_right(*problem(n, dim, num_classes, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_classes_that_faiss_cannot_tell_apart(dtype):
    rng = np.random.default_rng(0)
    folded = np.repeat(class_vectors(rng, 3, 24), 8, axis=0) * (1 + 1e-8 * rng.standard_normal((24, 24)))
    assert_right(rng.standard_normal((50, 24)).astype(DTYPES[dtype]), folded)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_rows_without_a_direction_and_rows_of_extreme_size(dtype):
    x, folded = problem(40, 30, 12, dtype)
    for at, value in enumerate((0.0, np.nan, np.inf)):
        x[5 * at] = value
    sizes = {"float16": (6e-5, 6e3), "float64": (1e-300, 1e300)}.get(dtype, (1e-30, 1e30))
    x[20:25] *= np.array(sizes[0], dtype=x.dtype)
    x[25:30] *= np.array(sizes[1], dtype=x.dtype)
    assert_right(condition_numpy(x), folded)


def test_blocks_of_rows_are_scored_one_after_another(monkeypatch):
    monkeypatch.setattr(faiss_gpu, "rows_within", lambda limit, bytes_a_row: 7)
    x, folded = problem(40, 16, 11, "float16")
    assert_right(x, folded)
    search = StandIn()
    faiss_gpu.top2(to_tensor(x), folded, search)
    assert search.asked == [8] * 6
    sigma = faiss_gpu.score(to_tensor(x), folded, search).numpy()
    assert np.abs(sigma - REFERENCE.score(x, folded)).max() <= error_bound(16)


def test_without_a_gpu_features_stay_on_the_host(monkeypatch):
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    assert not FaissBackend().takes_device_arrays


@pytest.mark.gpu
@pytest.mark.skipif(not hasattr(faiss, "StandardGpuResources"), reason="this faiss was built without GPUs")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [1, 2, 14, 33])
def test_faiss_on_the_gpu_gives_the_bits_of_the_reference(dtype, num_classes):
    for n, dim in ((1, 8), (300, 100), (500, 512)):
        x, folded = problem(n, dim, num_classes, dtype)
        backend = FaissBackend()
        rows = backend.native(to_tensor(x).cuda())
        assert rows.is_cuda
        for result, wanted in zip(backend.top2(rows, folded), REFERENCE.top2(x, folded), strict=True):
            assert_same_bits(result, wanted)
        sigma = backend.score(rows, folded)
        assert sigma.is_cuda
        assert np.abs(sigma.cpu().numpy() - REFERENCE.score(x, folded)).max() <= error_bound(dim)


@pytest.mark.gpu
@pytest.mark.skipif(not hasattr(faiss, "StandardGpuResources"), reason="this faiss was built without GPUs")
def test_cuda_tensors_are_corrected_by_faiss_where_they_are():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 32)).astype(np.float32)
    y = rng.integers(0, 4, 200)
    prototypes = pe.select_prototypes(x, y, backend="reference", samples_per_class=None)
    wanted = pe.correct_labels(x, y, prototypes, backend="reference")
    found = pe.correct_labels(torch.from_numpy(x).cuda(), torch.from_numpy(y).cuda(), prototypes, backend="faiss")
    assert found.labels.is_cuda
    assert_same_bits(found.labels.cpu().numpy(), wanted.labels)
    assert_same_bits(found.margin.cpu().numpy(), wanted.margin)
