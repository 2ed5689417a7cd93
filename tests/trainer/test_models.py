"""Networks: shapes, and logits that come from the features."""

from __future__ import annotations

import pytest
import torch
from proto_trainer import ConfigError, build_model


@pytest.mark.parametrize(
    ("name", "image_shape", "dim"),
    [
        ("small-cnn", (1, 8, 8), 64),
        ("small-cnn", (1, 28, 28), 128),
        ("small-cnn", (3, 32, 32), 128),
        ("resnet18", (3, 32, 32), 512),
        ("resnet18", (1, 28, 28), 512),
    ],
)
def test_model_gives_features_and_the_logits_made_from_them(name, image_shape, dim):
    model = build_model(name, num_classes=7, image_shape=image_shape).eval()
    images = torch.randn(5, *image_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, logits = model.features(images), model(images)
        assert features.shape == (5, dim) and logits.shape == (5, 7)
        torch.testing.assert_close(logits, features @ model.head.weight.T + model.head.bias)
        pooled = torch.nn.functional.adaptive_avg_pool2d(model.backbone(images), 1).flatten(1)
        torch.testing.assert_close(features, pooled)


def test_small_cnn_gives_signed_features():
    """Averages of a ReLU's output are all positive, and their cosines too close to 1 to tell classes apart."""
    torch.manual_seed(0)
    model = build_model("small-cnn", num_classes=3, image_shape=(1, 28, 28)).eval()
    with torch.no_grad():
        features = model.features(torch.randn(20, 1, 28, 28))
    assert 0.2 < (features < 0).double().mean() < 0.8


def test_resnet_keeps_torchvisions_layer_names():
    """So that pretrained weights can be loaded under ``backbone.``."""
    import torchvision

    names = set(build_model("resnet18", num_classes=2, image_shape=(3, 32, 32)).state_dict())
    reference = {f"backbone.{name}" for name in torchvision.models.resnet18().state_dict() if not name.startswith("fc")}
    assert names == reference | {"head.weight", "head.bias"}


def test_model_refuses_an_unknown_name():
    with pytest.raises(ConfigError, match=r"model must be one of small-cnn, resnet18.* got 'vgg'"):
        build_model("vgg", num_classes=2, image_shape=(1, 8, 8))
