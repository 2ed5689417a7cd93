"""Training on labels that are partly wrong, with label correction by `proto_engine`.

`LabelCorrector` goes into a training loop of one's own; `train` and the command ``proto-train`` are such a
loop with data sets, checkpoints and logs around it.
"""

from .config import TrainConfig, make_config
from .correction import CorrectionPhase, LabelCorrector
from .data import NoiseSpec, add_noise, load_dataset, make_loader
from .errors import CheckpointError, ConfigError, TrainingDiverged
from .evaluation import accuracy, label_accuracy, noise_matrix
from .features import extract_features
from .losses import self_learning_loss
from .models import build_model
from .train import TrainResult, train

__all__ = [
    "CheckpointError", "ConfigError", "CorrectionPhase", "LabelCorrector", "NoiseSpec", "TrainConfig",
    "TrainResult", "TrainingDiverged", "accuracy", "add_noise", "build_model", "extract_features",
    "label_accuracy", "load_dataset", "make_config", "make_loader", "noise_matrix", "self_learning_loss",
    "train",
]  # fmt: skip
