"""The Lightning callback and loss: which labels reach the loss, how features are extracted, resumed fits."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

import pytest
import torch
from proto_trainer import CheckpointError, ConfigError, LabelCorrector, extract_features
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset
from trainer_problems import clustered_images

pl = pytest.importorskip("lightning.pytorch")
integration = importlib.import_module("proto_trainer.integrations.lightning")

NAME = "proto_trainer.integrations.lightning"


class Classifier(pl.LightningModule):
    """Batch normalization, so that the mode matters; records what it sees."""

    def __init__(self, corrector: LabelCorrector, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32))
        self.head = nn.Linear(32, 4)
        self.frozen = nn.BatchNorm1d(32)
        self.loss = integration.SelfLearningLoss(corrector)
        self.extracted: list[torch.Tensor] = []
        self.modes: list[tuple[bool, bool]] = []
        self.steps: list[tuple] = []

    def features(self, images):
        if not torch.is_grad_enabled():
            self.extracted.append(images.clone())
            self.modes.append((self.body.training, self.head.training))
        return self.body(images)

    def training_step(self, batch, _):
        images, given, index = batch
        logits = self.head(self.features(images))
        loss = self.loss(logits, given, index)
        self.steps.append((self.current_epoch, logits.detach(), given, index, loss.detach(), self.training))
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def corrector_for(dataset=None, **settings) -> LabelCorrector:
    return LabelCorrector(**{"num_classes": 4, "start_epoch": 1, "batch_size": 50, **settings})


def loader_for(dataset) -> DataLoader:
    """Shuffled by epoch: Lightning does not keep torch's random state in its checkpoints."""
    return DataLoader(dataset, batch_size=32, sampler=DistributedSampler(dataset, num_replicas=1, rank=0, seed=5))


def fit(tmp_path, corrector, train_set, *, epochs=3, callbacks=(), ckpt_path=None, **settings):
    module = Classifier(corrector)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, default_root_dir=tmp_path, logger=False,
        enable_checkpointing=bool(callbacks), enable_progress_bar=False, enable_model_summary=False,
        callbacks=[integration.LabelCorrectionCallback(corrector, **settings), *callbacks],
    )  # fmt: skip
    trainer.fit(module, loader_for(train_set), ckpt_path=ckpt_path)
    return trainer, module


def test_corrected_labels_reach_the_loss_of_a_shuffled_batch_under_their_index(tmp_path, updates):
    dataset = clustered_images()
    corrector = corrector_for()
    _, module = fit(tmp_path, corrector, dataset)
    assert [epoch for epoch, _ in updates] == [0, 1, 2]
    corrected = {epoch: torch.from_numpy(phase.corrections.labels) for epoch, phase in updates if phase}
    assert (corrected[1] == dataset.truth).float().mean() > 0.95
    seen = {0: [], 1: [], 2: []}
    for epoch, logits, given, index, loss, training in module.steps:
        assert training and torch.equal(given, dataset.given[index])
        expected = F.cross_entropy(logits, given)
        if epoch:  # from start_epoch on
            expected = 0.5 * expected + 0.5 * F.cross_entropy(logits, corrected[epoch][index])
        torch.testing.assert_close(loss, expected)
        seen[epoch] += index.tolist()
    for order in seen.values():
        assert order != sorted(order) and sorted(order) == list(range(len(dataset)))


def test_features_are_extracted_in_eval_mode_data_set_order_and_without_augmentation(tmp_path):
    dataset = clustered_images()
    dataset.augment = lambda images, *_: images.flip(-1)
    module = fit(tmp_path, corrector_for(start_epoch=0), dataset, epochs=1)[1]
    assert set(module.modes) == {(False, False)} and module.training and module.body.training
    plain, _, _ = dataset.plain()[list(range(len(dataset)))]
    torch.testing.assert_close(torch.cat(module.extracted[1:]), plain)  # the first one is the trial before the fit
    assert len(module.extracted) == 1 + 3


def test_a_part_that_is_frozen_in_eval_mode_stays_so(tmp_path, updates):
    dataset, corrector = clustered_images(), corrector_for(start_epoch=0)
    callback, module = integration.LabelCorrectionCallback(corrector, dataset), Classifier(corrector)
    module.train()
    module.frozen.eval()
    module.log = lambda name, value: logged.append((name, value))
    logged = []
    context = SimpleNamespace(forward_context=torch.no_grad)
    callback.on_train_epoch_start(SimpleNamespace(current_epoch=0, precision_plugin=context), module)
    assert module.body.training and not module.frozen.training
    assert logged == [("label_changed", updates[0][1].corrections.changed.mean())]


def test_label_changed_is_logged_from_start_epoch_on(tmp_path, updates):
    logged = []

    class Watch(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            logged.append(trainer.callback_metrics.get("label_changed"))

    fit(tmp_path, corrector_for(start_epoch=2), clustered_images(), epochs=4, callbacks=[Watch()])
    assert logged[:2] == [None, None]
    for value, (_, phase) in zip(logged[2:], updates[2:], strict=True):
        assert value == pytest.approx(phase.corrections.changed.mean()) and 0 < value < 1


def test_first_phase_is_that_of_a_plain_loop(tmp_path):
    dataset, corrector = clustered_images(), corrector_for()
    fit(tmp_path, corrector, dataset, epochs=2)
    plain_corrector = corrector_for()
    module, loader = Classifier(plain_corrector), loader_for(dataset)
    optimizer = module.configure_optimizers()
    for epoch in range(2):
        plain_corrector.update(module, dataset, epoch)
        loader.sampler.set_epoch(epoch)
        for images, given, index in loader:
            optimizer.zero_grad()
            plain_corrector.loss(module.head(module.body(images)), given, index).backward()
            optimizer.step()
    everything = torch.arange(len(dataset))
    assert torch.equal(corrector.targets(everything), plain_corrector.targets(everything))
    assert (corrector.corrections.score == plain_corrector.corrections.score).all()


def test_resumed_fit_has_the_bits_of_an_undisturbed_one(tmp_path, updates):
    dataset = clustered_images()
    whole = corrector_for(correct_every=2)  # epoch 2 trains on the labels of epoch 1
    _, expected = fit(tmp_path, whole, dataset, epochs=4)
    save = pl.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(tmp_path, corrector_for(correct_every=2), dataset, epochs=4, callbacks=[save])
    everything = torch.arange(len(dataset))
    for epoch in (0, 1, 2):
        del updates[:]
        corrector = corrector_for(correct_every=2)
        _, module = fit(tmp_path, corrector, dataset, epochs=4, ckpt_path=tmp_path / f"epoch={epoch}.ckpt")
        assert [seen for seen, _ in updates] == list(range(epoch + 1, 4))
        assert torch.equal(corrector.targets(everything), whole.targets(everything))
        for name, weight in module.state_dict().items():
            assert torch.equal(weight, expected.state_dict()[name]), name


def test_fit_resumed_within_an_epoch_keeps_the_labels_of_that_epoch(tmp_path, updates):
    dataset = clustered_images()  # 4 batches an epoch
    save = pl.callbacks.ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=3)
    fit(tmp_path, corrector_for(), dataset, epochs=2, callbacks=[save])
    labels = torch.from_numpy(updates[1][1].corrections.labels)
    del updates[:]
    corrector = corrector_for()
    _, module = fit(tmp_path, corrector, dataset, epochs=2, ckpt_path=tmp_path / "step=6.ckpt")
    assert updates == [] and len(module.steps) == 2  # the rest of epoch 1
    assert torch.equal(corrector.targets(torch.arange(len(dataset))), labels)


def test_epoch_that_is_announced_again_after_a_restart_keeps_its_labels(updates):
    """Older versions of Lightning call the hook again when a fit is resumed within an epoch."""
    dataset = clustered_images()
    callback = integration.LabelCorrectionCallback(corrector_for(), dataset)
    callback.load_state_dict({"epoch": 3, "corrector": {"corrected": dataset.truth}})
    callback.on_train_epoch_start(SimpleNamespace(current_epoch=3), None)
    assert updates == [] and torch.equal(callback.corrector.targets(torch.arange(120)), dataset.truth)


def test_second_fit_forgets_the_labels_of_the_first(tmp_path):
    dataset, corrector = clustered_images(), corrector_for()
    fit(tmp_path, corrector, dataset, epochs=2)
    fit(tmp_path, corrector, dataset, epochs=1)
    assert corrector.state_dict() == {}


def test_dataset_argument_takes_the_place_of_the_loaders(tmp_path):
    dataset = clustered_images()
    augmented = clustered_images()
    augmented.images = 255 - augmented.images
    module = fit(tmp_path, corrector_for(start_epoch=0), augmented, epochs=1, dataset=dataset)[1]
    assert not torch.equal(augmented.images, dataset.images)
    images, _, _ = dataset[list(range(len(dataset)))]
    torch.testing.assert_close(torch.cat(module.extracted[1:]), images)


def test_several_devices_are_refused():
    callback = integration.LabelCorrectionCallback(corrector_for())
    trainer = SimpleNamespace(world_size=2, global_step=0)
    with pytest.raises(ConfigError, match="devices must be 1 for label correction, got 2 processes"):
        callback.setup(trainer, None, "fit")
    callback.setup(trainer, None, "test")  # no label is corrected there


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    ("loader", "given"), [([1, 2], "list"), (DataLoader(Stream()), "Stream")], ids=["two loaders", "stream"]
)
def test_loaders_without_positions_are_refused(loader, given):
    callback = integration.LabelCorrectionCallback(corrector_for())
    with pytest.raises(ConfigError, match=f"dataset must be given .* got {given}"):
        callback.on_train_start(SimpleNamespace(train_dataloader=loader), None)


def test_checkpoint_of_another_data_set_is_refused(tmp_path):
    save = pl.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(tmp_path, corrector_for(), clustered_images(), epochs=2, callbacks=[save])
    with pytest.raises(CheckpointError, match="labels of 120 images, the training set has 80"):
        fit(tmp_path, corrector_for(), clustered_images(20), epochs=3, ckpt_path=tmp_path / "epoch=1.ckpt")


def test_module_without_features_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(Classifier, "features", None)
    with pytest.raises(TypeError, match=r"method features\(images\)"):
        fit(tmp_path, corrector_for(start_epoch=50), clustered_images())


def test_loss_module_is_no_part_of_the_checkpoint():
    corrector = corrector_for()
    assert integration.SelfLearningLoss(corrector).state_dict() == {}
    assert len(extract_features(Classifier(corrector), clustered_images())[0]) == 120


def test_missing_package_is_named(monkeypatch):
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, NAME)
    with pytest.raises(ImportError, match=f"{NAME} needs the package lightning: pip install lightning"):
        importlib.import_module(NAME)


def test_package_under_its_older_name_will_do(monkeypatch):
    older = pytest.importorskip("pytorch_lightning")
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(sys.modules, NAME)
    assert issubclass(importlib.import_module(NAME).LabelCorrectionCallback, older.Callback)
