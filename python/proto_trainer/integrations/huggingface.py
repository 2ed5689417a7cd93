"""Label correction in the `Trainer` of Hugging Face transformers, for image classification."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

import proto_engine as pe

from ..correction import LabelCorrector
from ..errors import CheckpointError, ConfigError
from ..features import FeatureFunction, model_features, without_augmentation
from . import needs, try_features

try:
    from transformers import Trainer, TrainerCallback
    from transformers.trainer_utils import get_last_checkpoint
except ModuleNotFoundError as missing:
    raise ImportError(needs(__name__, "transformers[torch]")) from missing

CORRECTIONS_FILE = "label_corrections.safetensors"
INDEX = "sample_index"  # the key of an item's position; no model takes an argument of that name


def pooled_features(model: nn.Module, pixel_values: Tensor) -> Tensor:
    """What ``model.classifier`` is given, [B, D]: the pooled features of ResNet, ConvNeXT, ViT, Swin and others.

    Parameters
    ----------
    model : nn.Module
        Of the kind ``...ForImageClassification``.
    pixel_values : Tensor, float [B, K, H, W]

    Returns
    -------
    Tensor, float [B, D]
        Maps [B, D, h, w] are averaged.

    Raises
    ------
    TypeError
        The model has no module ``classifier``.
    """
    classifier = getattr(model, "classifier", None)
    if not isinstance(classifier, nn.Module):
        raise TypeError(
            f"model must have a module classifier, which {type(model).__name__} has not; "
            "or give SelfLearningTrainer a function features=(model, pixel_values) -> [B, D]"
        )
    seen: list[Tensor] = []
    hook = classifier.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    try:
        model(pixel_values)
    finally:
        hook.remove()
    return seen[0].mean(dim=(2, 3)) if seen[0].ndim == 4 else seen[0]


class IndexedDataset(Dataset):
    """Items of a data set of dicts with their position under the key ``sample_index``.

    Parameters
    ----------
    dataset : Dataset
        Anything with ``len(dataset)`` and ``dataset[i]``, a mapping.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {**self.dataset[i], INDEX: i}


class _IndexKept:
    """A collator that never sees the positions; they go past it into the batch."""

    def __init__(self, collator: Callable[[list], Mapping[str, Any]]) -> None:
        self.collator = collator

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        batch = self.collator([{key: value for key, value in item.items() if key != INDEX} for item in items])
        if INDEX not in items[0]:  # evaluation
            return batch
        return {**batch, INDEX: torch.tensor([item[INDEX] for item in items])}


class _Pairs(Dataset):
    """Items (pixel values, label, position), as `extract_features` wants them, each by way of the collator."""

    def __init__(self, dataset: Any, collator: Callable, input_name: str) -> None:
        self.dataset, self.collator, self.input_name = dataset, collator, input_name

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, int]:
        batch = self.collator([self.dataset[i]])
        if missing := {self.input_name, "labels"} - set(batch):
            raise ValueError(f"items and collator must give {' and '.join(sorted(missing))}, got {', '.join(batch)}")
        label = batch["labels"][0]
        if label.ndim or label.is_floating_point():
            raise ValueError(f"labels must be one whole number an image, item {i} has {label.dtype} {[*label.shape]}")
        return batch[self.input_name][0], label, i


class SelfLearningTrainer(Trainer):
    """A `Trainer` that corrects the labels it trains on.

    Each training epoch from the corrector's `start_epoch` on begins with a correction phase over the whole
    training set, in data set order and eval mode; then the loss is ``(1 - alpha) * CE(given) + alpha *
    CE(corrected)``. Before, it is plain cross-entropy, and evaluation is the Trainer's own. A phase logs
    ``label_changed``. The corrected labels are saved with the model, as ``label_corrections.safetensors``, and
    taken up again by ``train(resume_from_checkpoint=...)``.

    Parameters
    ----------
    *args, **kwargs
        Of `transformers.Trainer`. The training set has ``len``, and its items or the collator give
        ``pixel_values`` (the model's ``main_input_name``) and ``labels``.
    corrector : LabelCorrector
    features : callable, optional
        ``(model, pixel_values) -> Tensor [B, D]``. By default the corrector's, if it was given one, else
        `pooled_features`.
    correction_dataset : Dataset, optional
        The training images without augmentation: the same ones in the same order. By default
        ``train_dataset.plain()`` where it exists, else the training set itself.

    Raises
    ------
    ConfigError
        More than one device; a training set without positions; another number of classes than the model's;
        a loss or label smoothing of one's own.
    """

    def __init__(
        self,
        *args: Any,
        corrector: LabelCorrector,
        features: FeatureFunction | None = None,
        correction_dataset: Any | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        devices = max(self.args.world_size, self.args.n_gpu)
        if devices > 1:  # each process would have to extract the features of all images
            raise ConfigError(f"label correction runs on one device, got {devices}: set CUDA_VISIBLE_DEVICES to one")
        if self.train_dataset is None or isinstance(self.train_dataset, IterableDataset):
            raise ConfigError(
                f"train_dataset must be a data set with positions, got {type(self.train_dataset).__name__}"
            )
        if self.compute_loss_func is not None or self.args.label_smoothing_factor:
            raise ConfigError("compute_loss_func and label_smoothing_factor must not be set: the loss is the method's")
        num_labels = getattr(getattr(self.model, "config", None), "num_labels", corrector.num_classes)
        if num_labels != corrector.num_classes:
            raise ConfigError(
                f"num_classes of the corrector must be the model's {num_labels}, got {corrector.num_classes}"
            )
        self.corrector = corrector
        if features is not None or corrector.features is model_features:
            corrector.features = features or pooled_features
        plain = without_augmentation(self.train_dataset) if correction_dataset is None else correction_dataset
        if len(plain) != len(self.train_dataset):
            raise ConfigError(f"correction_dataset must have {len(self.train_dataset)} items, got {len(plain)}")
        collator = self._get_collator_with_removed_columns(self.data_collator)
        self._pairs = _Pairs(plain, collator, getattr(self.model, "main_input_name", "pixel_values"))
        self.train_dataset = IndexedDataset(self.train_dataset)
        self.data_collator = _IndexKept(self.data_collator)
        self.model_accepts_loss_kwargs = False  # the loss is a mean over the batch, whatever is accumulated
        self._corrected_epoch: int | None = None  # the last epoch whose start the corrector has seen
        self.add_callback(_PhaseAtEpochStart(self))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of a training batch, whose items know their positions; of others the Trainer's."""
        if INDEX not in inputs or not model.training:  # the training set may be evaluated, too
            inputs = {key: value for key, value in inputs.items() if key != INDEX}
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        outputs = model(**{key: value for key, value in inputs.items() if key not in (INDEX, "labels")})
        loss = self.corrector.loss(outputs.logits, inputs["labels"], inputs[INDEX])
        return (loss, outputs) if return_outputs else loss

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """See `transformers.Trainer.train`.

        Raises
        ------
        CheckpointError
            The checkpoint has no corrected labels, damaged ones, or those of another number of images.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir) or True
        if isinstance(resume_from_checkpoint, str | os.PathLike):
            self._load_corrections(Path(resume_from_checkpoint) / CORRECTIONS_FILE)
        else:
            self._corrected_epoch = None
            self.corrector.load_state_dict({})
        try_features(self.corrector, self.model, self._pairs)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """See `transformers.Trainer.save_model`; the corrected labels go into the same folder."""
        super().save_model(output_dir, _internal_call)
        epoch = -1 if self._corrected_epoch is None else self._corrected_epoch
        state = {f"corrector.{name}": t.cpu() for name, t in self.corrector.state_dict().items()}
        packed = safetensors.torch.save({"epoch": torch.tensor(epoch), **state})
        with pe.atomic_write(Path(output_dir or self.args.output_dir) / CORRECTIONS_FILE) as file:
            file.write(packed)

    def _load_corrections(self, path: Path) -> None:
        try:
            state = safetensors.torch.load(path.read_bytes())
            epoch = int(state.pop("epoch"))
        except (OSError, SafetensorError, KeyError) as error:
            raise CheckpointError(
                f"the checkpoint must have the corrected labels of its run in {path}: {error}"
            ) from None
        state = {name.removeprefix("corrector."): value for name, value in state.items()}
        count = len(state.get("corrected", self.train_dataset))
        if count != len(self.train_dataset):
            raise CheckpointError(
                f"{path} has labels of {count} images, the training set has {len(self.train_dataset)}"
            )
        self._corrected_epoch = None if epoch < 0 else epoch
        self.corrector.load_state_dict(state)

    def _correct(self, epoch: int) -> None:
        """The correction phase, unless a checkpoint brought the labels of this very epoch."""
        if epoch == self._corrected_epoch:
            return
        phase = self.corrector.update(self.model, self._pairs, epoch)
        self._corrected_epoch = epoch
        if phase is not None:
            self.log({"label_changed": float(np.mean(phase.corrections.changed))})

    def _set_signature_columns_if_needed(self) -> None:
        """Positions are no argument of the model, and stay in the items nevertheless."""
        super()._set_signature_columns_if_needed()
        if INDEX not in self._signature_columns:
            self._signature_columns.append(INDEX)


class _PhaseAtEpochStart(TrainerCallback):
    def __init__(self, trainer: SelfLearningTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # as the Trainer counts when it resumes: its own epoch is a float, which has been rounded
        steps = math.ceil(len(kwargs["train_dataloader"]) / args.gradient_accumulation_steps)
        self.trainer._correct(state.global_step // steps)
