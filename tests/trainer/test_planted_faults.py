"""The checks of the method notice the three faults that are common in re-implementations: each is planted here."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from method_checks import (
    check_eta_looks_at_denser_rows,
    check_features_come_from_eval_mode,
    check_features_come_without_augmentation,
    check_targets_follow_the_index,
    check_targets_without_index,
)
from proto_trainer import LabelCorrector, features, make_loader

from proto_engine.backends.reference import ReferencePool

# Fault 1: corrected labels in loader order.


@pytest.mark.parametrize("check", [check_targets_follow_the_index, check_targets_without_index])
def test_extraction_in_shuffled_order_is_noticed(clusters, monkeypatch, check):
    """The loader of the training batches is used for extraction, too, and its index is thrown away."""

    def shuffled(dataset, batch_size, **settings):
        return [batch[:2] for batch in make_loader(dataset, batch_size, shuffle_seed=1, **settings)]

    monkeypatch.setattr(features, "make_loader", shuffled)
    with pytest.raises(AssertionError):
        check(*clusters)


def test_targets_in_the_order_of_the_batches_are_noticed(clusters, monkeypatch):
    """The first batch gets the first corrected labels, whatever images are in it."""
    monkeypatch.setattr(LabelCorrector, "targets", lambda self, index: self._corrected[: len(index)])
    with pytest.raises(AssertionError):
        check_targets_follow_the_index(*clusters)


# Fault 2: extraction in train mode, or with augmentation.


def test_extraction_in_train_mode_is_noticed(clusters, monkeypatch):
    monkeypatch.setattr(features, "evaluation_mode", lambda model: contextlib.nullcontext())
    with pytest.raises(AssertionError):
        check_features_come_from_eval_mode(clusters[0])


def test_mode_that_is_not_restored_is_noticed(clusters, monkeypatch):
    monkeypatch.setattr(features, "evaluation_mode", lambda model: contextlib.nullcontext(model.eval()))
    with pytest.raises(AssertionError):
        check_features_come_from_eval_mode(clusters[0])


def test_extraction_with_augmentation_is_noticed(clusters, monkeypatch):
    monkeypatch.setattr(features, "without_augmentation", lambda dataset: dataset)
    with pytest.raises(AssertionError):
        check_features_come_without_augmentation(*clusters)


# Fault 3: eta from a row's similarity with itself, or towards sparser rows.


def from_itself(similar, denser, sparser):
    return max(1.0, *similar[denser])


def the_wrong_way(similar, denser, sparser):
    return similar[sparser].max()


def the_least(similar, denser, sparser):
    return similar[denser].min()


@pytest.mark.parametrize("fault", [from_itself, the_wrong_way, the_least])
def test_wrong_eta_is_noticed(monkeypatch, fault):
    """All but the densest rows get an eta with a fault; the densest is right, as it often is in such code."""
    real = ReferencePool.extreme

    def faulty(self, order, rows, limit, smallest):
        eta = real(self, order, rows, limit, smallest)
        for t, i in enumerate(rows):
            sparser = np.array([j for j in order[limit[t] :] if j != i], dtype=int)
            if not smallest[t] and (len(sparser) or fault is not the_wrong_way):
                eta[t] = fault(self.s[i], order[: limit[t]], sparser)
        return eta

    monkeypatch.setattr(ReferencePool, "extreme", faulty)
    with pytest.raises(AssertionError):
        check_eta_looks_at_denser_rows("reference")
