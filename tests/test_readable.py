"""Arrays that hide some of their values, and tensors that have none to read: refused wherever they come in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import clustered, select

import proto_engine as pe
from proto_engine.array_kinds import readable, to_numpy
from proto_engine.arrays import as_labels, as_matrix
from proto_engine.ops import eta

pytestmark = pytest.mark.filterwarnings("ignore:(Sparse CSR|The PyTorch API of nested):UserWarning")

X, Y = clustered(60, 5, 2)
HIDDEN = np.arange(60) < 4
EVERY = np.ones(60, dtype=bool)


def masked(array, hidden=HIDDEN):
    wide = array.ndim == 2 and np.ndim(hidden) == 1
    return np.ma.masked_array(array, mask=np.repeat(hidden[:, None], array.shape[1], axis=1) if wide else hidden)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("labels", lambda: pe.correct_labels(X, masked(Y))),
        ("labels", lambda: pe.select_prototypes(X, masked(Y))),
        ("candidates", lambda: pe.select_prototypes(X, Y, candidates=masked(EVERY))),
        ("indices", lambda: pe.FeatureBank(X).rows(masked(Y))),
        ("rho", lambda: eta(X, masked(Y))),
        ("policy", lambda: pe.correct_labels(X, Y, policy=lambda corrections: masked(EVERY))),
        ("y", lambda: pe.PrototypeCorrector().fit(X, masked(Y))),
        ("y", lambda: pe.PrototypeCorrector().fit(X, masked(np.array(["a", "b"])[Y]))),
    ],
)
def test_masked_entries_are_refused_with_the_argument_named(name, call):
    with pytest.raises(ValueError, match=f"^{name}: wanted an array without masked entries, got 4 of 60 masked"):
        call()


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("features", lambda: pe.correct_labels(masked(X), Y)),
        ("features", lambda: pe.BankTransform.fit(masked(X))),
        ("array", lambda: pe.FeatureBank(masked(X))),
        ("X", lambda: pe.PrototypeCorrector().fit(masked(X), Y)),
        ("X", lambda: pe.PrototypeCorrector().fit(masked((9 * X).astype(int)), Y)),
    ],
)
def test_masked_features_are_refused_with_the_argument_named(name, call):
    with pytest.raises(ValueError, match=f"^{name}: wanted an array without masked entries, got 20 of 300 masked"):
        call()


def test_masked_rows_of_a_list_are_refused_with_the_argument_named():
    wanted = "wanted an array without masked entries, got"
    for call, message in (
        (lambda: pe.correct_labels(list(masked(X)), Y), f"^features: {wanted} 5 of 5 masked"),
        (lambda: pe.correct_labels(X, [np.ma.masked, *Y[1:]]), f"^labels: {wanted} 1 of 1 masked"),
        (lambda: pe.PrototypeCorrector().fit(tuple(masked(X)), Y), f"^X: {wanted} 5 of 5 masked"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    np.testing.assert_array_equal(select(list(masked(X, False)), Y).indices, select(X, Y).indices)


@pytest.mark.parametrize("mask", [False, np.ma.nomask])
def test_masks_that_hide_nothing_are_taken_off(mask):
    x, y = masked(X, mask), masked(Y, mask)
    for got in (as_matrix(x, "features"), as_labels(y, 60, 2), pe.FeatureBank(x).array):
        assert type(got) is np.ndarray
    assert np.shares_memory(as_matrix(x, "features"), X)
    np.testing.assert_array_equal(select(x, y).indices, select(X, Y).indices)
    np.testing.assert_array_equal(
        pe.PrototypeCorrector().fit(x, y).predict(x), pe.PrototypeCorrector().fit(X, Y).predict(X)
    )


UNREADABLE = {
    "layout torch.sparse_coo": lambda tensor: tensor.to_sparse(),
    "layout torch.sparse_csr": lambda tensor: tensor.to_sparse_csr(),
    "one on the meta device": lambda tensor: tensor.to("meta"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_tensors_that_are_not_strided_are_refused_with_the_argument_named(what):
    tensor = UNREADABLE[what](torch.from_numpy(X))
    wanted = f"features: wanted a (strided )?tensor.*, got {what}"
    for call in (pe.correct_labels, pe.select_prototypes):
        with pytest.raises(TypeError, match=wanted):
            call(tensor, Y)
    for call in (pe.BankTransform.fit, pe.similarity):
        with pytest.raises(TypeError, match=wanted):
            call(tensor)
    with pytest.raises(TypeError, match=f"X: wanted .*, got {what}"):
        pe.PrototypeCorrector().fit(tensor, Y)
    with pytest.raises(TypeError, match=f"array: wanted .*, got {what}"):
        pe.FeatureBank(tensor)


def test_labels_that_are_not_strided_or_nested_are_refused():
    for tensor, what in (
        (torch.from_numpy(Y).to_sparse(), "layout torch.sparse_coo"),
        (torch.zeros(60, device="meta"), "on the meta device"),
    ):
        with pytest.raises(TypeError, match=f"labels: wanted .* got .*{what}"):
            pe.correct_labels(X, tensor)
    nested = torch.nested.nested_tensor([torch.ones(3), torch.ones(2)])
    with pytest.raises(TypeError, match="features: wanted a strided tensor, got a nested one"):
        readable(nested, "features")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
def test_tensors_with_the_negative_bit_give_the_values_that_they_stand_for(backend, dtype):
    plain = torch.from_numpy(X).to(dtype)
    lazy = torch._neg_view(-plain)
    assert lazy.is_neg()
    want, got = select(plain, Y, backend=backend), select(lazy, torch._neg_view(torch.from_numpy(-Y)), backend=backend)
    for name in ("indices", "vectors", "folded", "rho", "eta"):
        assert torch.equal(getattr(got, name).nan_to_num(), getattr(want, name).nan_to_num()), name
    np.testing.assert_array_equal(to_numpy(lazy), to_numpy(plain))


def test_imaginary_parts_of_conjugates_are_read():
    z = torch.complex(torch.from_numpy(X), torch.from_numpy(-X)).conj()
    assert z.imag.is_neg()
    np.testing.assert_array_equal(to_numpy(z.imag), X)
    np.testing.assert_array_equal(select(z.imag, Y).indices.numpy(), select(X, Y).indices)
    with pytest.raises(TypeError, match="labels: wanted integers, got complex64"):
        as_labels(z[:, 0], 60, 2)
