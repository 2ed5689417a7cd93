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


def _small_cnn(channels: int, image_size: int, num_classes: int) -> FeatureClassifier:
    """Three convolutions, made for seconds per epoch on a CPU.

    Images of 20 pixels and more are halved twice by strides (28 -> 14 -> 7); 8 x 8 images are halved once.
    """
    first, second = (2, 2) if image_size >= 20 else (1, 2)
    backbone = nn.Sequential(
        *_conv(channels, 24, kernel=5, stride=first),
        *_conv(24, 64, kernel=3, stride=second),
        *_conv(64, 128, kernel=3, stride=1),
    )
    return FeatureClassifier(backbone, 128, num_classes)


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
