"""What makes a network faster at the price of other bits: bfloat16, and compilation. Both are off unless asked for."""

from __future__ import annotations

import torch

from .errors import ConfigError
from .models import FeatureClassifier

BACKEND = "inductor"  # torch.compile's default


def accelerate(model: FeatureClassifier, device: torch.device, *, amp: bool, compiled: bool) -> None:
    """Let the backbone of `model` run in bfloat16, compiled, or both; names and kinds of its weights stay.

    Each shape of a batch is compiled for itself. A graph for shapes of any size would be made when a second size
    comes by, so that a run that is resumed would meet it at another time than one that is not, with other bits.

    Parameters
    ----------
    model : FeatureClassifier
        On `device`.
    device : torch.device
    amp, compiled : bool

    Raises
    ------
    ConfigError
        `device` cannot do it.
    """
    if amp and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(f"amp needs a GPU that computes in bfloat16, {torch.cuda.get_device_name(device)} does not")
    model.amp = amp
    if compiled:
        _need_compiler(device)
        torch.compiler.reset()  # there is a limit to the number of graphs, also those of earlier networks
        model.backbone.compile(backend=BACKEND, dynamic=False)


def _need_compiler(device: torch.device) -> None:
    """Compile something small, to fail now and not in the first epoch."""
    try:
        with torch.inference_mode():
            torch.compile(_trial, backend=BACKEND, dynamic=False)(torch.ones(2, device=device))
    except Exception as error:  # whatever a missing g++ or Triton leads to: there are many kinds
        reason = next((line for line in f"{error}".splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(
            f"compile needs a C++ compiler (on a GPU: Triton as well) that works on this machine: {reason}"
        ) from None


def _trial(x: torch.Tensor) -> torch.Tensor:
    return (x + 1).relu()
