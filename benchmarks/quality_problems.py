"""Banks with given labels and a known truth: from files, or from images with noise made on purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from image_banks import cached, filter_bank, train_network
from proto_trainer import ConfigError, NoiseSpec, add_noise, load_dataset

BANKS = ("filters", "network")
RECIPE = 1  # of the banks: a cached file of another one is not taken
_NETWORK_EPOCHS = 2


@dataclass(frozen=True)
class Problem:
    """What the methods are given, and the truth that they are measured by.

    Attributes
    ----------
    data, bank : str
        Names in the tables.
    setting : str
        Where the labels come from: a noise, or a column of a file.
    noise_seed : int or None
        None where labels are not drawn.
    digest : str
        Tells files of the same name apart; "" where names and seeds say it all.
    features : ndarray, float [N, D]
    labels, truth : ndarray, int64 [N]
    num_classes : int
    pixels : ndarray, uint8 [N, channels, height, width], or None
    """

    data: str
    bank: str
    setting: str
    noise_seed: int | None
    digest: str
    features: np.ndarray
    labels: np.ndarray
    truth: np.ndarray
    num_classes: int
    pixels: np.ndarray | None = None

    def __str__(self) -> str:
        seed = "" if self.noise_seed is None else f", noise seed {self.noise_seed}"
        return f"{self.data} ({self.bank}), {self.setting}{seed}"


def from_files(
    name: str, features: Path, labels: Path, truth_column: str, columns: Sequence[str], images: int | None = None
) -> list[Problem]:
    """A bank in an ``.npy`` file with label columns in a Parquet file; `images`: the first so many rows.

    Raises
    ------
    ConfigError
        A column that is not there, or not one label for each row of features.
    """
    import pyarrow.parquet as pq

    bank = np.load(features, allow_pickle=False)[:images]
    wanted = list(dict.fromkeys([truth_column, *columns]))
    there = pq.read_schema(labels).names
    if missing := [column for column in wanted if column not in there]:
        raise ConfigError(f"labels: wanted the columns {', '.join(missing)}, got a file with {', '.join(there)}")
    table = pq.read_table(labels, columns=wanted).to_pandas()
    truth = table[truth_column].to_numpy(np.int64)[:images]
    if len(truth) != len(bank):
        raise ConfigError(f"labels: wanted one for each of the {len(bank)} rows of features, got {len(truth)}")
    found = []
    for column in columns:
        given = table[column].to_numpy(np.int64)[:images]
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in (bank, truth, given)))
        classes = int(max(truth.max(), given.max())) + 1
        found.append(Problem(name, features.stem, column, None, digest.hexdigest()[:12], bank, given, truth, classes))
    return found


def from_images(
    data: str,
    root: Path | None,
    bank: str,
    noises: Sequence[str],
    seed: int,
    cache: Path,
    images: int | None = None,
) -> Iterator[Problem]:
    """A data set of the trainer with noise drawn by `seed`, and a bank made of its images, kept in `cache`.

    Raises
    ------
    ConfigError
        No such data, or no such noise.
    """
    train_set = load_dataset(data, root, images=images).train
    pixels = train_set.pixels().reshape(-1, *train_set.image_shape)
    kept = f"{data}_{len(pixels)}_recipe{RECIPE}"
    for text in noises:
        noise = NoiseSpec.parse(text)
        given = add_noise(train_set, noise, seed).given.numpy()
        if bank == "filters":
            features = cached(cache / f"filters_{kept}.npy", lambda: filter_bank(pixels))
        else:
            features = cached(
                cache / f"network_{kept}_{text.replace(':', '_')}_{seed}.npy",
                lambda given=given: train_network(pixels, given, train_set.num_classes, seed, _NETWORK_EPOCHS)[1],
            )
        truth = train_set.given.numpy() if train_set.truth is None else train_set.truth.numpy()
        noise_seed = None if noise is None else seed
        yield Problem(data, bank, text, noise_seed, "", features, given, truth, train_set.num_classes, pixels)
