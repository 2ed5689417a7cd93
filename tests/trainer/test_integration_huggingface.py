"""The transformers Trainer: which labels reach the loss, how features are extracted, resumed runs."""

from __future__ import annotations

import importlib
import shutil
import sys

import pytest
import torch
from proto_trainer import CheckpointError, ConfigError, LabelCorrector
from torch.nn import functional as F
from torch.utils.data import Dataset, IterableDataset, TensorDataset
from trainer_problems import clustered_images

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
integration = importlib.import_module("proto_trainer.integrations.huggingface")

NAME = "proto_trainer.integrations.huggingface"
STEPS = 4  # an epoch: 120 images, 32 a batch


class Images(Dataset):
    """Items with a column that no model takes, and the label under its other name."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict:
        return {"name": object(), "pixel_values": self.images[i], "label": int(self.labels[i])}


@pytest.fixture
def clusters():
    """The data set of dicts, and the given and true labels."""
    dataset = clustered_images()
    images, given, _ = dataset[list(range(len(dataset)))]
    return Images(images - 0.4, given), given, dataset.truth


def small_resnet(num_labels: int = 4):
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=num_labels
    )
    return transformers.ResNetForImageClassification(config)


class Recorded(integration.SelfLearningTrainer):
    """Records the batches that are trained on."""

    steps: list

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, dict(inputs), True, num_items_in_batch)
        if "sample_index" in inputs:
            epoch = self.state.global_step // STEPS
            self.steps.append((epoch, outputs.logits.detach(), inputs["labels"], inputs["sample_index"], loss.detach()))
        return (loss, outputs) if return_outputs else loss


def corrector_for(**settings) -> LabelCorrector:
    return LabelCorrector(**{"num_classes": 4, "start_epoch": 1, "batch_size": 50, **settings})


def trainer_for(folder, dataset, corrector, *, epochs=3, model=None, arguments=None, **settings):
    args = transformers.TrainingArguments(
        **{
            "output_dir": str(folder), "num_train_epochs": epochs, "per_device_train_batch_size": 32,
            "learning_rate": 0.05, "max_grad_norm": 0.0, "report_to": "none", "save_strategy": "no", "use_cpu": True,
            "disable_tqdm": True, "logging_strategy": "no", "dataloader_pin_memory": False, "seed": 3,
            "lr_scheduler_type": "constant", **(arguments or {}),
        }
    )  # fmt: skip
    model = model or small_resnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    trainer = Recorded(
        model, args, train_dataset=dataset, corrector=corrector, optimizers=(optimizer, None), **settings
    )
    trainer.steps = []
    return trainer


def test_corrected_labels_reach_the_loss_of_a_shuffled_batch_under_their_index(tmp_path, clusters, updates):
    dataset, labels, truth = clusters
    trainer = trainer_for(tmp_path, dataset, corrector_for(), features=lambda model, images: images.flatten(1))
    trainer.train()
    assert [epoch for epoch, _ in updates] == [0, 1, 2]
    corrected = {epoch: torch.from_numpy(phase.corrections.labels) for epoch, phase in updates if phase}
    assert torch.equal(corrected[1], truth) and torch.equal(corrected[2], truth)
    seen = {0: [], 1: [], 2: []}
    for epoch, logits, given, index, loss in trainer.steps:
        assert torch.equal(given, labels[index])
        expected = F.cross_entropy(logits, given)
        if epoch:  # from start_epoch on
            expected = 0.5 * expected + 0.5 * F.cross_entropy(logits, corrected[epoch][index])
        torch.testing.assert_close(loss, expected)
        seen[epoch] += index.tolist()
    for order in seen.values():
        assert order != sorted(order) and sorted(order) == list(range(120))
    logs = [(row["epoch"], row["label_changed"]) for row in trainer.state.log_history if "label_changed" in row]
    assert logs == [(epoch, pytest.approx((corrected[epoch] != labels).float().mean().item())) for epoch in (1, 2)]


def test_features_are_extracted_in_eval_mode_and_data_set_order(tmp_path, clusters):
    dataset, _, _ = clusters
    plain = Images(-dataset.images, dataset.labels)
    seen = []

    def features(model, pixel_values):
        seen.append((pixel_values, [module.training for module in model.modules()]))
        return pixel_values.flatten(1)

    trainer = trainer_for(
        tmp_path, dataset, corrector_for(start_epoch=0), epochs=1, features=features, correction_dataset=plain
    )
    trainer.train()
    assert not any(training for _, modes in seen for training in modes) and trainer.model.training
    assert torch.equal(torch.cat([images for images, _ in seen[1:]]), plain.images)  # the first is a trial


def test_plain_view_of_the_training_set_is_found(tmp_path, clusters):
    dataset, _, _ = clusters
    dataset.plain = lambda: Images(dataset.images + 1, dataset.labels)
    trainer = trainer_for(tmp_path, dataset, corrector_for(features=lambda model, images: images.flatten(1)), epochs=2)
    trainer.train()
    assert torch.equal(trainer._pairs[7][0], dataset.images[7] + 1)
    assert trainer.corrector.corrections is not None


def test_first_phase_is_that_of_a_plain_loop_over_the_same_batches(tmp_path, clusters):
    dataset, labels, _ = clusters
    trainer = trainer_for(tmp_path, dataset, corrector_for(), epochs=2)
    trainer.train()
    model = small_resnet().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch, _, given, index, _ in trainer.steps:
        if epoch == 0:
            optimizer.zero_grad()
            F.cross_entropy(model(dataset.images[index]).logits, given).backward()
            optimizer.step()
    plain = corrector_for(features=integration.pooled_features)
    phase = plain.update(model, TensorDataset(dataset.images, labels), epoch=1)
    assert torch.equal(trainer.corrector.targets(torch.arange(120)), plain.targets(torch.arange(120)))
    assert (phase.corrections.score == trainer.corrector.corrections.score).all()


def test_resumed_run_has_the_bits_of_an_undisturbed_one(tmp_path, clusters, updates):
    dataset, _, _ = clusters
    arguments = {"save_strategy": "steps", "save_steps": 2}  # within an epoch and at its end
    whole = trainer_for(tmp_path, dataset, corrector_for(correct_every=2), epochs=4, arguments=arguments)
    whole.train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*"))[0] == "checkpoint-10"
    for step in (2, 4, 6, 10):  # epoch 2 trains on the labels of epoch 1
        del updates[:]
        trainer = trainer_for(tmp_path / "other", dataset, corrector_for(correct_every=2), epochs=4)
        trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert [epoch for epoch, _ in updates] == list(range(-(-step // STEPS), 4))
        assert torch.equal(trainer.corrector.targets(torch.arange(120)), whole.corrector.targets(torch.arange(120)))
        for name, weight in trainer.model.state_dict().items():
            assert torch.equal(weight, whole.model.state_dict()[name]), (step, name)


def test_last_checkpoint_of_the_folder_is_found(tmp_path, clusters, updates):
    dataset, _, _ = clusters
    arguments = {"save_strategy": "epoch"}
    trainer_for(tmp_path, dataset, corrector_for(), epochs=2, arguments=arguments).train()
    labels = updates[1][1].corrections.labels
    del updates[:]
    trainer = trainer_for(tmp_path, dataset, corrector_for(start_epoch=2), epochs=2)
    trainer.train(resume_from_checkpoint=True)
    assert updates == [] and trainer.corrector.targets(torch.arange(120)).tolist() == labels.tolist()
    trainer.train()  # afresh: epochs 0 and 1 are before its start_epoch
    assert trainer.corrector.state_dict() == {}


@pytest.mark.parametrize("fault", ["missing", "damaged", "another data set"])
def test_checkpoints_without_usable_labels_are_refused(tmp_path, clusters, fault):
    dataset, given, _ = clusters
    trainer = trainer_for(
        tmp_path, dataset, corrector_for(start_epoch=0), epochs=1, arguments={"save_strategy": "epoch"}
    )
    trainer.train()
    file = tmp_path / f"checkpoint-{STEPS}" / integration.CORRECTIONS_FILE
    message = "must have the corrected labels of its run"
    if fault == "missing":
        file.unlink()
    elif fault == "damaged":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        dataset, message = Images(dataset.images[:100], given[:100]), "labels of 120 images, the training set has 100"
    with pytest.raises(CheckpointError, match=message):
        trainer_for(tmp_path, dataset, corrector_for(), epochs=2).train(resume_from_checkpoint=True)


def test_corrected_labels_are_saved_with_the_model(tmp_path, clusters):
    trainer = trainer_for(tmp_path, clusters[0], corrector_for())
    trainer.save_model(str(tmp_path / "before"))
    trainer.train()
    trainer.save_model(str(tmp_path / "after"))
    shutil.copytree(tmp_path / "after", tmp_path / "copy")
    trainer._load_corrections(tmp_path / "before" / integration.CORRECTIONS_FILE)
    assert trainer.corrector.state_dict() == {}
    trainer._load_corrections(tmp_path / "copy" / integration.CORRECTIONS_FILE)
    assert len(trainer.corrector.state_dict()["corrected"]) == 120


def test_accumulated_batches_weigh_as_much_as_one_large_batch(tmp_path, clusters):
    dataset, _, _ = clusters
    small, large = (
        trainer_for(
            tmp_path, Images(dataset.images[:96], dataset.labels[:96]), corrector_for(start_epoch=9), epochs=1,
            model=vit(), arguments={"per_device_train_batch_size": size, "gradient_accumulation_steps": steps},
        )
        for size, steps in ((8, 4), (32, 1))
    )  # fmt: skip
    small.train()
    large.train()
    for name, weight in small.model.state_dict().items():
        torch.testing.assert_close(weight, large.model.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)


def vit():
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=8, patch_size=4, num_channels=1, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=4, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def test_phases_count_epochs_of_accumulated_batches(tmp_path, clusters, updates):
    arguments = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4}  # 15 batches, 4 steps an epoch
    trainer_for(tmp_path, clusters[0], corrector_for(), epochs=4, arguments=arguments).train()
    assert [epoch for epoch, _ in updates] == [0, 1, 2, 3]


def test_evaluation_is_the_trainers_own(tmp_path, clusters):
    dataset, given, _ = clusters
    trainer = trainer_for(tmp_path, dataset, corrector_for(start_epoch=0), epochs=1, eval_dataset=dataset)
    trainer.train()
    loss = trainer.evaluate()["eval_loss"]
    assert trainer.evaluate(trainer.train_dataset)["eval_loss"] == loss  # whose items know their positions
    with torch.no_grad():
        expected = F.cross_entropy(trainer.model.eval()(dataset.images).logits, given)
    assert loss == pytest.approx(expected.item(), rel=1e-4)


def test_pooled_features_are_what_the_classifier_sees():
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        resnet = small_resnet().eval()
        torch.testing.assert_close(
            integration.pooled_features(resnet, images), resnet.resnet(images).pooler_output.flatten(1)
        )
        model = vit().eval()
        features = integration.pooled_features(model, images)
        torch.testing.assert_close(model.classifier(features), model(images).logits)
    assert features.shape == (3, 16) and not model.classifier._forward_pre_hooks
    with pytest.raises(TypeError, match="must have a module classifier, which ReLU has not"):
        integration.pooled_features(torch.nn.ReLU(), images)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"dataset": Stream(), "arguments": {"max_steps": 3}},
            "train_dataset must be a data set with positions, got Stream",
        ),
        ({"corrector": LabelCorrector(num_classes=5, start_epoch=1)}, "must be the model's 4, got 5"),
        ({"arguments": {"label_smoothing_factor": 0.1}}, "label_smoothing_factor must not be set"),
        ({"compute_loss_func": F.cross_entropy}, "compute_loss_func and"),
        ({"correction_dataset": [1, 2]}, "correction_dataset must have 120 items, got 2"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, clusters, settings, message):
    with pytest.raises(ConfigError, match=message):
        trainer_for(tmp_path, **{"dataset": clusters[0], "corrector": corrector_for(), **settings})


def test_several_devices_are_refused(tmp_path, clusters, monkeypatch):
    monkeypatch.setattr(transformers.TrainingArguments, "n_gpu", property(lambda self: 2))
    with pytest.raises(ConfigError, match="label correction runs on one device, got 2"):
        trainer_for(tmp_path, clusters[0], corrector_for())


def test_items_that_give_no_label_are_refused_before_training(tmp_path, clusters):
    def collate(items):
        return {"pixel_values": torch.stack([item["pixel_values"] for item in items])}

    trainer = trainer_for(tmp_path, clusters[0], corrector_for(), data_collator=collate)
    with pytest.raises(ValueError, match="must give labels, got pixel_values"):
        trainer.train()
    trainer = trainer_for(
        tmp_path, clusters[0], corrector_for(),
        data_collator=lambda items: {**collate(items), "labels": torch.zeros(len(items), 4)},
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"one whole number an image, item 0 has torch.float32 \[4\]"):
        trainer.train()


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, NAME)
    with pytest.raises(ImportError, match=rf"{NAME} needs the package transformers\[torch\]: pip install transformers"):
        importlib.import_module(NAME)
