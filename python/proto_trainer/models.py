"""Networks that give two things for an image: class logits, and the pooled feature that the logits come from.

The feature is what label correction compares images by. It is the global average of the last feature map,
before the linear classifier.
"""

from __future__ import annotations

from collections import OrderedDict

import torchvision
from torch import Tensor, nn

from .errors import ConfigError

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
MODELS = ("small-cnn", *RESNETS)


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
    """

    def __init__(self, backbone: nn.Module, dim: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(dim, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Global-average-pool features, float [B, D]."""
        return self.backbone(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Class logits, float [B, C]."""
        return self.head(self.features(images))


def build_model(name: str, *, num_classes: int, image_shape: tuple[int, int, int]) -> FeatureClassifier:
    """Build a network with fresh weights from torch's global generator.

    Parameters
    ----------
    name : str
        One of `MODELS`.
    num_classes : int
    image_shape : tuple (channels, height, width)

    Raises
    ------
    ConfigError
        Unknown name.
    """
    channels, height, width = image_shape
    if name == "small-cnn":
        return _small_cnn(channels, min(height, width), num_classes)
    if name in RESNETS:
        return _resnet(name, channels, num_classes)
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
    return FeatureClassifier(nn.Sequential(*backbone[:-1]), channels, num_classes)


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
    return FeatureClassifier(nn.Sequential(OrderedDict(layers)), net.fc.in_features, num_classes)
