"""What a run tells about itself: ``epochs.csv``, TensorBoard scalars, ``corrected.parquet``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import proto_engine as pe

from .data import LabeledImages

logger = logging.getLogger(__name__)

Row = dict[str, Any]
COLUMNS = (
    "epoch", "lr", "loss", "train_accuracy", "test_accuracy", "label_changed", "label_accuracy",
    "train_seconds", "test_seconds", "extract_seconds", "select_seconds", "score_seconds",
)  # fmt: skip


class EpochLog:
    """One row an epoch, in ``epochs.csv`` and as TensorBoard scalars under ``tensorboard/``.

    The CSV file is rewritten whole and atomically, from rows that live in the checkpoint as well: a resumed
    run neither repeats a row nor leaves a gap.

    Parameters
    ----------
    out : Path
    rows : sequence of dict
        The rows of the epochs that are already done.
    """

    def __init__(self, out: Path, rows: Sequence[Row] = ()) -> None:
        self.path = out / "epochs.csv"
        self.rows: list[Row] = list(rows)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            logger.warning("tensorboard is not installed: no scalars are written, epochs.csv has the same numbers")
            self._scalars = None
        else:
            self._scalars = SummaryWriter(str(out / "tensorboard"), purge_step=len(self.rows))

    def add(self, row: Row) -> None:
        """Append the row of an epoch; its keys are `COLUMNS`, None where a value does not exist."""
        self.rows.append(row)
        with pe.atomic_write(self.path) as file:
            file.write(pd.DataFrame(self.rows, columns=list(COLUMNS)).to_csv(index=False).encode())
        if self._scalars is not None:
            for name in COLUMNS[1:]:
                if row[name] is not None:
                    self._scalars.add_scalar(name, row[name], row["epoch"])
            self._scalars.flush()

    def close(self) -> None:
        """Close the TensorBoard file."""
        if self._scalars is not None:
            self._scalars.close()


def write_suggestions(path: Path, corrections: pe.Corrections, dataset: LabeledImages) -> None:
    """Write suggested labels as Parquet, with the image files' paths when the data set has them."""
    frame = corrections.to_frame()
    if dataset.paths is not None:
        frame = frame.assign(path=list(dataset.paths))
    with pe.atomic_write(path) as file:
        frame.to_parquet(file, index=False)
