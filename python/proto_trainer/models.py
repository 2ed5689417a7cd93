"""Networks that give two things for an image: class logits, and the pooled feature that the logits come from.

The feature is what label correction compares images by. It is the global average of the last feature map,
before the linear classifier.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict

import torch
import torchvision
from torch import Tensor, nn

from .errors import ConfigError
from .pretrained import BackboneWeights

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
MODELS = ("small-cnn", *RESNETS)


class Backbone(nn.Sequential):
    """One layer after the other. With a `forward` of torch's own, `compile` would silently do nothing."""

    def forward(self, images: Tensor) -> Tensor:
        """Images float [B, K, H, W] to a feature map float [B, D, h, w]."""
        for layer in self:
            images = layer(images)
        return images


class FeatureClassifier(nn.Module):
    """A convolutional backbone, global average pooling, and a linear classifier.

    Parameters
    ----------
    backbone : nn.Module
        Images float [B, K, H, W] to a feature map float [B, D, h, w].
    dim : int
        D.
    num_classes : int
        C.

    Attributes
    ----------
    amp : bool
        The backbone computes in bfloat16 where that is safe. What it gives is averaged in float32, and the classifier
        is in float32 throughout.
    """

    def __init__(self, backbone: nn.Module, dim: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(dim, num_classes)
        self.amp = False

    def features(self, images: Tensor) -> Tensor:
        """Global-average-pool features, float [B, D]."""
        # not enabled=False: that would also undo the autocast of a caller
        precision = torch.autocast(images.device.type, torch.bfloat16) if self.amp else contextlib.nullcontext()
        with precision:
            maps = self.backbone(images)  # [B, D, h, w]
        return maps.to(images.dtype).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Class logits, float [B, C]."""
        return self.head(self.features(images))


def build_model(
    name: str, *, num_classes: int, image_shape: tuple[int, int, int], weights: BackboneWeights | None = None
) -> FeatureClassifier:
    """Build a network with fresh weights from torch's global generator; the backbone may get others.

    Parameters
    ----------
    name : str
        One of `MODELS`.
    num_classes : int
    image_shape : tuple (channels, height, width)
    weights : BackboneWeights or None
        For the backbone of one of `RESNETS`; the classifier is fresh in any case.

    Raises
    ------
    ConfigError
        Unknown name, or weights of another network.
    """
    channels, height, width = image_shape
    if weights is not None and name not in RESNETS:
        raise ConfigError(f"weights are for the models {', '.join(RESNETS)}, got model {name}")
    if name == "small-cnn":
        return _small_cnn(channels, min(height, width), num_classes)
    if name in RESNETS:
        model = _resnet(name, channels, num_classes)
        if weights is not None:
            weights.load_into(model.backbone)
        return model
    raise ConfigError(f"model must be one of {', '.join(MODELS)}, got {name!r}")


# Output channels, kernel and stride of each convolution. Images of 20 pixels and more shrink in three steps
# (28 -> 14 -> 7 -> 4), smaller ones in one (8 -> 4), through fewer weights: there are fewer of them to learn from.
_LAYERS = ((32, 5, 2), (64, 3, 2), (64, 3, 1), (128, 3, 2))
_LAYERS_BELOW_20_PIXELS = ((16, 5, 1), (32, 3, 2), (64, 3, 1))


def _small_cnn(channels: int, image_size: int, num_classes: int) -> FeatureClassifier:
    """Three or four convolutions, made for seconds per epoch on a CPU.

    The last feature map is left signed. Averages of what a ReLU lets through are all positive and, in a net
    this small, nearly parallel: cosines between images of different classes exceed 0.95, and the eta filter
    would turn most of a class down.
    """
    backbone: list[nn.Module] = []
    for width, kernel, stride in _LAYERS if image_size >= 20 else _LAYERS_BELOW_20_PIXELS:
        backbone += _conv(channels, width, kernel=kernel, stride=stride)
        channels = width
    return FeatureClassifier(Backbone(*backbone[:-1]), channels, num_classes)


def _conv(channels_in: int, channels_out: int, *, kernel: int, stride: int) -> list[nn.Module]:
    """Convolution, batch normalization, ReLU; the normalization makes a bias pointless."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)]


def _resnet(name: str, channels: int, num_classes: int) -> FeatureClassifier:
    """torchvision's ResNet without its pooling and classifier; layer names are kept under ``backbone.``."""
    net = getattr(torchvision.models, name)(weights=None)
    if channels != 3:
        net.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    layers = [(layer, module) for layer, module in net.named_children() if layer not in ("avgpool", "fc")]
    return FeatureClassifier(Backbone(OrderedDict(layers)), net.fc.in_features, num_classes)
