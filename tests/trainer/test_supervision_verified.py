"""What self-learning and forward correction make of labels that somebody has looked at."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from proto_trainer import CheckpointError, ConfigError, NoiseSpec, add_noise, load_dataset, train
from proto_trainer.bank_writer import BankWriter
from proto_trainer.methods import ForwardCorrection, VerifiedCorrector, VerifiedLabels, read_verified
from proto_trainer.methods.forward import count_transition, estimate_transition
from proto_trainer.methods.smp import draw_pools
from proto_trainer.methods.verified import known_labels
from proto_trainer.seeding import derive_seed
from test_resume import assert_same_outcome
from torch.nn import functional as F

import proto_engine as pe


def verified_file(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_verified_file_may_hold_the_right_labels(clusters, tmp_path):
    """By name, by number, with `correct` or without; classes are a, b, c and d."""
    dataset, _ = clusters
    dataset.given[:6] = torch.tensor([0, 0, 1, 1, 2, 2])
    path = verified_file(tmp_path / "v.csv", ["index,correct,label", "0,1,", "1,0,d", "2,0,", "3,,2", "4,,c", "5,1,c"])
    verified = read_verified(path, dataset)
    assert verified.rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert verified.truth.tolist() == [0, 3, -1, 2, 2, 2]
    assert verified.right.tolist() == [True, False, False, False, True, True]
    alone = read_verified(verified_file(tmp_path / "v.csv", ["label,index", "b,3", "0,2"]), dataset)
    assert (alone.rows.tolist(), alone.truth.tolist(), alone.right.tolist()) == ([3, 2], [1, 0], [True, False])


def test_class_names_that_are_numbers_are_names(clusters, tmp_path):
    dataset, _ = clusters
    dataset.class_names = ("7", "3", "1", "0")
    verified = read_verified(verified_file(tmp_path / "v.csv", ["index,label", "0,3", "1,0", "2,2"]), dataset)
    assert verified.truth.tolist() == [1, 3, 2]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["index,label", "0,e"], r"verified: label must be the name of a class or 0\.\.3, got 'e' in line 2"),
        (["index,label", "0,4"], r"label must be the name of a class or 0\.\.3, got '4' in line 2"),
        (["index,label", "0,-1"], "label must be the name of a class or 0..3, got '-1' in line 2"),
        (["index,label", "0,"], "correct must be 0 or 1, got None in line 2"),
        (["index,correct,label", "0,,"], "correct must be 0 or 1, got '' in line 2"),
        (["index,correct,label", "3,1,c", "0,1,d"], "line 3 of .* contradicts itself: correct is 1, the given label"),
        (["index,correct,label", "3,0,c"], "line 2 of .* contradicts itself: correct is 0"),
        (["index,correct"], "verified must name at least one image"),
    ],
)
def test_right_labels_are_checked(clusters, tmp_path, digits_config, lines, message):
    dataset, _ = clusters
    dataset.given[[0, 3]] = torch.tensor([0, 2])
    path = verified_file(tmp_path / "v.csv", lines)
    with pytest.raises(ConfigError, match=message):
        if len(lines) == 1:
            train(digits_config(verified=path))
        else:
            read_verified(path, dataset)


def test_line_about_an_image_that_cannot_be_decoded_is_passed_over(clusters, tmp_path):
    dataset, _ = clusters
    dataset.paths = [f"{i}.jpg" for i in range(len(dataset))]
    dataset.skipped = (("broken.jpg", "truncated"),)
    verified = read_verified(verified_file(tmp_path / "v.csv", ["path,correct", "broken.jpg,1", "5.jpg,0"]), dataset)
    assert verified.rows.tolist() == [5] and verified.right.tolist() == [False]


# Self-learning.


def test_pools_begin_with_the_known_rows():
    """Class 0: two known rows and three others, class 1: four known rows and one other, class 2: others alone."""
    known_rows, known_labels = np.array([5, 9, 20, 21, 22, 23]), np.array([0, 0, 1, 1, 1, 1])
    other_rows, other_labels = np.array([1, 2, 3, 4, 6, 7]), np.array([0, 0, 0, 1, 2, 2])
    for seed in range(5):
        rows, labels, is_known = draw_pools(known_rows, known_labels, other_rows, other_labels, 4, 3, seed)
        assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
        assert is_known.tolist() == [True, True, False, True, True, True, False, False]
        assert rows[:2].tolist() == [5, 9] and rows[2] in (1, 2, 3)
        assert set(rows[3:6].tolist()) < {20, 21, 22, 23} and rows[6:].tolist() == [6, 7]
        again = draw_pools(known_rows, known_labels, other_rows, other_labels, 4, 3, seed)
        assert (again[0] == rows).all()
    rows, labels, is_known = draw_pools(known_rows, known_labels, other_rows, other_labels, 4, None, 0)
    assert rows.tolist() == [5, 9, 1, 2, 3, 20, 21, 22, 23, 4, 6, 7] and is_known.sum() == 6
    drawn = {draw_pools(known_rows, known_labels, other_rows, other_labels, 4, 3, seed)[0][2] for seed in range(20)}
    assert drawn == {1, 2, 3}


@pytest.fixture
def pools(monkeypatch):
    """What `select_prototypes` gets and gives, phase by phase."""
    calls = []
    select = pe.select_prototypes

    def recorded(features, labels, **settings):
        calls.append((np.array(features), np.array(labels), settings, select(features, labels, **settings)))
        return calls[-1][-1]

    monkeypatch.setattr(pe, "select_prototypes", recorded)
    return calls


def corrector_of(verified, **settings):
    return VerifiedCorrector(verified=verified, num_classes=4, start_epoch=0, **{"batch_size": 16, **settings})


def test_verified_images_decide_where_most_labels_are_wrong(clusters, pools):
    """Every class carries the label of the next one, but for the verified images: by the given labels alone all
    corrections are wrong.
    """
    dataset, model = clusters
    given = (dataset.truth + 1) % 4
    rows = torch.arange(0, len(dataset), 5)
    given[rows[::2]] = dataset.truth[rows[::2]]  # every second verified image is right
    dataset.given = given
    verified = VerifiedLabels(given[rows] == dataset.truth[rows], rows=rows, truth=dataset.truth[rows])
    corrector = corrector_of(verified)
    phase = corrector.update(model, dataset, 0)
    assert (phase.corrections.labels == dataset.truth.numpy()).all()
    assert (phase.corrections.given == given.numpy()).all()
    _, labels, settings, prototypes = pools[0]
    assert settings["candidates"].sum() == len(rows) and len(labels) == len(dataset)
    assert (prototypes.counts > 0).all()


def test_images_known_to_be_wrong_are_in_no_pool(clusters, pools):
    """`prototypes.indices` are rows of the data set, and of the pools no row is a wrong one."""
    dataset, model = clusters
    wrong = (dataset.given != dataset.truth).nonzero().flatten()
    right = (dataset.given == dataset.truth).nonzero().flatten()[:8]
    verified = VerifiedLabels(
        torch.tensor([False] * len(wrong) + [True] * 8),
        rows=torch.cat([wrong, right]),
        truth=torch.cat([torch.full_like(wrong, -1), dataset.given[right]]),
    )
    corrector = corrector_of(verified, samples_per_class=None)
    prototypes = []
    select = corrector._select
    corrector._select = lambda *args: prototypes.append(select(*args)) or prototypes[-1]
    corrector.update(model, dataset, 0)
    bank, _, settings, _ = pools[0]
    everything = dataset[list(range(len(dataset)))][0].flatten(1).numpy()
    everything /= 2.0 ** np.frexp(np.abs(everything).max(axis=1, keepdims=True))[1]  # as the bank is scaled
    pooled = {row.astype(np.float16).tobytes() for row in bank}
    assert not pooled & {everything[i].astype(np.float16).tobytes() for i in wrong.tolist()}
    assert len(bank) == len(dataset) - len(wrong) and settings["candidates"].sum() == 8
    picked = prototypes[0].indices
    assert set(picked[picked >= 0].tolist()) <= {*right.tolist()}
    assert torch.equal(corrector.targets(right), dataset.truth[right])


def test_knowing_wrong_labels_alone_cleans_the_pools(clusters, pools, caplog):
    dataset, model = clusters
    wrong = (dataset.given != dataset.truth).nonzero().flatten()
    verified = VerifiedLabels(torch.zeros(len(wrong), dtype=torch.bool), rows=wrong, truth=torch.full_like(wrong, -1))
    corrector = corrector_of(verified)
    phase = corrector.update(model, dataset, 0)
    bank, labels, settings, _ = pools[0]
    assert len(bank) == len(labels) == len(dataset) - len(wrong) and settings["candidates"] is None
    assert (phase.corrections.labels == dataset.truth.numpy()).all() and "candidates" not in caplog.text


def test_known_labels_stay_whatever_the_images_resemble(clusters):
    """Somebody insists that two images of class a are of class c."""
    dataset, model = clusters
    rows = (dataset.truth == 0).nonzero().flatten()[:2]
    verified = VerifiedLabels(dataset.given[rows] == 2, rows=rows, truth=torch.tensor([2, 2]))
    corrector = corrector_of(verified, samples_per_class=20)
    corrector.update(model, dataset, 0)
    assert corrector.targets(rows).tolist() == [2, 2]


def test_images_beside_the_training_set_become_prototypes(clusters, pools):
    """All of them, under their right label; of those that are only known to be wrong nothing is known."""
    dataset, model = clusters
    images = dataset.subset(torch.arange(0, len(dataset), 3))
    right = images.given == images.truth
    truth = torch.where(right, images.given, -1)
    train_set = dataset.with_noise((dataset.truth + 1) % 4)  # the given labels alone would be all wrong
    corrector = corrector_of(VerifiedLabels(right, images=images, truth=truth), samples_per_class=25)
    phase = corrector.update(model, train_set, 0)
    assert (phase.corrections.labels == dataset.truth.numpy()).all() and len(phase.corrections.labels) == 120
    bank, labels, settings, _ = pools[0]
    assert np.bincount(labels).tolist() == [25] * 4 and settings["candidates"].sum() == int(right.sum())
    pixels = images[list(range(len(images)))][0].flatten(1).numpy()
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (bank.astype(np.float64), pixels)]
    nearest = (unit[0][settings["candidates"]] @ unit[1].T).argmax(axis=1)
    assert sorted(nearest.tolist()) == right.nonzero().flatten().tolist()


def test_images_beside_the_training_set_keep_the_lengths_of_their_features(clusters, pools):
    """Euclidean density peaks compare them with those of the training set."""
    dataset, model = clusters
    images = dataset.subset(torch.arange(0, len(dataset), 3))
    verified = VerifiedLabels(torch.ones(len(images), dtype=torch.bool), images=images, truth=images.given)
    corrector_of(verified, selector="density-peaks-euclidean", samples_per_class=25).update(model, dataset, 0)
    bank, _, settings, _ = pools[0]
    pixels = images[list(range(len(images)))][0].flatten(1).numpy()  # what the model's features are
    assert bank.dtype == np.float32 and settings["candidates"].sum() == len(images)
    lengths = np.linalg.norm(bank[settings["candidates"]], axis=1)
    np.testing.assert_allclose(np.sort(lengths), np.sort(np.linalg.norm(pixels, axis=1)), rtol=1e-6)


def test_bank_of_the_images_beside_the_training_set_has_the_same_room(clusters, tmp_path, monkeypatch):
    """One of them has 4 GiB and the system's folder otherwise, the other what was asked for."""
    dataset, model = clusters
    features = importlib.import_module("proto_trainer.features")
    rooms = []

    class Recorded(BankWriter):
        def __init__(self, num_samples, memory_limit, folder):
            rooms.append((num_samples, memory_limit, folder))
            super().__init__(num_samples, memory_limit, folder)

    monkeypatch.setattr(features, "BankWriter", Recorded)
    images = dataset.subset(torch.arange(0, len(dataset), 3))
    verified = VerifiedLabels(torch.ones(len(images), dtype=torch.bool), images=images, truth=images.given)
    for room in ({"memory_limit": 0, "folder": tmp_path}, {}):
        corrector = corrector_of(verified, samples_per_class=25, **room)
        corrector.update(model, dataset, 0)
    assert rooms == [(n, limit, folder) for limit, folder in ((0, tmp_path), (4 * 2**30, None)) for n in (120, 40)]


# Forward correction.

ESTIMATED = np.array([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.3, 0.6]])


def test_transition_is_counted():
    """Rows of (3, 1, 0) and (0, 0, 2) images; nobody is known to be of class 1."""
    given, known = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 0, 0, 0, 2, 2])
    counted = count_transition(given, known, ESTIMATED, np.full(3, 1 / 3))
    np.testing.assert_allclose(counted, [[0.75, 0.25, 0], ESTIMATED[1], [0, 0, 1]])


def test_wrong_labels_of_unknown_origin_are_shared_out_by_the_estimate():
    """A wrong label 0 comes from class 1 with 1/4 * 0.2, from class 2 with 1/4 * 0.1: two thirds and one third."""
    given, known = np.array([0, 0, 0, 1, 1, 1, 0]), np.array([0, 0, 0, 0, 1, 1, -1])
    counted = count_transition(given, known, ESTIMATED, np.array([0.5, 0.25, 0.25]))
    np.testing.assert_allclose(counted, [[0.75, 0.25, 0], [0.25, 0.75, 0], ESTIMATED[2]])


def test_counts_of_verdicts_alone_find_the_true_transition():
    """With the truth as the estimate's proportions, 0 and 1 verdicts on many images give T back."""
    rng = np.random.default_rng(0)
    wanted = np.array([[0.7, 0.3, 0], [0.1, 0.6, 0.3], [0.2, 0, 0.8]])
    truth = rng.integers(3, size=60_000)
    given = (rng.random((60_000, 1)) > wanted[truth].cumsum(axis=1)).sum(axis=1)
    known = np.where(given == truth, truth, -1)
    diffuse = wanted * (1 - np.eye(3)) * 1.2  # right proportions off the diagonal, a wrong diagonal
    diffuse += np.diag(1 - diffuse.sum(axis=1))
    counted = count_transition(given, known, diffuse, np.full(3, 1 / 3))
    np.testing.assert_allclose(counted, wanted, atol=0.01)


def test_class_that_no_wrong_label_comes_from_by_the_estimate():
    """Column 0 of the estimate is 0 off the diagonal: the wrong label 0 counts nowhere, and nothing is divided by 0."""
    estimated = np.array([[1.0, 0.0], [0.0, 1.0]])
    counted = count_transition(np.array([0, 0, 1]), np.array([0, -1, 1]), estimated, np.array([0.5, 0.5]))
    np.testing.assert_array_equal(counted, np.eye(2))


def test_forward_counts_from_all_that_is_known(clusters):
    """Verified and clean images; one that is both counts once, as the clean one says."""
    dataset, model = clusters
    rows = torch.arange(40)
    verified = VerifiedLabels(dataset.given[rows] == dataset.truth[rows], rows=rows, truth=dataset.truth[rows])
    also = torch.arange(30, 60)
    insisted = (dataset.truth[also] + 2) % 4
    clean = VerifiedLabels(dataset.given[also] == insisted, rows=also, truth=insisted)
    method = ForwardCorrection(start_epoch=1, verified=known_labels(verified, clean), batch_size=50)
    method.before_epoch(model, dataset, 0)
    assert method.state_dict() == {}
    method.before_epoch(model, dataset, 1)
    counts = np.zeros((4, 4))
    for i in range(60):
        counts[int(dataset.truth[i]) if i < 30 else int(insisted[i - 30]), int(dataset.given[i])] += 1
    wanted = counts / counts.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(method.state_dict()["transition"].numpy(), wanted, atol=1e-6)
    plain = ForwardCorrection(start_epoch=1, batch_size=50)
    plain.before_epoch(model, dataset, 1)
    chances = F.softmax(model(dataset[list(range(len(dataset)))][0]), dim=1).detach().numpy()
    np.testing.assert_allclose(plain.state_dict()["transition"].numpy(), estimate_transition(chances), atol=1e-5)


# A whole run.


@pytest.fixture
def looked_at(tmp_path):
    """A file about 100 of 200 digits with 40 % symmetric noise of seed 3, a third of them with the right label."""
    train_set = add_noise(
        load_dataset("digits", images=200).train, NoiseSpec("symmetric", 0.4), derive_seed(3, "noise")
    )
    lines = ["index,correct,label"]
    for i in range(0, 200, 2):
        label = int(train_set.truth[i]) if i % 3 == 0 else ""
        lines.append(f"{i},{int(train_set.truth[i] == train_set.given[i])},{label}")
    return verified_file(tmp_path / "looked_at.csv", lines)


@pytest.mark.parametrize("method", ["smp", "forward"])
def test_run_belongs_to_its_verified_labels(digits_config, tmp_path, looked_at, method):
    """The same labels from another file go on, other ones are refused, as is a run without."""
    settings = {"method": method, "images": 200, "epochs": 2, "noise": NoiseSpec("symmetric", 0.4), "batch_size": 32}
    train(digits_config(out=tmp_path / "straight", verified=looked_at, **settings))
    out = tmp_path / "moved"

    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(digits_config(out=out, verified=looked_at, **settings), on_epoch=stop)
    lines = looked_at.read_text().splitlines()
    other = verified_file(tmp_path / "other.csv", lines[:-1])
    for refused in ({"verified": other}, {}):
        with pytest.raises(CheckpointError, match="verified_sha256"):
            train(digits_config(out=out, **refused, **settings), resume=True)
    train(digits_config(out=out, verified=looked_at.rename(tmp_path / "new.csv"), **settings), resume=True)
    assert_same_outcome(tmp_path / "straight", out)
