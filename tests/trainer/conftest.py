"""Small data sets and networks that the trainer's tests share."""

from __future__ import annotations

import pytest
import torch
from proto_trainer import LabelCorrector, make_config
from trainer_problems import PixelModel, clustered_images


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors: a second thread costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def clusters():
    """A data set and a model whose features are the pixels."""
    return clustered_images(), PixelModel()


@pytest.fixture
def digits_config(tmp_path):
    """A run of a few seconds on digits; keyword arguments overrule it."""

    def build(**settings):
        defaults = {"method": "smp", "epochs": 4, "start_epoch": 1, "seed": 3, "batch_size": 64, "device": "cpu"}
        out = settings.pop("out", tmp_path / "run")
        return make_config("digits", out, **{**defaults, **settings})

    return build


@pytest.fixture
def updates(monkeypatch):
    """The epochs for which `update` is called, and what it returns."""
    seen = []
    update = LabelCorrector.update

    def recorded(self, model, dataset, epoch):
        seen.append((epoch, update(self, model, dataset, epoch)))
        return seen[-1][1]

    monkeypatch.setattr(LabelCorrector, "update", recorded)
    return seen
