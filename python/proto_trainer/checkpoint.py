"""Checkpoints: tensors in safetensors, everything else in JSON, and no moment without a loadable one.

A folder holds one ``epoch-NNNN-XXXXXXXX.safetensors`` for each checkpoint that is still in use, and two small
files that point to them: ``last.json`` and ``best.json``. Saving writes the tensors first. Their name ends in the
beginning of their SHA-256, so that an epoch that is repeated with other bits takes no name that is in use. Then the
JSON is replaced, which names the tensor file and its SHA-256. Only then are tensor files that nothing points to
removed. Whenever the process is killed, each JSON file points to a whole tensor file. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

import proto_engine as pe

from .errors import CheckpointError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: named tensors, and facts that JSON can hold."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, epoch: int, is_best: bool) -> None:
    """Write the checkpoint of an epoch as ``last``, and as ``best`` too if it is the best.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    checkpoint : Checkpoint
    epoch : int
        The epoch that has just ended.
    is_best : bool

    Raises
    ------
    OSError
        The folder cannot be written; the checkpoints that were there stay valid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packed = safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()})
    digest = hashlib.sha256(packed).hexdigest()
    tensor_file = folder / f"epoch-{epoch:04d}-{digest[:8]}.safetensors"
    with pe.atomic_write(tensor_file) as file:
        file.write(packed)
    facts = {
        "format": FORMAT_VERSION,
        "epoch": epoch,
        "tensors": {"file": tensor_file.name, "sha256": digest},
        **checkpoint.facts,
    }
    text = json.dumps(facts, indent=1, allow_nan=False).encode()
    for which in ("best", "last") if is_best else ("last",):
        with pe.atomic_write(folder / f"{which}.json") as file:
            file.write(text)
    _remove_unused(folder)


def _remove_unused(folder: Path) -> None:
    in_use = {_tensor_file(_read_facts(pointer), pointer) for pointer in folder.glob("*.json")}
    for path in folder.glob("epoch-*.safetensors"):
        if path.name not in in_use:
            path.unlink()


def load_checkpoint(folder: Path, which: str = "last") -> Checkpoint | None:
    """Read the ``last`` or the ``best`` checkpoint of a folder; None if it has none.

    Raises
    ------
    CheckpointError
        Another format version, or files that are damaged or do not belong together.
    """
    pointer = folder / f"{which}.json"
    if not pointer.is_file():
        return None
    facts = _read_facts(pointer)
    if facts.get("format") != FORMAT_VERSION:
        raise CheckpointError(f"{pointer} must have format {FORMAT_VERSION}, got {facts.get('format')!r}")
    path = folder / _tensor_file(facts, pointer)
    try:
        packed = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{pointer} points to {path.name}, which is missing") from None
    if hashlib.sha256(packed).hexdigest() != facts["tensors"]["sha256"]:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in {pointer.name}")
    return Checkpoint(safetensors.torch.load(packed), facts)


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(facts).__name__}")
    return facts


def _tensor_file(facts: Mapping[str, Any], pointer: Path) -> str:
    try:
        name, _ = facts["tensors"]["file"], facts["tensors"]["sha256"]
        if Path(name).name == name:
            return name
    except (KeyError, TypeError):
        pass
    raise CheckpointError(f"{pointer} must name a file beside it and its SHA-256, got {facts.get('tensors')!r}")


def check_same_run(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose run differs from the one that wants to go on.

    Parameters
    ----------
    found, wanted : mapping
        Settings by name, of the checkpoint and of this run.

    Raises
    ------
    CheckpointError
        Names every setting that differs.
    """
    differences = [
        f"{name} {found.get(name)!r} (this run: {wanted.get(name)!r})"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        raise CheckpointError("the checkpoint belongs to another run: it has " + ", ".join(differences))


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimizer's state as tensors, named ``<parameter number>.<name>``, and its parameter groups."""
    state = optimizer.state_dict()
    tensors = {
        f"{number}.{name}": value
        for number, slots in state["state"].items()
        for name, value in slots.items()
        if isinstance(value, Tensor)
    }
    return tensors, state["param_groups"]


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    """Undo `pack_optimizer`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        parameter = parameters[int(number)]
        if value.shape == parameter.shape:  # the memory layout of the weight, so that the same loops run over it
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        slots.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
