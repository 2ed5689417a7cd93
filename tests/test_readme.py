"""What the README shows runs, and its plain-torch equivalent gives what the engine gives."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import clustered

import proto_engine as pe

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL)


def test_first_examples_print_what_the_readme_says(capsys):
    names: dict = {}
    exec(BLOCKS[0], names)
    printed = capsys.readouterr().out.strip()
    assert f"# {printed}" in BLOCKS[0]
    exec(BLOCKS[1], names)  # how many labels change may differ in the last digits from machine to machine
    shares = capsys.readouterr().out.strip().split("; ")[1]
    assert re.fullmatch(r"0\.\d\d -> 0\.\d\d", shares) and f"# {shares}" in BLOCKS[1]


@pytest.mark.parametrize("seed", range(3))
def test_plain_torch_equivalent_gives_the_same_prototypes(seed):
    x, _ = clustered(300, 16, 2, seed=seed)
    unit = torch.nn.functional.normalize(torch.from_numpy(x).double())
    names: dict = {"torch": torch, "x": unit}
    exec(BLOCKS[2], names)
    got = pe.select_prototypes(x, np.zeros(300, int), samples_per_class=None)
    assert got.cutoff[0] == pytest.approx(float(names["cutoff"]), abs=1e-12)
    assert got.indices[0].tolist() == names["picks"].tolist()
