"""Weights for the backbone from a safetensors file: what is taken, what is refused, how a run knows them."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
import torchvision
from proto_trainer import CheckpointError, ConfigError, build_model, make_config, train
from proto_trainer.pretrained import read_weights

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=7).state_dict()


@pytest.fixture
def save(tmp_path):
    def write(tensors, name="w.safetensors"):
        safetensors.torch.save_file(tensors, tmp_path / name)
        return tmp_path / name

    return write


def build(path, shape=SHAPE, name="resnet18"):
    return build_model(name, num_classes=3, image_shape=shape, weights=read_weights(path))


def test_weights_reach_the_backbone_and_the_classifier_is_left_out(save, state):
    torch.manual_seed(1)
    model = build(save(state))
    torch.manual_seed(1)
    fresh = build_model("resnet18", num_classes=3, image_shape=SHAPE)
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert torch.equal(model.head.weight, fresh.head.weight)  # of our classes, and the same as without weights


def test_weights_may_be_half_precision_and_without_counters_and_classifier(save, state):
    halves = {
        name: tensor.half()
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked") and not name.startswith("fc.")
    }
    model = build(save(halves))
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert torch.equal(model.backbone.conv1.weight, halves["conv1.weight"].float())


def test_wrong_weights_are_listed(save, state):
    changed = {name: tensor for name, tensor in state.items() if not name.startswith("layer4.1.")}
    changed["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    changed["extra.weight"] = torch.zeros(2)
    with pytest.raises(ConfigError) as error:
        build(save(changed))
    message = str(error.value)
    assert "missing: layer4.1.conv1.weight" in message and " more; of another shape:" in message
    assert "conv1.weight [64, 1, 7, 7] (wanted [64, 3, 7, 7])" in message and "unknown: extra.weight" in message
    assert "layer1" not in message and "fc." not in message


def test_weights_of_a_deeper_network_are_refused(save, state):
    deeper = torchvision.models.resnet34(num_classes=2).state_dict()
    with pytest.raises(ConfigError, match=r"unknown: layer1\.2\.bn1\.bias, .* more"):
        build(save(deeper))
    with pytest.raises(ConfigError, match=r"weights are for the models resnet18, .*, got model small-cnn"):
        build(save(state), name="small-cnn")
    with pytest.raises(ConfigError, match=r"of another shape: conv1\.weight \[64, 3, 7, 7\] \(wanted \[64, 1, 7, 7\]"):
        build(save(state), shape=(1, 8, 8))


def test_files_that_are_no_safetensors_are_refused(tmp_path, save, state, digits_config):
    with pytest.raises(ConfigError, match=r"weights cannot be read: .*nowhere\.safetensors: No such file"):
        train(digits_config(weights=tmp_path / "nowhere.safetensors"))
    whole = save(state)
    whole.write_bytes(whole.read_bytes()[:-9])
    with pytest.raises(ConfigError, match="is not a whole one"):
        read_weights(whole)
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "pickled.safetensors")
    with pytest.raises(ConfigError, match="must be a safetensors file"):
        read_weights(tmp_path / "pickled.safetensors")
    with pytest.raises(ConfigError, match=r"must be a \.safetensors file, for nothing is unpickled; got .*\.pth"):
        make_config("digits", tmp_path, weights="resnet18.pth")


def test_run_begins_with_the_weights_and_knows_them_by_their_content(tmp_path, save, digits_config):
    """The file may move between a run and its continuation; it may not change."""
    torch.manual_seed(0)
    net = torchvision.models.resnet18()
    net.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)  # digits are grey
    settings = {"method": "ce", "model": "resnet18", "images": 64, "epochs": 1, "start_epoch": 0, "lr": 0.0}
    first = save(net.state_dict(), "first.safetensors")
    result = train(digits_config(weights=first, **settings))
    assert torch.equal(result.model.backbone.conv1.weight, net.conv1.weight)  # the learning rate is 0
    moved = first.rename(tmp_path / "moved.safetensors")
    assert train(digits_config(weights=moved, **settings), resume=True).rows == result.rows
    net.conv1.weight.data[0] += 1
    other = save(net.state_dict(), "other.safetensors")
    for weights in (other, None):
        with pytest.raises(CheckpointError, match="it has weights_sha256 "):
            train(digits_config(weights=weights, **settings), resume=True)
