"""The torch backend: tensors in without copies, and the same bits whatever mode torch is in."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from exact_cases import DTYPES, REFERENCE, assert_same_bits, assert_same_density, case, reference_pool

import proto_engine as pe
from proto_engine.backends.base import condition_numpy, eta_of

torch = pytest.importorskip("torch")
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from proto_engine.backends import torch as backend_module  # noqa: E402
from proto_engine.backends.torch import TorchBackend, condition, to_tensor  # noqa: E402

FOLDED = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 20)))[0][:6]


def precision_of_products() -> tuple[Any, ...]:
    """Both of torch's settings; the older one cannot always be read."""
    try:
        older = torch.get_float32_matmul_precision()
    except RuntimeError:
        older = "mixed"
    newer = [getattr(place.matmul, "fp32_precision", None) for place in (torch.backends.cuda, torch.backends.mkldnn)]
    return older, *newer


@pytest.fixture(autouse=True)
def _restore_precision() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


class WatchedProducts(TorchDispatchMode):
    """Counts matrix products and refuses those that are not float32 in full precision."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.matmul, torch.ops.aten.addmm, torch.ops.aten.bmm):
            self.count += 1
            assert args[0].dtype == args[1].dtype == torch.float32
            assert precision_of_products() in (("highest", "ieee", "ieee"), ("highest", None, None))
        return func(*args, **(kwargs or {}))


def run_everything(x: Any) -> list[Any]:
    """Every operation of the backend on rows of dimension 20."""
    backend = TorchBackend(tile=100)
    rows = condition(to_tensor(x))
    squares = backend.squared_norms(rows)
    pool = backend.pool(rows, squares)
    cutoff, rho = pool.density(0.6)
    return [
        squares,
        np.float64(cutoff),
        rho,
        pool.density_at(0.25),
        eta_of(pool, rho, np.arange(pool.m)),
        *backend.top2(rows, FOLDED),
        pool.similarity(),
        backend.normalize(rows, squares),
        backend.score(rows, FOLDED),
    ]


def assert_right(found: list[Any], x: np.ndarray) -> None:
    """The exact results have the reference's bits; the float32 ones are ordinary tensors near them."""
    reference = reference_pool(x)
    cutoff, rho = reference.density(0.6)
    wanted = [REFERENCE.squared_norms(x), np.float64(cutoff), rho, reference.density_at(0.25)]
    wanted += [eta_of(reference, rho, np.arange(reference.m)), *REFERENCE.top2(x, FOLDED)]
    for a, b in zip(found[: len(wanted)], wanted, strict=True):
        assert_same_bits(a, b)
    near = [reference.s, REFERENCE.normalize(x, REFERENCE.squared_norms(x)), REFERENCE.score(x, FOLDED)]
    for a, b in zip(found[len(wanted) :], near, strict=True):
        assert a.dtype == torch.float32 and not a.requires_grad and not a.is_inference()
        np.testing.assert_allclose(a.numpy(), b, atol=2e-6, rtol=0)


@contextlib.contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    torch.set_float32_matmul_precision(name)
    yield


@contextlib.contextmanager
def new_precision(cuda: str, mkldnn: str) -> Iterator[None]:
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this torch has one setting only")
    torch.backends.cuda.matmul.fp32_precision = cuda
    torch.backends.mkldnn.matmul.fp32_precision = mkldnn
    yield


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


MODES: dict[str, Callable[[], Any]] = {
    "highest": lambda: matmul_precision("highest"),
    "high": lambda: matmul_precision("high"),
    "medium": lambda: matmul_precision("medium"),
    "tf32": lambda: new_precision("tf32", "tf32"),
    "bf16": lambda: new_precision("tf32", "bf16"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "float64 by default": lambda: default_dtype(torch.float64),
    "bfloat16 by default": lambda: default_dtype(torch.bfloat16),
    "deterministic": deterministic,
    "other device by default": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("mode", MODES)
def test_results_do_not_depend_on_the_mode_of_torch(mode):
    x, _ = case("close", 400, 20)
    with MODES[mode]():
        before = precision_of_products()
        with WatchedProducts() as products:
            found = run_everything(x)
        assert products.count > 5
        assert precision_of_products() == before
    assert_right(found, x)


def test_precision_is_restored_when_an_operation_fails():
    torch.set_float32_matmul_precision("medium")
    before = precision_of_products()
    with pytest.raises(RuntimeError):
        TorchBackend().score(torch.ones(3, 4), np.ones((2, 5)))
    assert precision_of_products() == before


def test_inherited_precision_inherits_again():
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this torch has one setting only")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = "none"
    torch.backends.mkldnn.matmul.fp32_precision = "none"
    run_everything(case("normal", 17, 20)[0])
    try:
        torch.backends.fp32_precision = "tf32"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.fp32_precision = "none"


def test_rows_that_require_grad_or_come_from_inference_mode_are_read():
    x, _ = case("normal", 33, 20)
    leaf = torch.from_numpy(x.copy()).requires_grad_()
    assert_right(run_everything(leaf), x)
    assert_right(run_everything(leaf * 1.0), x)
    backend = TorchBackend()
    pool = backend.pool(leaf, backend.squared_norms(leaf))
    assert_same_density(pool.density(0.6), reference_pool(x).density(0.6))
    assert not backend.score(leaf, FOLDED).requires_grad
    with torch.inference_mode():
        made_there = torch.from_numpy(x.copy()) * 1.0
    assert_right(run_everything(made_there), x)
    with torch.no_grad():
        picked = pe.density_peaks(made_there, backend="torch")
    assert isinstance(picked.eta, torch.Tensor) and not picked.eta.is_inference()


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_every_dtype_and_layout(dtype):
    x, _ = case("close", 34, 40, dtype)
    tensor = to_tensor(x.copy())
    assert str(tensor.dtype) == f"torch.{dtype}"
    for view, rows in ((tensor[::2, ::2], x[::2, ::2]), (tensor[:, :20], x[:, :20]), (tensor.T[:20], x.T[:20])):
        if rows.shape[1] == 20:
            assert_right(run_everything(view), rows)
        else:
            found = pe.density_peaks(view, backend="torch")
            wanted = pe.density_peaks(rows, backend="reference")
            assert found.cutoff == wanted.cutoff
            assert_same_bits(found.rho, wanted.rho)
            assert_same_bits(found.eta, wanted.eta)


def test_small_pieces_give_the_same_bits(monkeypatch):
    """As many pieces as a large problem has: a few pairs, flags and rows at a time."""
    from proto_engine.backends import torch_rows

    tiny = torch_rows.Sizes(tile=100, product_bytes=8 * 20 * 7, block_bytes=8 * 26 * 5, flags=999)
    for module in (torch_rows, backend_module):
        monkeypatch.setattr(module, "sizes", lambda device: tiny)
    for kind in ("normal", "binary"):
        x, _ = case(kind, 131, 20)
        assert_right(run_everything(x), x)


# ---- to_tensor -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_to_tensor_shares_memory_and_keeps_every_bit(dtype):
    x = case("normal", 17, 12, dtype)[0].copy()
    for view in (x, x[::2], x[:, 1:5], x.T):
        tensor = to_tensor(view)
        assert tensor.data_ptr() == view.__array_interface__["data"][0]
        assert tuple(tensor.shape) == view.shape
        assert_same_bits(tensor.float().numpy(), view.astype(np.float32))
    if dtype == "bfloat16":
        assert x.dtype == ml_dtypes.bfloat16 and to_tensor(x).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", DTYPES)
def test_to_tensor_takes_read_only_arrays_without_a_copy_or_a_warning(dtype, tmp_path):
    x = case("normal", 17, 12, dtype)[0]
    assert not x.flags.writeable
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # torch says it once a process otherwise
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tensor = to_tensor(x)
    finally:
        torch.set_warn_always(before)
    assert tensor.data_ptr() == x.__array_interface__["data"][0]
    assert not x.flags.writeable


def test_to_tensor_keeps_the_memory_of_a_read_only_array_alive():
    x = np.arange(1_000_000.0)
    x.flags.writeable = False
    tensor = to_tensor(x[:, None])
    del x
    _ = [np.zeros(1_000_000) for _ in range(4)]  # would be written where the array was
    assert tensor[-1, 0] == 999_999


def test_to_tensor_copies_what_torch_cannot_address():
    x = case("normal", 17, 12)[0]
    bytes_ = np.zeros(x.nbytes + 1, np.uint8)
    unaligned = bytes_[1:].view(np.float32).reshape(x.shape)
    unaligned[:] = x
    padded = np.zeros(17, dtype=[("row", np.float32, 12), ("tag", np.uint8)])
    padded["row"] = x
    for view in (x[::-1], x[:, ::-1], unaligned, padded["row"]):
        assert_same_bits(to_tensor(view).numpy(), np.ascontiguousarray(view))


def test_to_tensor_passes_tensors_through():
    x = torch.ones(3, 2, requires_grad=True)
    assert to_tensor(x).data_ptr() == x.data_ptr() and not to_tensor(x).requires_grad


# ---- condition -------------------------------------------------------------------------------------


def test_condition_scales_extreme_rows_like_numpy():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 9)) * 10.0 ** rng.integers(-3, 4, (60, 9))
    power = np.linspace(-1060, 1010, 60).astype(int)
    x = np.ldexp(x, power[:, None])
    x[0, :] = 5e-324
    x[1, :] = np.finfo(np.float64).max
    x[2, 3:] = 0.0
    found = condition(to_tensor(x)).numpy()
    wanted = condition_numpy(x)
    both = np.abs(power) > 420  # where either would scale
    assert_same_bits(found[both], wanted[both])
    largest = np.abs(found).max(axis=1)
    assert (np.abs(np.log2(largest)) < 250).all()
    # everywhere: a power of two times the row
    _, shift = np.frexp(largest)
    _, given = np.frexp(np.abs(x).max(axis=1))
    assert_same_bits(found, np.ldexp(x, (shift - given)[:, None]))


def test_condition_leaves_ordinary_rows_alone():
    for x in (torch.ones(3, 2), torch.ones(3, 2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float16)):
        assert condition(x) is x
    bad = torch.tensor([[np.inf, 1.0], [np.nan, 1.0], [0.0, 0.0], [1e250, 1.0]], dtype=torch.float64)
    found = condition(bad)
    assert_same_bits(found[:3].numpy(), bad[:3].numpy())
    assert bad[3, 0] == 1e250 and 0.25 < found[3, 0] < 1


# ---- devices ---------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_gpu_has_the_reference_bits(dtype):
    x, _ = case("close", 400, 20, dtype)
    found = run_everything(to_tensor(x.copy()).cuda())
    assert_right([part.cpu() if isinstance(part, torch.Tensor) else part for part in found], x)
    torch.set_float32_matmul_precision("medium")
    again = run_everything(to_tensor(x.copy()).cuda())
    for a, b in zip(found, again, strict=True):
        assert_same_bits(*(part.cpu() if isinstance(part, torch.Tensor) else part for part in (a, b)))


@pytest.mark.gpu
def test_gpu_tensors_are_answered_on_their_device():
    x, _ = case("normal", 400, 20)
    peaks = pe.density_peaks(torch.from_numpy(x.copy()).cuda())
    assert peaks.rho.is_cuda
    reference = reference_pool(x)
    assert_same_density((peaks.cutoff, peaks.rho.cpu().numpy()), reference.density(0.6))
