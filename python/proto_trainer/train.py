"""The training loop: Algorithm 1 of "Deep Self-Learning From Noisy Labels", with checkpoints.

Read `train` first: an epoch is prepared by the method (this is where labels get corrected), trained,
tested, logged and saved.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from .acceleration import accelerate
from .checkpoint import save_checkpoint
from .config import TrainConfig
from .correction import CorrectionPhase
from .data import LabeledImages, add_noise, load_dataset, make_loader
from .epoch_log import EpochLog, Row, write_suggestions
from .errors import ConfigError, TrainingDiverged
from .evaluation import accuracy, label_accuracy
from .methods import build_method, find_clean, find_verified
from .models import RESNETS, FeatureClassifier, build_model
from .output_folder import open_folder, sole_writer
from .pretrained import read_weights
from .run import Run, restore, snapshot, start_afresh, take_over
from .seeding import derive_seed, deterministic

_PIXELS_OF_ONE = 32  # a side of images that a ResNet shrinks to a single pixel


@dataclass(frozen=True)
class TrainResult:
    """What `train` gives back: a row for each epoch, the network, and the training set with its noise."""

    rows: list[Row]
    model: FeatureClassifier
    train_set: LabeledImages


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    download: bool = False,
    on_epoch: Callable[[Row], None] | None = None,
) -> TrainResult:
    """Train a network, correcting labels if the method does so, and write everything to `config.out`.

    Parameters
    ----------
    config : TrainConfig
    resume : bool
        Go on from the last checkpoint in `config.out`; the outcome has the same bits as without the
        interruption. Start at the beginning if there is no checkpoint yet.
    download : bool
        Let the data set fetch its files.
    on_epoch : callable or None
        Called with each finished epoch's row, after it has been saved.

    Returns
    -------
    TrainResult

    Raises
    ------
    ConfigError
        A setting cannot work, `config.out` holds a run and `resume` is false, or another run writes there.
    CheckpointError
        The checkpoint in `config.out` is damaged or belongs to another run.
    TrainingDiverged
        The loss became NaN or infinite; the last checkpoint is the one of the epoch before.
    OSError
        `config.out` cannot be written.
    """
    device = _device(config.device)
    weights = None if config.weights is None else read_weights(config.weights)
    splits = load_dataset(
        config.data, config.root, download=download, image_size=config.image_size, images=config.images
    )
    train_set = add_noise(splits.train, config.noise, derive_seed(config.seed, "noise"))
    verified = find_verified(config, splits, train_set)
    clean = find_clean(config, splits, train_set)
    supervision = {} if verified is None else {"verified_sha256": verified.sha256(train_set)}
    supervision |= {} if clean is None else {"clean_sha256": clean.sha256()}
    _check_counts(config, train_set, splits.test, None if clean is None else clean.images)
    with sole_writer(config.out), deterministic(derive_seed(config.seed, "model"), device):
        checkpoint = open_folder(config.out, resume)
        model = build_model(
            config.model, num_classes=train_set.num_classes, image_shape=train_set.image_shape, weights=weights
        )
        model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        accelerate(model, device, amp=config.amp, compiled=config.compile)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
        method = build_method(config, train_set.num_classes, verified, clean)
        run = Run(config, train_set, splits.test, model, method, optimizer, device, supervision, weights)
        rows = [] if checkpoint is None else restore(run, checkpoint)
        log = EpochLog(config.out, rows)
        try:
            for epoch in range(len(rows), config.all_epochs):
                row = _one_epoch(run, epoch)
                log.add(row)
                is_best = all(row["test_accuracy"] > earlier["test_accuracy"] for earlier in log.rows[:-1])
                save_checkpoint(config.out / "checkpoints", snapshot(run, log.rows), epoch=epoch, is_best=is_best)
                if on_epoch is not None:
                    on_epoch(row)
        finally:
            log.close()
        trained = method.evaluated(model)
        suggested = method.suggestions(trained, train_set)
        if suggested is not None:
            write_suggestions(config.out / "corrected.parquet", suggested, train_set)
    return TrainResult(log.rows, trained, train_set)


def _one_epoch(run: Run, epoch: int) -> Row:
    """Prepare (correct), train, test."""
    if run.method.takes_over(epoch):
        take_over(run)
    phase = run.method.before_epoch(run.model, run.train_set, epoch)
    if phase is not None:
        write_suggestions(run.config.out / "corrected.parquet", phase.corrections, run.train_set)
    if run.method.begins_afresh(epoch):
        start_afresh(run, epoch)
    started = time.perf_counter()
    loss, train_accuracy = _train_on_all_batches(run, epoch)
    run.method.after_epoch(run.model, run.train_set, epoch)
    trained = time.perf_counter()
    config = run.config
    tester = {"batch_size": config.eval_batch_size, "workers": config.workers}
    test_accuracy = accuracy(run.method.evaluated(run.model), run.test_set, **tester)
    tested = time.perf_counter()
    labels = run.method.training_labels(run.train_set)
    return {
        "epoch": epoch,
        "lr": run.method.lr_at(config, epoch),
        "loss": loss,
        "train_accuracy": train_accuracy,
        "test_accuracy": test_accuracy,
        "label_changed": float((labels != run.train_set.given).double().mean()),
        "label_accuracy": label_accuracy(labels, run.train_set.truth),
        "train_seconds": trained - started,
        "test_seconds": tested - trained,
        **_phase_seconds(phase),
    }


def _phase_seconds(phase: CorrectionPhase | None) -> dict[str, float | None]:
    names = ("extract_seconds", "select_seconds", "score_seconds")
    return {name: None if phase is None else getattr(phase, name) for name in names}


def _train_on_all_batches(run: Run, epoch: int) -> tuple[float, float]:
    """One pass of SGD; the mean loss, and the accuracy against the given labels as seen while training."""
    for group in run.optimizer.param_groups:
        group["lr"] = run.method.lr_at(run.config, epoch)
    images_of_epoch = run.method.images(run.train_set)
    loader = make_loader(
        images_of_epoch,
        run.config.batch_size,
        shuffle_seed=derive_seed(run.config.seed, "order", epoch),
        workers=run.config.workers,
        device=run.device,
    )
    run.model.train()
    total_loss, correct = 0.0, 0
    for images, given, index in loader:
        given, index = given.to(run.device), index.to(run.device)
        loss, logits = run.method.batch_loss(run.model, images, given, index)
        value = loss.item()
        if value - value != 0:  # NaN or infinite
            raise TrainingDiverged(f"the loss is {value} in epoch {epoch}; a smaller learning rate may help")
        run.optimizer.zero_grad()
        loss.backward()
        run.optimizer.step()
        total_loss += value * len(index)
        correct += int((logits.argmax(dim=1) == given).sum())
    _check_weights(run.model, epoch)
    return total_loss / len(images_of_epoch), correct / len(images_of_epoch)


def _check_weights(model: nn.Module, epoch: int) -> None:
    """The last step of an epoch can ruin the weights without a loss that shows it."""
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise TrainingDiverged(
                f"weights of {name} are not finite after epoch {epoch}; a smaller learning rate may help"
            )


def _check_counts(
    config: TrainConfig, train_set: LabeledImages, test_set: LabeledImages, clean: LabeledImages | None
) -> None:
    """What would end the run with an error of torch's, after an epoch or after all of them."""
    if not len(train_set) or not len(test_set):
        raise ConfigError(f"data must have images to train and test on, got {len(train_set)} and {len(test_set)}")
    if train_set.num_classes < 2:
        raise ConfigError(
            f"data must have at least 2 classes, got {train_set.num_classes}: {', '.join(train_set.class_names)}"
        )
    if config.model not in RESNETS or max(train_set.image_shape[1:]) > _PIXELS_OF_ONE:
        return
    for images, what in ((train_set, "training"), (clean, "clean")):
        if images is not None and (config.batch_size == 1 or len(images) % config.batch_size == 1):
            raise ConfigError(
                f"batch_size must not leave a batch of one image with {config.model} and images of at most "
                f"{_PIXELS_OF_ONE} pixels a side, whose normalization needs two; got {config.batch_size} for "
                f"{len(images)} {what} images"
            )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device must be auto or a device that torch can use, got {name!r}: {reason}") from None
    return device
