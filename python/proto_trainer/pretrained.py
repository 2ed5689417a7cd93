"""Weights of a backbone that was trained elsewhere, from a safetensors file: reading it runs nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from .errors import ConfigError

_CLASSIFIER = ("fc.weight", "fc.bias")  # of other classes than ours
_COUNTER = "num_batches_tracked"  # not every exporter keeps it, and nothing here reads it
_NAMED = 5  # names of each kind in an error


@dataclass(frozen=True)
class BackboneWeights:
    """The tensors of a file by name, without the classifier, and the SHA-256 of the file."""

    path: Path
    tensors: dict[str, Tensor]
    sha256: str

    def load_into(self, backbone: nn.Module) -> None:
        """Give the weights to a backbone of the same architecture.

        Raises
        ------
        ConfigError
            Names that are missing, of another shape or unknown; it lists them.
        """
        wanted = backbone.state_dict()
        found = {name: self.tensors.get(name, tensor) for name, tensor in wanted.items() if name.endswith(_COUNTER)}
        found = {**found, **self.tensors}
        missing = [name for name in wanted if name not in found]
        misshapen = [
            f"{name} {list(found[name].shape)} (wanted {list(tensor.shape)})"
            for name, tensor in wanted.items()
            if name in found and found[name].shape != tensor.shape
        ]
        unknown = sorted(name for name in found if name not in wanted)
        kinds = (("missing", missing), ("of another shape", misshapen), ("unknown", unknown))
        problems = [f"{kind}: {_some(names)}" for kind, names in kinds if names]
        if problems:
            raise ConfigError(f"weights must be those of the model; in {self.path} there are {'; '.join(problems)}")
        backbone.load_state_dict(found)


def read_weights(path: Path) -> BackboneWeights:
    """Read a state dict with the names that torchvision gives to the layers of its networks.

    Raises
    ------
    ConfigError
        There is no such file, or it is not a whole safetensors file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"weights cannot be read: {path}: {error.strerror}") from None
    try:
        tensors = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise ConfigError(f"weights must be a safetensors file, {path} is not a whole one: {error}") from None
    tensors = {
        name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if name not in _CLASSIFIER
    }
    return BackboneWeights(path, tensors, hashlib.sha256(content).hexdigest())


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
