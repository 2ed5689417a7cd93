"""bfloat16 and compilation: in effect when asked for, reproducible, and without a trace in the names of weights."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from proto_trainer import CheckpointError, ConfigError, NoiseSpec, acceleration, build_model, train
from proto_trainer.acceleration import accelerate
from proto_trainer.features import extract_features
from proto_trainer.models import Backbone, FeatureClassifier
from torch import nn

CPU = torch.device("cpu")


@pytest.fixture
def eager(monkeypatch):
    """Capture the graph, and run it without generating code: no compiler, a fraction of the time."""
    monkeypatch.setattr(acceleration, "BACKEND", "aot_eager")
    yield
    torch.compiler.reset()


@pytest.fixture
def seen(monkeypatch):
    """The number of nodes of each graph that is compiled."""
    sizes: list[int] = []

    def backend(graph, inputs):
        sizes.append(len(graph.graph.nodes))
        return graph

    monkeypatch.setattr(acceleration, "BACKEND", backend)
    yield sizes
    torch.compiler.reset()


def small_model(**settings):
    torch.manual_seed(0)
    model = build_model("small-cnn", num_classes=10, image_shape=(1, 8, 8))
    accelerate(model, CPU, **{"amp": False, "compiled": False, **settings})
    return model


def images(count: int = 6) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


class Interrupted(Exception):
    """Raised by a test after the first epoch."""


def outcome(config, *, interrupted=False):
    """The tensors of the last checkpoint, and the rows without times."""

    def stop(row):
        raise Interrupted

    if interrupted:
        with pytest.raises(Interrupted):
            train(config, on_epoch=stop)
    rows = train(config, resume=interrupted).rows
    facts = json.loads((config.out / "checkpoints" / "last.json").read_bytes())
    tensors = safetensors.torch.load_file(config.out / "checkpoints" / facts["tensors"]["file"])
    return tensors, [{name: row[name] for name in ("loss", "test_accuracy", "label_changed")} for row in rows]


def assert_same(one, other):
    assert one[1] == other[1] and one[0].keys() == other[0].keys()
    assert [name for name in one[0] if not torch.equal(one[0][name], other[0][name])] == []


# bfloat16.


def test_amp_runs_the_backbone_in_bfloat16_and_gives_float32():
    model, dtypes = small_model(amp=True), []
    model.backbone[3].register_forward_hook(lambda module, inputs, result: dtypes.append(result.dtype))
    features = model.features(images())
    logits = model(images())
    assert dtypes == [torch.bfloat16, torch.bfloat16]
    assert features.dtype == logits.dtype == torch.float32
    exact = small_model()(images())
    torch.testing.assert_close(logits, exact, rtol=0.05, atol=0.05)
    assert not torch.equal(logits, exact)
    logits.sum().backward()
    assert {weight.grad.dtype for weight in model.parameters()} == {torch.float32}


def test_amp_is_in_effect_for_extraction_and_copies(clusters):
    model = small_model(amp=True)
    for network in (model, copy.deepcopy(model)):
        bank, _ = extract_features(network, clusters[0])
        assert (bank[:] != extract_features(small_model(), clusters[0])[0][:]).any()


def test_model_without_amp_leaves_a_callers_autocast_alone():
    model, dtypes = small_model(), []
    model.backbone[3].register_forward_hook(lambda module, inputs, result: dtypes.append(result.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        features = model.features(images())
    assert dtypes == [torch.bfloat16] and features.dtype == torch.float32


def test_amp_run_resumes_to_the_same_bits_and_differs_from_float32(digits_config, tmp_path):
    settings = {"noise": NoiseSpec("symmetric", 0.4), "images": 300, "epochs": 2}
    straight = outcome(digits_config(out=tmp_path / "straight", amp=True, **settings))
    assert_same(straight, outcome(digits_config(out=tmp_path / "broken", amp=True, **settings), interrupted=True))
    with pytest.raises(CheckpointError, match=r"amp True \(this run: False\)"):
        train(digits_config(out=tmp_path / "straight", **settings), resume=True)
    assert outcome(digits_config(out=tmp_path / "exact", **settings))[1][0]["loss"] != straight[1][0]["loss"]


def test_amp_needs_a_gpu_that_can(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    with pytest.raises(ConfigError, match="amp needs a GPU that computes in bfloat16, Old GPU does not"):
        accelerate(small_model(), torch.device("cuda"), amp=True, compiled=False)


# Compilation.


@pytest.mark.parametrize("name", ["small-cnn", "resnet18"])
def test_compile_captures_the_whole_backbone_once_a_shape(seen, name):
    torch.manual_seed(0)
    model = build_model(name, num_classes=10, image_shape=(1, 8, 8))
    names = list(model.state_dict())
    exact = copy.deepcopy(model)
    accelerate(model, CPU, amp=False, compiled=True)
    del seen[:]  # the trial's
    for count in (4, 3, 4, 3):
        torch.testing.assert_close(model(images(count)), exact(images(count)))
    assert len(seen) == 2 and min(seen) > len([n for n in names if n.endswith("weight")])  # nodes: inputs and layers
    assert list(model.state_dict()) == names and not any("_orig_mod" in n for n in names)


def test_a_copy_of_a_compiled_network_has_its_own_weights(eager):
    model = small_model(compiled=True)
    model(images())
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.mul_(2)
    assert not torch.allclose(twin(images()), model(images()))


def test_compiled_run_resumes_to_the_same_bits(eager, digits_config, tmp_path):
    """With amp too; the last batch of an epoch is smaller, and so a graph of its own."""
    settings = {"method": "smp", "amp": True, "compile": True, "images": 200, "epochs": 2, "lr": 0.001}
    straight = outcome(digits_config(out=tmp_path / "straight", **settings))
    assert_same(straight, outcome(digits_config(out=tmp_path / "broken", **settings), interrupted=True))
    assert "model/backbone.0.weight" in straight[0]
    with pytest.raises(CheckpointError, match=r"compile True \(this run: False\)"):
        train(digits_config(out=tmp_path / "straight", **{**settings, "compile": False}), resume=True)


def test_compile_without_a_compiler_says_so(tmp_path):
    """In a process of its own: what was looked for once is not looked for again."""
    command = ["--data", "digits", "--method", "ce", "--compile", "--device", "cpu", "--out"]
    environment = {**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "proto_trainer.cli", *command, str(tmp_path / "run")],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "proto-train: error: compile needs a C++ compiler (on a GPU: Triton as well) that works" in done.stderr


def test_compile_does_not_go_with_meta_learning(digits_config):
    with pytest.raises(ConfigError, match="compile does not go with method mlnt"):
        digits_config(method="mlnt", compile=True)


@pytest.mark.slow
def test_generated_code_gives_what_the_network_gives():
    torch.manual_seed(0)
    model = FeatureClassifier(Backbone(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), 4, 10).eval()
    with torch.inference_mode():
        expected = model(images())
        accelerate(model, CPU, amp=False, compiled=True)
        torch.testing.assert_close(model(images()), expected, rtol=1e-5, atol=1e-5)
    torch.compiler.reset()
