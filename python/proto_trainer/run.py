"""A run between two epochs: what it consists of, how it gets into a checkpoint and out again, and how it renews."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .checkpoint import Checkpoint, check_same_run, pack_optimizer, unpack_optimizer
from .config import TrainConfig
from .data import LabeledImages
from .epoch_log import Row
from .methods import Method
from .models import FeatureClassifier, build_model
from .pretrained import BackboneWeights
from .seeding import derive_seed, temporary_seed


@dataclass
class Run:
    """The settings and data of a run, and the things that change from epoch to epoch.

    `supervision` are the hashes of what is known about single labels: ``verified_sha256``, ``clean_sha256``.
    """

    config: TrainConfig
    train_set: LabeledImages
    test_set: LabeledImages
    model: FeatureClassifier
    method: Method
    optimizer: torch.optim.Optimizer
    device: torch.device
    supervision: dict[str, str] = field(default_factory=dict)
    weights: BackboneWeights | None = None


def _identity(run: Run) -> dict[str, Any]:
    """The settings and the data of this run; corrected labels are worthless for any other."""
    given = run.train_set.given.numpy().tobytes()
    return {
        **run.config.identity(),
        "num_classes": run.train_set.num_classes,
        "num_samples": len(run.train_set),
        "given_labels_sha256": hashlib.sha256(given).hexdigest(),
        **_files(run),
        **run.supervision,
        **({} if run.weights is None else {"weights_sha256": run.weights.sha256}),
    }


def _files(run: Run) -> dict[str, str]:
    """The hash of the image files' names in their order: a renamed one moves others, within a class unseen."""
    if run.train_set.paths is None:
        return {}
    root = run.config.root  # the folder may lie elsewhere by then
    names = hashlib.sha256()
    for path in run.train_set.paths:
        names.update((path if root is None else os.path.relpath(path, root)).encode() + b"\0")
    return {"files_sha256": names.hexdigest()}


def snapshot(run: Run, rows: list[Row]) -> Checkpoint:
    """All that the next epoch depends on; the learning rate and the batches follow from the epoch number."""
    optimizer_tensors, optimizer_groups = pack_optimizer(run.optimizer)
    random_states = {"cpu": torch.get_rng_state()}
    if run.device.type == "cuda":
        random_states["cuda"] = torch.cuda.get_rng_state(run.device)
    sections: dict[str, dict[str, Tensor]] = {
        "model": run.model.state_dict(),
        "optimizer": optimizer_tensors,
        "method": run.method.state_dict(),
        "random": random_states,
    }
    tensors = {f"{section}/{name}": t for section, part in sections.items() for name, t in part.items()}
    return Checkpoint(tensors, {"run": _identity(run), "optimizer_groups": optimizer_groups, "rows": rows})


def restore(run: Run, checkpoint: Checkpoint) -> list[Row]:
    """Undo `snapshot`; returns the rows of the finished epochs."""
    check_same_run(checkpoint.facts["run"], _identity(run))
    sections: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "method": {}, "random": {}}
    for key, tensor in checkpoint.tensors.items():
        section, name = key.split("/", 1)
        sections[section][name] = tensor if section == "random" else tensor.to(run.device)
    run.model.load_state_dict(sections["model"])
    unpack_optimizer(run.optimizer, sections["optimizer"], checkpoint.facts["optimizer_groups"])
    run.method.load_state_dict(sections["method"])
    torch.set_rng_state(sections["random"]["cpu"])
    if "cuda" in sections["random"] and run.device.type == "cuda":
        torch.cuda.set_rng_state(sections["random"]["cuda"], run.device)
    return checkpoint.facts["rows"]


def start_afresh(run: Run, epoch: int) -> None:
    """Give the run a new network and an optimizer without a past; torch's random state is left alone."""
    shape = run.train_set.image_shape
    with temporary_seed(derive_seed(run.config.seed, "model", epoch), run.device):
        fresh = build_model(
            run.config.model, num_classes=run.train_set.num_classes, image_shape=shape, weights=run.weights
        )
    run.model.load_state_dict(fresh.state_dict())
    run.optimizer.state.clear()


def take_over(run: Run) -> None:
    """Let the run go on with the network that a user would get now, and an optimizer without a past."""
    network = run.method.evaluated(run.model)
    if network is not run.model:
        run.model.load_state_dict(network.state_dict())
    run.optimizer.state.clear()
