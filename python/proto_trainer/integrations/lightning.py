"""Label correction in a Lightning `Trainer`: a callback for the phases, a loss module for the batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..correction import LabelCorrector
from ..errors import CheckpointError, ConfigError
from . import needs, try_features

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError:
    try:  # the same under its older name
        from pytorch_lightning import Callback, LightningModule, Trainer
    except ModuleNotFoundError as error:
        raise ImportError(needs(__name__, "lightning")) from error


class SelfLearningLoss(nn.Module):
    """``loss(logits, labels, index)``: the given and the corrected labels, mixed as `LabelCorrector.loss` does.

    Parameters
    ----------
    corrector : LabelCorrector
        The one that the callback has. It is no part of the module's ``state_dict``.
    """

    def __init__(self, corrector: LabelCorrector) -> None:
        super().__init__()
        self.corrector = corrector

    def forward(self, logits: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """Logits [B, C], given labels [B], and the positions of the batch in the training set, [B]."""
        return self.corrector.loss(logits, labels, index)


class LabelCorrectionCallback(Callback):
    """Runs the correction phase at the start of each training epoch, from the corrector's `start_epoch` on.

    The phase goes over the whole training set in data set order, in eval mode and without augmentation, and
    logs ``label_changed``, the share of labels that it changed. The corrected labels are part of Lightning's
    checkpoints; a fit that is resumed within an epoch goes on with the labels of that epoch.

    Parameters
    ----------
    corrector : LabelCorrector
        Its `features` get the LightningModule as ``model``; by default ``module.features(images)`` is called.
    dataset : Dataset, optional
        The training set; items ``(image, given label[, index])``. By default the data set of the training
        DataLoader.

    Notes
    -----
    For one device: every process would have to extract the features of all images. With more a fit is
    refused.

    Examples
    --------
    >>> corrector = LabelCorrector(num_classes=10, start_epoch=5)                    # doctest: +SKIP
    >>> trainer = Trainer(devices=1, callbacks=[LabelCorrectionCallback(corrector)])   # doctest: +SKIP
    """

    def __init__(self, corrector: LabelCorrector, dataset: Dataset | None = None) -> None:
        self.corrector = corrector
        self.dataset = dataset
        self._epoch: int | None = None  # the last epoch whose start the corrector has seen

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse several devices; forget an earlier fit (labels in a checkpoint are loaded after this)."""
        if stage != "fit":
            return
        if trainer.world_size > 1:
            raise ConfigError(f"devices must be 1 for label correction, got {trainer.world_size} processes")
        if trainer.global_step == 0:
            self.load_state_dict({"epoch": None, "corrector": {}})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that features can be extracted, and that labels from a checkpoint belong to the data set."""
        dataset = self._training_set(trainer)
        try_features(self.corrector, pl_module, dataset)
        corrected = self.corrector.state_dict().get("corrected")
        if corrected is not None and len(corrected) != len(dataset):  # type: ignore[arg-type]
            raise CheckpointError(
                f"the checkpoint has corrected labels of {len(corrected)} images, the training set has {len(dataset)}"  # type: ignore[arg-type]
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The correction phase, unless a checkpoint brought the labels of this very epoch."""
        epoch = trainer.current_epoch
        if epoch == self._epoch:
            return
        with trainer.precision_plugin.forward_context():
            phase = self.corrector.update(pl_module, self._training_set(trainer), epoch)
        self._epoch = epoch
        if phase is not None:
            pl_module.log("label_changed", float(np.mean(phase.corrections.changed)))

    def state_dict(self) -> dict[str, Any]:
        """What Lightning puts into its checkpoints."""
        return {"epoch": self._epoch, "corrector": self.corrector.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self._epoch = state_dict["epoch"]
        self.corrector.load_state_dict(state_dict["corrector"])

    def _training_set(self, trainer: Trainer) -> Dataset:
        if self.dataset is not None:
            return self.dataset
        loader = trainer.train_dataloader
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            raise ConfigError(
                "dataset must be given to LabelCorrectionCallback unless the training loader is one DataLoader of a "
                f"data set with positions, got {type(getattr(loader, 'dataset', loader)).__name__}"
            )
        return loader.dataset
