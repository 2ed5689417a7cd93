"""Label correction inside other people's training loops and tools: one module for each.

``proto_trainer.integrations.lightning``, ``.huggingface`` and ``.cleanlab`` are imported by name. Each imports its
package itself, so that `proto_trainer` works without any of them.
"""

from __future__ import annotations

from torch import nn
from torch.utils.data import Dataset, Subset

from ..correction import LabelCorrector
from ..features import extract_features, without_augmentation


def needs(module: str, package: str) -> str:
    """The message of the ImportError for a package that is not installed."""
    return f"{module} needs the package {package}: pip install {package}"


def try_features(corrector: LabelCorrector, model: nn.Module, dataset: Dataset) -> None:
    """Extract the feature of the first image, so that what cannot work fails before hours of training.

    Raises
    ------
    TypeError, ValueError
        From `extract_features`: a model without features, features that are not [B, D], another index.
    """
    extract_features(model, Subset(without_augmentation(dataset), [0]), features=corrector.features)
