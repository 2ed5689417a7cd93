"""The kernels of the scores, their very source, run on the host and held against the reference."""

from __future__ import annotations

import ctypes
from pathlib import Path

import cuda_host_library
import numpy as np
import pytest
from exact_cases import DTYPES, REFERENCE, assert_same_bits, class_vectors

from proto_engine.backends.base import condition_numpy, error_bound
from proto_engine.backends.device_scoring import workspace_bytes

pytestmark = pytest.mark.skipif(cuda_host_library.missing() is not None, reason=str(cuda_host_library.missing()))
STAND_IN = Path(__file__).parent / "cuda_host"
ALIGNED = 256


class Scores:
    """The launch functions of csrc/cuda/score.h by plain pointers; `seed` shuffles the threads."""

    def __init__(self, folder: Path) -> None:
        objects = []
        native = cuda_host_library.NATIVE / "cuda"
        kernels = [native / f"{name}.cu" for name in ("score", "score_cluster", "tensor_map")]
        for source in (*kernels, STAND_IN / "score.cpp"):
            target = folder / source.name  # two names differ in the ending only
            target.mkdir()
            objects.append(cuda_host_library.compile_one(source, target))
        library = folder / "libscore.so"
        cuda_host_library.link(objects, library)
        self._library = ctypes.CDLL(str(library))
        self._library.host_score_workspace_bytes.restype = ctypes.c_int64
        self._library.host_num_meetings.restype = ctypes.c_int64
        self.seed, self.cluster = 0, False

    def num_meetings(self) -> int:
        """How often the lanes of a warp have met: for every candidate beyond the second once more and again."""
        return self._library.host_num_meetings()

    def workspace_bytes(self, num_classes: int, dim: int) -> int:
        return self._library.host_score_workspace_bytes(ctypes.c_int64(num_classes), ctypes.c_int64(dim))

    def _call(self, name: str, *arguments: int | np.ndarray) -> None:
        function = getattr(self._library, name)
        function.restype = ctypes.c_char_p
        message = function(*(ctypes.c_int64(a if isinstance(a, int) else a.ctypes.data) for a in arguments))
        if message is not None:
            raise RuntimeError(message.decode())

    def _rows_and_workspace(self, x: np.ndarray, folded: np.ndarray) -> list[int | np.ndarray]:
        code = list(DTYPES.values()).index(x.dtype)
        workspace = aligned(self.workspace_bytes(*folded.shape))
        self._call("host_prepare_folded", np.ascontiguousarray(folded), *folded.shape, code, workspace)
        return [x, *x.shape, x.strides[0] // x.itemsize, code, workspace, len(folded)]

    def top2(self, x: np.ndarray, folded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        label, best, second = np.full(len(x), -7), np.full(len(x), 7.0), np.full(len(x), 7.0)
        self._call(
            "host_score_top2", *self._rows_and_workspace(x, folded), label, best, second, self.seed, int(self.cluster)
        )
        return label, best, second

    def score(self, x: np.ndarray, folded: np.ndarray) -> np.ndarray:
        sigma = np.full((len(x), len(folded)), 7.0, dtype=np.float32)
        self._call("host_score", *self._rows_and_workspace(x, folded), sigma, self.seed)
        return sigma


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    return Scores(tmp_path_factory.mktemp("score"))


@pytest.fixture(params=[0, 1], ids=["in order", "shuffled"])
def scores(built: Scores, request: pytest.FixtureRequest) -> Scores:
    built.seed, built.cluster = request.param, False
    return built


@pytest.fixture
def cluster(scores: Scores) -> Scores:
    scores.cluster = True
    return scores


def aligned(num_bytes: int) -> np.ndarray:
    """Memory as cudaMalloc gives it."""
    memory = np.empty(num_bytes + ALIGNED, dtype=np.uint8)
    start = -memory.ctypes.data % ALIGNED
    return memory[start : start + num_bytes]


def aligned_rows(x: np.ndarray) -> np.ndarray:
    out = aligned(x.nbytes).view(x.dtype).reshape(x.shape)
    out[...] = x
    return out


def problem(n: int, dim: int, num_classes: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows, a third of them multiples of class vectors, some of which are equal or nearly so."""
    rng = np.random.default_rng([n, dim, num_classes])
    folded = class_vectors(rng, num_classes, dim)
    x = rng.standard_normal((n, dim))
    near = np.arange(0, n, 3)
    x[near] = rng.choice([-2.0, 0.5, 4.0], (len(near), 1)) * folded[rng.integers(0, num_classes, len(near))]
    return aligned_rows(x.astype(DTYPES[dtype])), folded


def assert_best_two(scores: Scores, x: np.ndarray, folded: np.ndarray) -> None:
    """They have the bits of the reference."""
    for found, wanted in zip(scores.top2(x, folded), REFERENCE.top2(x, folded), strict=True):
        assert_same_bits(found, wanted)


def assert_right(scores: Scores, x: np.ndarray, folded: np.ndarray) -> None:
    """The best two have the bits of the reference, sigma is within the bound."""
    assert_best_two(scores, x, folded)
    sigma, wanted = scores.score(x, folded), REFERENCE.score(x, folded)
    assert_same_bits(np.isnan(sigma), np.isnan(wanted))
    assert np.all(np.isnan(wanted) | (np.abs(sigma - wanted) <= error_bound(x.shape[1])))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [1, 2, 14, 33])
def test_top2_and_sigma_are_those_of_the_reference(scores, dtype, num_classes):
    for dim in (8, 40, 100, 160):
        assert_right(scores, *problem(70, dim, num_classes, dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("num_classes", [3, 16, 40])
def test_tensor_cores_multiply_longer_rows(scores, dtype, num_classes):
    for n, dim in ((65, 256), (20, 392)):
        assert_right(scores, *problem(n, dim, num_classes, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_go_on_to_their_next_rows(scores, dtype):
    assert_right(scores, *problem(64 * 7 + 5, 72, 17, dtype))  # eight times 64 rows, three blocks


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_may_lie_anywhere(scores, dtype):
    x, folded = problem(70, 301, 5, dtype)
    for view in (x[:, 1:], x[::2, 3:278], x[3:4], x[:, :296]):
        assert_right(scores, view, folded[:, : view.shape[1]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_rows_without_a_direction_get_no_label_and_nan(scores, dtype):
    x, folded = problem(40, 232, 5, dtype)
    for at, value in enumerate((0.0, -0.0, np.nan, np.inf, -np.inf)):
        x[7 * at] = 0.0
        x[7 * at, 100] = value
    label, _, second = scores.top2(x, folded)
    assert (label[::7][:5] == -1).all() and np.isnan(second[::7][:5]).all()
    assert_right(scores, x, folded)


@pytest.mark.parametrize(
    ("dtype", "sizes"),
    [
        ("float16", [6e-8, 1e-5, 6e4]),
        ("bfloat16", [1e-38, 1e-30, 1e-10, 1e10, 1e18, 1e30]),
        ("float32", [1e-40, 1e-30, 1e-10, 1e10, 1e18, 1e30]),
        ("float64", [1e-300, 1e-120, 1e-40, 1e30, 1e120, 1e300]),
    ],
)
def test_rows_of_extreme_size_are_exact(scores, dtype, sizes):
    rng = np.random.default_rng(0)
    folded = class_vectors(rng, 6, 240)
    x = np.repeat(folded, len(sizes), axis=0) * 3 + 0.1 * rng.standard_normal((6 * len(sizes), 240))
    x *= np.tile(sizes, 6)[:, None] / np.abs(x).max(axis=1, keepdims=True)
    assert_right(scores, aligned_rows(condition_numpy(x.astype(DTYPES[dtype]))), folded)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [16, 70])
def test_more_candidates_than_there_is_room_for(scores, dtype, num_classes):
    rng = np.random.default_rng(0)
    folded = np.repeat(class_vectors(rng, 1, 200), num_classes, axis=0)
    folded[num_classes // 2 :] *= 1 + 1e-9 * rng.standard_normal((num_classes - num_classes // 2, 200))
    x = aligned_rows(rng.standard_normal((10, 200)).astype(DTYPES[dtype]))
    assert_right(scores, x, folded)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("dim", [257, 264, 512, 600, 1000, 1281, 1536, 1800, 2048])
def test_cluster_of_any_number_of_blocks(cluster, dtype, dim):
    """Two to eight parts; the last one may have few columns, the last tile few rows."""
    x, folded = problem(64 * 2 + 9, -(-dim // 8) * 8, 5, dtype)
    assert_best_two(cluster, x[:, :dim], folded[:, :dim])


@pytest.mark.parametrize("dim", [264, 760, 2048])
@pytest.mark.parametrize("num_classes", [1, 14, 16])
def test_cluster_takes_tile_after_tile(cluster, dim, num_classes):
    """So many that every buffer is filled again and again, with rows that no other part knows and ties."""
    x, folded = problem(64 * 14 + 1, dim, num_classes, "float16")
    x[130:150] = 0
    x[200:210, 5] = np.inf
    folded[num_classes // 2 :] = folded[: num_classes - num_classes // 2]
    assert_best_two(cluster, x, folded)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_cluster_of_few_rows_and_rows_with_a_stride(cluster, dtype):
    x, folded = problem(70, 640, 9, dtype)
    for view in (x[:1], x[::3], x[:, 64:576], x[5:6, 8:]):
        assert_best_two(cluster, view, folded[:, : view.shape[1]])


def test_cluster_leaves_the_rest_to_single_blocks(built, cluster):
    """Rows of other types, unaligned, too short or too long, and more classes than 16."""
    half, folded = problem(70, 2056, 5, "float16")
    for x in (half, half[:, 1:600], half[:, :256], problem(10, 300, 5, "float32")[0]):
        assert_best_two(cluster, x, folded[:, : x.shape[1]])
    assert_best_two(cluster, *problem(10, 512, 17, "float16"))


@pytest.mark.parametrize("kernel", ["blocks", "cluster"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_two_candidates_are_enough_where_scores_are_apart(scores, kernel, dtype):
    """What float32 gets wrong is put right later, row by row: so the same bits are no sign that it was right."""
    scores.cluster = kernel == "cluster"
    folded = np.zeros((6, 768))
    folded[np.arange(6), 100 * np.arange(6)] = 0.9
    x = np.zeros((64 * 13, 768))
    rng = np.random.default_rng(0)
    x[:, 100 * np.arange(6)] = rng.permuted(np.tile(np.arange(1, 7), (len(x), 1)), axis=1)
    x *= rng.choice([-1, 1], (len(x), 1))  # the product of a row with its neighbor is no square
    rows, meetings = aligned_rows(x.astype(DTYPES[dtype])), []
    for vectors in (folded[:2], folded, folded * 0):  # no more than two; apart; all equal
        before = scores.num_meetings()
        assert_best_two(scores, rows, vectors)
        meetings.append(scores.num_meetings() - before)
    assert meetings[0] == meetings[1] < meetings[2]


@pytest.mark.parametrize("kernel", ["blocks", "cluster"])
def test_low_terms_of_the_vectors_count(scores, kernel):
    """The best class by far is not among the best two of vectors that are rounded to float16."""
    scores.cluster = kernel == "cluster"
    half_ulp = 2.0**-11
    folded = np.ones((3, 512))
    folded[0] += 0.98 * half_ulp  # rounds to 1, all of it
    folded[1:, ::2] += 1.02 * half_ulp  # rounds to the next number
    folded[1:, 1::2] += 0.8 * half_ulp
    folded /= 64
    label, _, _ = scores.top2(aligned_rows(np.ones((3, 512), np.float16)), folded)
    assert label.tolist() == [0, 0, 0]
    assert_best_two(scores, aligned_rows(np.ones((3, 512), np.float16)), folded)


def test_workspace_is_as_large_as_the_backend_makes_it(built):
    for num_classes in (1, 15, 16, 17, 32, 33, 1000):
        for dim in (1, 127, 128, 129, 2048):
            assert built.workspace_bytes(num_classes, dim) == workspace_bytes(num_classes, dim)


def test_no_rows_and_no_classes(built):
    x, folded = problem(2, 8, 2, "float32")
    assert built.top2(x[:0], folded)[0].shape == (0,)
    with pytest.raises(RuntimeError, match="invalid argument"):
        built.top2(x, folded[:0])
