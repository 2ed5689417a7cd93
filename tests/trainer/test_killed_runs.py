"""A run that SIGKILL ends, in whatever phase, goes on to the same bits as an undisturbed one."""

from __future__ import annotations

import json

import pytest
from killed_runs import CLEANNET_STEPS, KilledRuns
from proto_trainer import NoiseSpec, add_noise, cli, load_dataset
from proto_trainer.methods import cleannet_net
from proto_trainer.seeding import derive_seed
from test_resume import assert_same_outcome

IMAGES = 120
BASICS = (
    f"--data digits --images {IMAGES} --noise symmetric:0.4 --seed 3 --batch-size 40 --device cpu "
    "--epochs 3 --start-epoch 1 --clean-epochs 2"
)  # epochs 0 to 2 have three batches each, 3 and 4 are fine-tuning with two batches each

# Where to kill, coming by there for which time since the start or the last kill, and the last epoch that must have a
# whole checkpoint by then. Epoch 1 is the first that does more than cross-entropy.
BATCH = [("batch", 2, 0)]
LATER = [
    ("tensors", 1, 0),
    ("batch", 7, 2),  # the first of fine-tuning
    ("tensors", 2, 3),
]
CORRECTION = [
    ("log", 1, None),  # epoch 0 was trained, but not saved
    ("extraction", 1, 0),
    ("selection", 1, 0),
    ("scoring", 1, 0),
    ("suggestions", 1, 0),
]
CASES = {
    "--method ce": [("batch", 5, 0), ("log", 1, 0), ("pointer", 1, 0), *LATER],
    "--method forward": [("extraction", 1, 0), *BATCH, *LATER],
    "--method joint": [("batch", 5, 0), *LATER],
    "--method mlnt": [("batch", 5, 0), *LATER],
    "--method cleannet-hard --verified V": [("extraction", 1, 0), *BATCH, *LATER],
    "--method cleannet-soft --verified V": [("extraction", 1, 0), *BATCH],
    "--method smp": [*CORRECTION, *BATCH, *LATER],
    "--method smp --verified V": [("selection", 1, 0), *BATCH, *LATER],
    "--method smp --selector kmeans++": [("selection", 1, 0), *BATCH],
    "--method smp --selector density-peaks-euclidean": [("selection", 1, 0), *BATCH],
}


@pytest.fixture(scope="module")
def killed_runs():
    with KilledRuns() as runs:
        yield runs


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Verified labels of every third image, right labels of every second."""
    folder = tmp_path_factory.mktemp("labels")
    train_set = add_noise(
        load_dataset("digits", images=IMAGES).train, NoiseSpec("symmetric", 0.4), derive_seed(3, "noise")
    )
    right = (train_set.given == train_set.truth).long().tolist()
    verified, clean = folder / "verified.csv", folder / "clean.csv"
    verified.write_text("index,correct\n" + "".join(f"{i},{right[i]}\n" for i in range(0, IMAGES, 3)))
    clean.write_text("index,label\n" + "".join(f"{i},{train_set.truth[i]}\n" for i in range(0, IMAGES, 2)))
    return {"verified": str(verified), "clean": str(clean)}


@pytest.mark.parametrize("options", CASES)
def test_run_killed_in_every_phase_in_turn_ends_with_the_same_bits(killed_runs, tmp_path, files, monkeypatch, options):
    monkeypatch.setattr(cleannet_net, "_STEPS", CLEANNET_STEPS)
    command = [*BASICS.split(), *options.replace(" V", f" {files['verified']}").split(), "--clean", files["clean"]]
    assert cli.main([*command, "--out", str(tmp_path / "straight")]) == 0
    out = tmp_path / "killed"
    for place, count, saved in CASES[options]:
        killed_runs.run([*command, "--out", str(out), "--resume"], place, count)
        pointer = out / "checkpoints" / "last.json"
        last = json.loads(pointer.read_bytes())["epoch"] if pointer.exists() else None
        assert last == saved, f"{last} is the last epoch saved before the kill at {place} {count}, not {saved}"
    assert cli.main([*command, "--out", str(out), "--resume"]) == 0
    assert_same_outcome(tmp_path / "straight", out)
    assert [path.name for path in out.rglob("*.tmp")] == []  # what was half written is gone
