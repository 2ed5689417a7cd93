"""LabelCorrector: data set order, eval mode, no augmentation, given labels as pools, restart of each phase."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_checks import (
    NormalizedModel,
    check_eta_looks_at_denser_rows,
    check_features_come_from_eval_mode,
    check_features_come_without_augmentation,
    check_targets_follow_the_index,
    check_targets_without_index,
    corrector_for,
)
from proto_trainer import ConfigError, LabelCorrector, extract_features
from proto_trainer.correction import CorrectionPhase
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

import proto_engine as pe

# Fault 1: corrected labels in loader order.


def test_targets_follow_the_index_though_the_loader_shuffles(clusters):
    check_targets_follow_the_index(*clusters)


def test_corrections_are_in_data_set_order(clusters):
    dataset, model = clusters
    phase = corrector_for(dataset).update(model, dataset, epoch=0)
    assert isinstance(phase, CorrectionPhase)
    frame = phase.corrections.to_frame()
    assert frame["index"].tolist() == list(range(len(dataset)))
    assert frame["given_label"].tolist() == dataset.given.tolist()
    assert frame["suggested_label"].tolist() == dataset.truth.tolist()
    assert min(phase.extract_seconds, phase.select_seconds, phase.score_seconds) >= 0


def test_update_takes_a_data_set_without_index(clusters):
    check_targets_without_index(*clusters)


def test_update_refuses_an_index_that_is_not_the_position(clusters):
    dataset, model = clusters
    with pytest.raises(ValueError, match="its own position"):
        corrector_for(dataset).update(model, Subset(dataset, range(5, 120)), epoch=0)


# Fault 2: extraction in train mode, or with augmentation.


def test_features_come_from_eval_mode_and_the_mode_is_restored(clusters):
    check_features_come_from_eval_mode(clusters[0])


def test_mode_is_restored_after_an_error(clusters):
    dataset, _ = clusters
    model = NormalizedModel()
    with pytest.raises(ValueError, match=r"features must give \[16, D\]"):
        extract_features(model, dataset, features=lambda model, images: images, batch_size=16)
    assert model.norm.training and not model.frozen.training


def test_features_are_extracted_without_augmentation(clusters):
    check_features_come_without_augmentation(*clusters)


def test_extraction_does_not_touch_the_random_state(clusters):
    dataset, model = clusters
    before = torch.get_rng_state()
    extract_features(model, dataset)
    assert torch.equal(torch.get_rng_state(), before)


def test_feature_maps_are_averaged(clusters):
    dataset, model = clusters
    model.features = lambda images: images.reshape(len(images), 16, 2, 2)
    bank, _ = extract_features(model, dataset)
    images, _, _ = dataset[list(range(len(dataset)))]
    np.testing.assert_allclose(bank, images.reshape(-1, 16, 4).mean(dim=2).numpy(), rtol=1e-6)


def test_model_without_features_is_refused(clusters):
    with pytest.raises(TypeError, match="method features"):
        corrector_for(clusters[0]).update(nn.Flatten(), clusters[0], epoch=0)


# Fault 3: eta from a row's similarity with itself, or towards sparser rows.


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_eta_looks_at_denser_rows(backend):
    check_eta_looks_at_denser_rows(backend)


# The phases.


@pytest.fixture
def engine_calls(monkeypatch):
    """What `select_prototypes` is called with, phase by phase."""
    calls = []
    select = pe.select_prototypes

    def recorded(features, labels, **settings):
        calls.append({"labels": np.array(labels), **settings})
        return select(features, labels, **settings)

    monkeypatch.setattr(pe, "select_prototypes", recorded)
    return calls


def test_pools_come_from_the_given_labels_in_every_phase(clusters, engine_calls):
    dataset, model = clusters
    corrector = corrector_for(dataset)
    for epoch in range(3):
        corrector.update(model, dataset, epoch)
    assert len(engine_calls) == 3
    for call in engine_calls:
        assert (call["labels"] == dataset.given.numpy()).all()


def test_pools_are_drawn_anew_in_each_phase_and_seeded(clusters, engine_calls):
    dataset, model = clusters
    for seed in (0, 0, 1):
        corrector = corrector_for(dataset, seed=seed)
        for epoch in (0, 1):
            corrector.update(model, dataset, epoch)
    seeds = [call["seed"] for call in engine_calls]
    assert seeds[0:2] == seeds[2:4]
    assert len(set(seeds)) == 4


def test_selection_settings_reach_the_engine(clusters, engine_calls):
    dataset, model = clusters
    corrector = corrector_for(
        dataset, prototypes_per_class=3, samples_per_class=None, cutoff_quantile=0.4, eta_max=0.94
    )
    corrector.update(model, dataset, epoch=0)
    call = engine_calls[0]
    assert (call["prototypes_per_class"], call["samples_per_class"]) == (3, None)
    assert (call["cutoff_quantile"], call["eta_max"], call["num_classes"]) == (0.4, 0.94, 4)


def test_nothing_happens_before_start_epoch(clusters, engine_calls):
    dataset, model = clusters
    corrector = corrector_for(dataset, start_epoch=2)
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    labels, index = torch.tensor([0, 1, 2]), torch.tensor([5, 0, 9])
    for epoch in (0, 1):
        assert corrector.update(model, dataset, epoch) is None
        assert torch.equal(corrector.loss(logits, labels, index), F.cross_entropy(logits, labels))
    assert engine_calls == [] and corrector.corrections is None
    with pytest.raises(RuntimeError, match="has not reached epoch 2"):
        corrector.targets(index)
    assert corrector.update(model, dataset, epoch=2) is not None
    assert corrector.targets(index).shape == (3,)


def test_loss_mixes_given_and_corrected_labels(clusters):
    dataset, model = clusters
    corrector = corrector_for(dataset, alpha=0.3)
    corrector.update(model, dataset, epoch=0)
    index = torch.tensor([40, 2, 77, 11])
    given, truth = dataset.given[index], dataset.truth[index]
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    log_p = logits.log_softmax(dim=1)
    rows = torch.arange(4)
    expected = -(0.7 * log_p[rows, given] + 0.3 * log_p[rows, truth]).mean()
    torch.testing.assert_close(corrector.loss(logits, given, index), expected)


def test_state_dict_carries_the_corrected_labels_over(clusters):
    dataset, model = clusters
    corrector, other = corrector_for(dataset), corrector_for(dataset)
    assert corrector.state_dict() == {}
    corrector.update(model, dataset, epoch=0)
    other.load_state_dict(corrector.state_dict())
    index = torch.arange(len(dataset))
    assert torch.equal(other.targets(index), corrector.targets(index))


@pytest.mark.parametrize("position", [-1, 120])
def test_targets_refuse_positions_that_the_data_set_does_not_have(clusters, position):
    """-1 would be the label of the last image."""
    dataset, model = clusters
    corrector = corrector_for(dataset)
    corrector.update(model, dataset, epoch=0)
    message = f"index: wanted positions from 0 to 119, got {min(position, 3)} to {max(position, 3)}"
    with pytest.raises(ValueError, match=message):
        corrector.loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), torch.tensor([3, position]))
    with pytest.raises(TypeError, match=r"index: wanted positions .* got torch.float32"):
        corrector.targets(torch.tensor([1.0]))
    assert corrector.targets(torch.tensor([], dtype=torch.int64)).shape == (0,)


def test_update_refuses_labels_that_are_not_whole_numbers(clusters):
    dataset, model = clusters
    dataset.given = dataset.given + 0.7
    with pytest.raises(TypeError, match=r"wanted whole numbers as given labels, got torch\.float"):
        corrector_for(dataset).update(model, dataset, epoch=0)


class Items(Dataset):
    """Whatever `item` makes of an image, its label and its position."""

    def __init__(self, dataset, item):
        self.dataset, self.item = dataset, item

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        return self.item(*self.dataset[i])


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("wrap", "error", "message"),
    [
        (
            lambda d: Items(d, lambda x, y, i: {"image": x, "label": y}),
            TypeError,
            r"\(image, label\) or .* of dict came",
        ),
        (lambda d: Items(d, lambda x, y, i: (str(i), y)), TypeError, "with a tensor as image"),
        (lambda d: Items(d, lambda x, y, i: (x, {"boxes": y})), TypeError, "whole numbers as given labels, got dict"),
        (lambda d: Items(d, lambda x, y, i: (x, y, {"id": i})), TypeError, r"\(image, label, index\), got dict"),
        (lambda d: Items(d, lambda x, y, i: (x, "cat")), TypeError, "whole numbers as given labels, got str"),
        (lambda d: Items(d, lambda x, y, i: (x,)), TypeError, "whole numbers as given labels, got NoneType"),
        (lambda d: Items(d, lambda x, y, i: (x, y.reshape(1))), ValueError, r"one given label an image, got \[50, 1\]"),
        (lambda d: Items(d, lambda x, y, i: (x, y, f"{i}.png")), TypeError, r"\(image, label, index\), got str"),
        (lambda d: DataLoader(d), TypeError, r"wanted len\(dataset\) and dataset\[i\], got DataLoader"),
        (lambda d: Stream(), TypeError, r"wanted len\(dataset\) and dataset\[i\], got Stream"),
    ],
)
def test_update_names_items_that_it_cannot_read(clusters, wrap, error, message):
    dataset, model = clusters
    with pytest.raises(error, match=f"dataset: .*{message}"):
        corrector_for(dataset, batch_size=50).update(model, wrap(dataset), epoch=0)


def test_update_refuses_an_empty_data_set(clusters):
    dataset, model = clusters
    with pytest.raises(ValueError, match="dataset: wanted at least one image, got none"):
        corrector_for(dataset).update(model, Subset(dataset, []), epoch=0)


def test_update_refuses_labels_out_of_range(clusters):
    dataset, model = clusters
    dataset.given[3] = 4
    with pytest.raises(ValueError, match="label"):
        corrector_for(dataset).update(model, dataset, epoch=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"start_epoch": -1}, "start_epoch must be 0 or more, got -1"),
        ({"alpha": 1.5}, "alpha must lie in 0..1, got 1.5"),
        ({"correct_every": 0}, "correct_every must be 1 or more, got 0"),
        ({"min_margin": -0.1}, "min_margin must be 0 or more, got -0.1"),
        ({"fixed": ([-1], [0])}, "fixed must be positions, none of them twice and none negative"),
        ({"fixed": ([1, 1], [0, 2])}, "none of them twice"),
        ({"fixed": ([1, 2], [0])}, r"a label for each position, .* got \[2\] and \[1\]"),
        ({"fixed": ([True, False], [0, 1])}, "as whole numbers, got bool and int64"),
        ({"fixed": ([1], [0.7])}, "as whole numbers, got int64 and float64"),
        ({"fixed": (1, 2)}, "fixed must be a pair of arrays, positions and labels"),
        ({"fixed": ([1], [2], [3])}, "fixed must be a pair of arrays, positions and labels"),
        ({"fixed": ([[1]], [[2]])}, r"\[V\] and \[V\], got \[1, 1\] and \[1, 1\]"),
        ({"fixed": ([1], [4])}, r"fixed must have labels 0\.\.3, got 4\.\.4"),
    ],
)
def test_corrector_refuses_bad_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        LabelCorrector(**{"num_classes": 4, "start_epoch": 0, **settings})


def test_images_without_a_usable_feature_keep_their_label(clusters, caplog):
    dataset, model = clusters
    dead = torch.tensor([7, 50])
    dataset.images[dead] = 0
    corrector = corrector_for(dataset)
    corrector.update(model, dataset, epoch=0)
    assert torch.equal(corrector.targets(dead), dataset.given[dead])
    assert "2 of 120 images have no usable feature and keep their label" in caplog.text


def test_dead_network_changes_no_label(clusters, caplog):
    dataset, model = clusters
    corrector = corrector_for(dataset, features=lambda model, images: images.flatten(1) * 0)
    phase = corrector.update(model, dataset, epoch=2)
    assert not phase.corrections.changed.any() and np.isnan(phase.corrections.score).all()
    assert torch.equal(corrector.targets(torch.arange(len(dataset))), dataset.given)
    assert "epoch 2: 120 of 120 images have no usable feature" in caplog.text


def test_engine_warnings_are_logged_with_the_epoch(clusters, caplog, recwarn):
    dataset, model = clusters
    corrector_for(dataset, eta_max=0.5).update(model, dataset, epoch=3)
    assert "epoch 3: eta_max turned down more than half" in caplog.text
    assert [str(warning.message) for warning in recwarn if "eta_max" in str(warning.message)] == []


def test_phases_come_every_so_many_epochs(clusters, engine_calls):
    dataset, model = clusters
    corrector = corrector_for(dataset, start_epoch=1, correct_every=3)
    ran = [epoch for epoch in range(9) if corrector.update(model, dataset, epoch) is not None]
    assert ran == [1, 4, 7] and len(engine_calls) == 3


def test_corrector_without_labels_does_not_wait_for_the_next_phase(clusters):
    dataset, model = clusters
    corrector = corrector_for(dataset, start_epoch=1, correct_every=3)
    assert corrector.update(model, dataset, 3) is not None
    assert corrector.update(model, dataset, 4) is not None and corrector.update(model, dataset, 5) is None


def test_labels_of_a_small_margin_are_kept(clusters):
    dataset, model = clusters
    phase = corrector_for(dataset).update(model, dataset, epoch=0)
    margin = phase.corrections.margin
    middle = float(np.median(margin[phase.corrections.changed]))
    kept = corrector_for(dataset, min_margin=middle).update(model, dataset, epoch=0).corrections
    expected = np.where(margin < middle, phase.corrections.given, phase.corrections.labels)
    np.testing.assert_array_equal(kept.labels, expected)
    assert 0 < kept.changed.sum() < phase.corrections.changed.sum()


def test_known_labels_are_pinned(clusters):
    dataset, model = clusters
    free = corrector_for(dataset).update(model, dataset, epoch=0).corrections
    rows = np.flatnonzero(free.changed)[:2]
    corrector = corrector_for(dataset, fixed=(rows, free.given[rows]))
    pinned = corrector.update(model, dataset, epoch=0).corrections
    assert pinned.changed.sum() == free.changed.sum() - 2 and not pinned.changed[rows].any()
    assert torch.equal(corrector.targets(torch.from_numpy(rows)), dataset.given[rows])


def test_known_labels_of_images_that_are_not_there_are_refused(clusters):
    dataset, model = clusters
    with pytest.raises(ValueError, match="fixed: wanted positions from 0 to 119, got 120"):
        corrector_for(dataset, fixed=([120], [0])).update(model, dataset, epoch=0)


def test_fixed_may_be_unsigned(clusters):
    dataset, model = clusters
    fixed = np.array([1, 119], dtype=np.uint8), np.array([3, 0], dtype=np.uint8)
    phase = corrector_for(dataset, fixed=fixed).update(model, dataset, epoch=0)
    np.testing.assert_array_equal(phase.corrections.labels[[1, 119]], [3, 0])


def test_candidates_reach_the_engine(clusters, engine_calls):
    dataset, model = clusters
    right = np.flatnonzero((dataset.given == dataset.truth).numpy())[:20]
    corrector_for(dataset, candidates=right).update(model, dataset, epoch=0)
    np.testing.assert_array_equal(engine_calls[0]["candidates"], right)
