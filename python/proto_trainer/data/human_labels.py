"""Label sets from files beside the images: the human labels of CIFAR-10N and CIFAR-100N."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import ConfigError


def find_label_set(folder: Path, stem: str, column: str) -> dict[str, np.ndarray]:
    """The label set `column`, int64 [N], and ``clean_label`` where the same file has it.

    Parameters
    ----------
    folder : Path
    stem : str
        ``CIFAR-10_human``, say. Looked for are ``STEM.parquet``, ``STEM.csv``, ``STEM.npy`` (a structured
        array) and ``COLUMN.npy`` (one label an image).
    column : str

    Raises
    ------
    ConfigError
        There is no such file, it lacks the column, or does not hold whole numbers.
    """
    for path in (folder / f"{stem}.parquet", folder / f"{stem}.csv", folder / f"{stem}.npy", folder / f"{column}.npy"):
        if path.is_file():
            columns = _read_array(path, column) if path.suffix == ".npy" else _read_frame(path)
            if column not in columns:
                raise ConfigError(f"{path} has no labels {column}, only {', '.join(columns) or 'none'}")
            return {name: _whole(columns[name], path, name) for name in {column, "clean_label"} & columns.keys()}
    message = f"root must hold the labels {column} in {stem}.parquet, {stem}.csv, {stem}.npy or {column}.npy"
    if (folder / f"{stem}.pt").is_file():
        message += (
            f"; {stem}.pt is a pickle, which is never read because reading it can run anything. "
            "Export it once: docs/training.md, 'Data sets', has the lines"
        )
    raise ConfigError(f"{message}; {folder} has none")


def _read_frame(path: Path) -> dict[str, np.ndarray]:
    try:
        frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (ValueError, OSError) as error:  # pandas' parser errors and Arrow's are ValueErrors
        raise ConfigError(f"{path} cannot be read: {error}") from None
    return {str(name): frame[name].to_numpy() for name in frame.columns}


def _read_array(path: Path, column: str) -> dict[str, np.ndarray]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ConfigError(f"{path} cannot be read without unpickling: {error}") from None
    if not isinstance(array, np.ndarray):
        raise ConfigError(f"{path} must hold one array")
    names = array.dtype.names
    return {column: array} if names is None else {name: array[name] for name in names}


def _whole(values: np.ndarray, path: Path, name: str) -> np.ndarray:
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ConfigError(f"{path}: {name} must be whole numbers [N], got {values.dtype} {list(values.shape)}")
    return values.astype(np.int64)
