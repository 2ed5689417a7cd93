"""What a correction found: for each sample its given label, the suggested one, and how sure that is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import to_numpy
from .exports import save_label_studio, to_cleanlab
from .files import atomic_write, check_ending, csv_quoting
from .notebook import corrections_html

if TYPE_CHECKING:
    import pandas as pd

_ROWS_PER_WRITE = 2**20
OUTPUT_ENDINGS = (".parquet", ".csv")
COLUMNS = ("labels", "given", "score", "margin", "changed", "issue_score", "likely", "probability")


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
    expected_right : float or None
        How many of the changes are expected to be right: the sum of their probabilities. None without evidence.
    note : str or None
        Of the corrections.
    """

    num_samples: int
    num_changed: int
    samples_per_class: np.ndarray
    changed_per_class: np.ndarray
    flows: list[tuple[int, int, int]]
    expected_right: float | None = None
    note: str | None = None

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
        Score of the best class: mean cosine to its prototypes. On evidence alone: ``probability``. NaN, like the
        margin, for rows that are zero or not finite and keep their label.
    margin : array of float, [N]
        Best score minus the second best; infinite with a single class. On evidence alone: how far the most probable
        label leads the given one, ``lead`` of `label_evidence`, which goes by another noise matrix than
        ``probability`` does.
    changed : array of bool, [N]
        Where ``labels`` differs from ``given``: the decision.
    issue_score : array of float64, [N], or None
        Probability that the given label is wrong, see `label_evidence`; None where no evidence was asked for,
        as are the other two.
    likely : array of int64, [N], or None
        The most probable label, whether or not it was decided to change to it.
    probability : array of float64, [N], or None
        Its probability; of another label than the given one a careful estimate, see `LabelEvidence`.
    note : str or None
        Why no label was allowed to change, where something stood against it.
    """

    labels: Any
    given: Any
    score: Any
    margin: Any
    changed: Any
    issue_score: Any = None
    likely: Any = None
    probability: Any = None
    note: str | None = None

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
            Columns ``index, given_label, suggested_label, score, margin, changed``, and with evidence
            ``issue_score, likely_label, probability``; one row a sample. ``suggested_label`` is the decision:
            the given label where ``changed`` is false.

        Raises
        ------
        ValueError
            Fewer class names than labels ask for.
        """
        return self._frame(0, len(self), self.names_of(class_names))

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
        names = self.names_of(class_names)
        if ending == ".csv":
            with atomic_write(path, "w") as file:
                quoting = csv_quoting(() if names is None else map(str, names))
                for position, frame in enumerate(self._frames(names)):
                    frame.to_csv(file, index=False, header=position == 0, lineterminator="\n", quoting=quoting)
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
            expected_right=self.expected_right,
            note=self.note,
        )

    @property
    def expected_right(self) -> float | None:
        """How many of the changes are expected to be right; None without evidence."""
        if self.probability is None:
            return None
        return float(to_numpy(self.probability)[to_numpy(self.changed)].sum())

    def to_cleanlab(self) -> pd.DataFrame:
        """The table that cleanlab gives for label issues, see `proto_engine.exports.to_cleanlab`."""
        return to_cleanlab(self)

    def save_label_studio(self, path: str | os.PathLike[str], images: Sequence[str], **options: Any) -> int:
        """Write tasks for Label Studio, see `proto_engine.exports.save_label_studio`."""
        return save_label_studio(self, path, images, **options)

    def _repr_html_(self) -> str:
        """What a notebook shows: numbers, the largest changes, and three figures."""
        return corrections_html(self)

    def _largest_label(self, what: str) -> int:
        columns = [to_numpy(labels) for labels in (self.given, self.labels, self.likely) if labels is not None]
        if any(labels.dtype.kind not in "iu" for labels in columns):
            raise TypeError(f"{what}: wanted integer labels, got {' and '.join(str(c.dtype) for c in columns[:2])}")
        return max(int(labels.max(initial=-1)) for labels in columns)

    def names_of(self, class_names: Sequence[Any] | None) -> np.ndarray | None:
        """The class names as an array that labels index, [C]; None without names. Raises ValueError for too few."""
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
        columns = {
            "index": np.arange(start, stop),
            "given_label": given if names is None else names[given],
            "suggested_label": labels if names is None else names[labels],
            "score": to_numpy(self.score[start:stop]),
            "margin": to_numpy(self.margin[start:stop]),
            "changed": to_numpy(self.changed[start:stop]),
        }
        if self.issue_score is not None:
            likely = to_numpy(self.likely[start:stop])
            columns["issue_score"] = to_numpy(self.issue_score[start:stop])
            columns["likely_label"] = likely if names is None else names[likely]
            columns["probability"] = to_numpy(self.probability[start:stop])
        return pd.DataFrame(columns)

    def _frames(self, names: np.ndarray | None) -> Iterator[pd.DataFrame]:
        """The table a bounded number of rows at a time: strings take far more room than labels."""
        for start in range(0, max(len(self), 1), _ROWS_PER_WRITE):
            yield self._frame(start, min(start + _ROWS_PER_WRITE, len(self)), names)
