"""What a correction found: for each sample its given label, the suggested one, and how sure that is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import to_numpy
from .files import atomic_write, check_ending
from .notebook import corrections_html

if TYPE_CHECKING:
    import pandas as pd

_ROWS_PER_WRITE = 2**20
OUTPUT_ENDINGS = (".parquet", ".csv")


@dataclass(frozen=True)
class CorrectionSummary:
    """Counts over a whole set of corrections.

    Attributes
    ----------
    num_samples, num_changed : int
        All samples, and those whose label was changed.
    samples_per_class, changed_per_class : numpy.ndarray of int64, [C]
        By given label.
    flows : list of (int, int, int)
        (given label, suggested label, number of samples), largest first, ties by label.
    """

    num_samples: int
    num_changed: int
    samples_per_class: np.ndarray
    changed_per_class: np.ndarray
    flows: list[tuple[int, int, int]]

    @property
    def share_changed(self) -> float:
        """``num_changed / num_samples``; 0 without samples."""
        return self.num_changed / self.num_samples if self.num_samples else 0.0


@dataclass(frozen=True, eq=False)
class Corrections:
    """The outcome of a label correction, one entry a sample, in the order of the features.

    Attributes
    ----------
    labels : array of int64, [N]
        Corrected labels. A numpy array, tensor or CuPy array, whichever the features were.
    given : array of int64, [N]
        The labels that went in.
    score : array of float, [N]
        Score of the best class: mean cosine to its prototypes.
    margin : array of float, [N]
        Best score minus the second best; infinite with a single class.
    changed : array of bool, [N]
        Where ``labels`` differs from ``given``.
    """

    labels: Any
    given: Any
    score: Any
    margin: Any
    changed: Any

    def __len__(self) -> int:
        return len(self.labels)

    def to_frame(self, class_names: Sequence[Any] | None = None) -> pd.DataFrame:
        """The corrections as a table.

        Parameters
        ----------
        class_names : sequence, optional
            Name of each class; the label columns then hold names.

        Returns
        -------
        pandas.DataFrame
            Columns ``index, given_label, suggested_label, score, margin, changed``, one row a sample.

        Raises
        ------
        ValueError
            Fewer class names than labels ask for.
        """
        return self._frame(0, len(self), self._names(class_names))

    def save(self, path: str | os.PathLike[str], class_names: Sequence[Any] | None = None) -> None:
        """Write the table of `to_frame` to a Parquet or CSV file, all of it or nothing.

        Parameters
        ----------
        path : str or os.PathLike
            Ends in ``.parquet`` or ``.csv``.
        class_names : sequence, optional
            As in `to_frame`.

        Raises
        ------
        ValueError
            Another ending, or fewer class names than labels ask for.
        OSError
            The file cannot be written.
        """
        ending = check_ending(path, OUTPUT_ENDINGS, "path")
        names = self._names(class_names)
        if ending == ".csv":
            with atomic_write(path, "w") as file:
                for position, frame in enumerate(self._frames(names)):
                    frame.to_csv(file, index=False, header=position == 0, lineterminator="\n")
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        frames = (pa.Table.from_pandas(frame, preserve_index=False) for frame in self._frames(names))
        first = next(frames)
        with atomic_write(path) as file, pq.ParquetWriter(file, first.schema) as writer:
            writer.write_table(first)
            for table in frames:
                writer.write_table(table)

    def summary(self, num_classes: int | None = None) -> CorrectionSummary:
        """Count what was changed.

        Parameters
        ----------
        num_classes : int, optional
            C; by default one more than the largest label.

        Raises
        ------
        TypeError
            The labels are not integers.
        ValueError
            A label is not below ``num_classes``.
        """
        largest = self._largest_label("summary")
        num_classes = largest + 1 if num_classes is None else num_classes
        if largest >= num_classes:
            raise ValueError(f"num_classes: wanted more than the largest label {largest}, got {num_classes}")
        given, labels, changed = to_numpy(self.given), to_numpy(self.labels), to_numpy(self.changed)
        moved = given[changed].astype(np.int64) * num_classes + labels[changed]
        pairs, counts = np.unique(moved, return_counts=True)  # sorted, so that ties keep label order
        order = np.argsort(-counts, kind="stable")
        return CorrectionSummary(
            num_samples=len(given),
            num_changed=int(changed.sum()),
            samples_per_class=np.bincount(given, minlength=num_classes),
            changed_per_class=np.bincount(given[changed], minlength=num_classes),
            flows=[(int(pairs[k]) // num_classes, int(pairs[k]) % num_classes, int(counts[k])) for k in order],
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: numbers, the largest changes, and three figures."""
        return corrections_html(self)

    def _largest_label(self, what: str) -> int:
        given, labels = to_numpy(self.given), to_numpy(self.labels)
        if given.dtype.kind not in "iu" or labels.dtype.kind not in "iu":
            raise TypeError(f"{what}: wanted integer labels, got {given.dtype} and {labels.dtype}")
        return int(max(given.max(initial=-1), labels.max(initial=-1)))

    def _names(self, class_names: Sequence[Any] | None) -> np.ndarray | None:
        if class_names is None:
            return None
        names = np.array(list(class_names), dtype=object)
        largest = self._largest_label("class_names")
        if largest >= len(names):
            raise ValueError(f"class_names: wanted a name for each label up to {largest}, got {len(names)} names")
        return names

    def _frame(self, start: int, stop: int, names: np.ndarray | None) -> pd.DataFrame:
        import pandas as pd

        given, labels = to_numpy(self.given[start:stop]), to_numpy(self.labels[start:stop])
        return pd.DataFrame(
            {
                "index": np.arange(start, stop),
                "given_label": given if names is None else names[given],
                "suggested_label": labels if names is None else names[labels],
                "score": to_numpy(self.score[start:stop]),
                "margin": to_numpy(self.margin[start:stop]),
                "changed": to_numpy(self.changed[start:stop]),
            }
        )

    def _frames(self, names: np.ndarray | None) -> Iterator[pd.DataFrame]:
        """The table a bounded number of rows at a time: strings take far more room than labels."""
        for start in range(0, max(len(self), 1), _ROWS_PER_WRITE):
            yield self._frame(start, min(start + _ROWS_PER_WRITE, len(self)), names)
