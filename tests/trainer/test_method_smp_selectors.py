"""Self-learning with each way to pick prototypes."""

from __future__ import annotations

import pandas as pd
import pytest
from proto_trainer import ConfigError, LabelCorrector, NoiseSpec, cli, make_config, train
from proto_trainer.config import SELECTORS
from proto_trainer.methods import build_method
from proto_trainer.seeding import derive_seed
from test_resume import Interrupted, assert_same_outcome, stop_after

import proto_engine as pe


@pytest.mark.parametrize("selector", SELECTORS)
def test_selector_decides_the_prototypes(clusters, monkeypatch, selector):
    """The corrected labels are those of the prototypes that the engine picks under this name."""
    dataset, model = clusters
    seen = []
    select = pe.select_prototypes

    def spy(*args, **kwargs):
        seen.append(select(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(pe, "select_prototypes", spy)
    corrector = LabelCorrector(num_classes=4, start_epoch=0, prototypes_per_class=3, eta_max=2.0, selector=selector)
    phase = corrector.update(model, dataset, 0)
    bank = dataset.plain()[list(range(len(dataset)))][0].flatten(1).numpy()
    seed = derive_seed(0, "pools", 0)
    wanted = select(bank, dataset.given.numpy(), prototypes_per_class=3, eta_max=2.0, method=selector, seed=seed)
    assert (seen[0].indices == wanted.indices).all()
    assert (phase.corrections.labels == dataset.truth.numpy()).mean() > 0.95


def test_selector_of_the_config_reaches_the_corrector(tmp_path):
    for selector in SELECTORS:
        method = build_method(make_config("digits", tmp_path, selector=selector), 10)
        assert method.corrector.selection["method"] == selector
    with pytest.raises(ConfigError, match=r"selector must be one of density-peaks, .*, got 'magic'"):
        make_config("digits", tmp_path, selector="magic")


@pytest.mark.parametrize("selector", SELECTORS[1:])
def test_selector_resumes_to_the_same_bits_on_digits(digits_config, tmp_path, selector):
    settings = {"selector": selector, "epochs": 3, "noise": NoiseSpec("symmetric", 0.4), "samples_per_class": 60}
    train(digits_config(out=tmp_path / "straight", **settings))
    config = digits_config(out=tmp_path / "broken", **settings)
    with pytest.raises(Interrupted):
        train(config, on_epoch=stop_after(1))
    train(config, resume=True)
    assert_same_outcome(tmp_path / "straight", tmp_path / "broken")


def test_command_takes_a_selector(tmp_path):
    out = tmp_path / "run"
    options = "--data digits --device cpu --epochs 2 --start-epoch 1 --selector kmeans++ --samples-per-class 60 --out"
    assert cli.main([*options.split(), str(out)]) == 0
    assert pd.read_csv(out / "epochs.csv")["select_seconds"].notna().tolist() == [False, True]
