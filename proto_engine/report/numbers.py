"""The numbers that the report shows, worked out from a correction before anything is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..label_text import encode_labels, labels_digest


@dataclass(frozen=True, eq=False)
class Rows:
    """A correction in plain arrays.

    Attributes
    ----------
    given, suggested : numpy.ndarray of int64, [N]
        Class numbers.
    score, margin : numpy.ndarray of float64, [N]
    issue : numpy.ndarray of float64, [N], or None
        Probability that the given label is wrong.
    probability : numpy.ndarray of float64, [N], or None
        Probability of the suggested label.
    names : list of str, [C]
    digest : str
        What `labels_digest` gives for the given labels.
    """

    given: np.ndarray
    suggested: np.ndarray
    score: np.ndarray
    margin: np.ndarray
    issue: np.ndarray | None
    probability: np.ndarray | None
    names: list[str]
    digest: str

    def __len__(self) -> int:
        return len(self.given)

    @property
    def changed(self) -> np.ndarray:
        """Where the suggested label differs from the given one, bool [N]."""
        return self.given != self.suggested

    def suspects(self) -> np.ndarray:
        """Row numbers, the most suspect first, int64 [N].

        By the probability that the given label is wrong; without it changed rows with the largest margin
        first, unchanged ones with the largest margin last. Rows without a value come last.
        """
        value = np.where(self.changed, self.margin, -self.margin) if self.issue is None else self.issue
        return np.argsort(-np.where(np.isnan(value), -np.inf, value), kind="stable")


def gather(corrections: Any, class_names: Sequence[Any] | None, prototypes: Any) -> Rows:
    """The columns of a correction, checked.

    Raises
    ------
    ValueError
        A column of another length, a probability outside 0 to 1, or prototypes of other classes.
    TypeError
        A column that holds no numbers; what `encode_labels` raises.
    """
    classes = 0 if prototypes is None else int(prototypes.num_classes)
    likely = getattr(corrections, "likely", None)  # a person decides, so that less than certain is welcome
    suggestion = corrections.labels if likely is None else likely
    given, suggested, names = encode_labels(corrections.given, suggestion, class_names, classes)
    if prototypes is not None and len(names) != classes:  # then class c is not prototypes' row c
        raise ValueError(
            f"prototypes: wanted labels that are the numbers of their {classes} classes, got {len(names)} classes; "
            "labels that do not start at 0 or leave numbers out must be numbered first"
        )

    def column(name: str, share: bool = False) -> np.ndarray | None:
        values = getattr(corrections, name, None)
        if values is None:
            return None
        array = to_numpy(values)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"corrections.{name}: wanted numbers, got {array.dtype}")
        if array.shape != given.shape:
            raise ValueError(f"corrections.{name}: wanted shape [{len(given)}], got {list(array.shape)}")
        array = array.astype(np.float64)
        wrong = np.flatnonzero(((array < 0) | (array > 1)) & share)
        if len(wrong):
            raise ValueError(f"corrections.{name}: wanted 0 to 1, row {int(wrong[0])} is {array[wrong[0]]}")
        return array

    nothing = np.full(len(given), np.nan)
    score, margin = column("score"), column("margin")
    return Rows(
        given,
        suggested,
        nothing if score is None else score,
        nothing if margin is None else margin,
        column("issue_score", share=True),
        column("probability", share=True),
        names,
        labels_digest(given, names),
    )


def summary_figures(rows: Rows) -> list[tuple[str, str, str]]:
    """(name, value, explanation) of the figures at the head of the report."""
    changed = rows.changed
    number = int(changed.sum())
    present = int((np.bincount(rows.given, minlength=len(rows.names)) > 0).sum())
    figures = [
        ("rows", f"{len(rows):,}", ""),
        ("classes", f"{len(rows.names):,}", f"{present:,} of them with given labels"),
        ("another label suggested", f"{number:,}", _percent(number, len(rows)) + " of the rows"),
    ]
    if rows.probability is not None:
        right = float(np.nansum(rows.probability[changed]))
        figures.append(("expected right", f"{right:,.0f}", _percent(right, number) + " of the changes"))
    if rows.issue is not None and len(rows):
        before = 1 - float(np.nanmean(rows.issue)) if np.isfinite(rows.issue).any() else np.nan
        figures.append(("label accuracy, estimated", f"{100 * before:.1f} %", "as given"))
        if rows.probability is not None:
            kept = np.where(changed, rows.probability, 1 - rows.issue)
            after = float(np.nanmean(kept)) if np.isfinite(kept).any() else np.nan
            figures.append(("with all suggestions", f"{100 * after:.1f} %", "estimated label accuracy"))
    return figures


@dataclass(frozen=True)
class ClassRow:
    """A class in the table of classes; None where a number is not known."""

    name: str
    size: int
    moved: int
    arrived: int
    noise: float | None
    prototypes: int | None
    purity: float | None
    filtered: float | None


def class_rows(rows: Rows, prototypes: Any) -> list[ClassRow]:
    """What the table of classes shows, a row a class.

    *noise* is the mean probability that a given label of the class is wrong, or where that is not known
    the share of the class that was changed. *purity* is the share of the prototypes that are expected to
    be labeled right: one minus the mean of that probability over them, or the share left unchanged.
    """
    size = len(rows.names)
    count = np.bincount(rows.given, minlength=size)  # [C]
    moved = np.bincount(rows.given[rows.changed], minlength=size)
    arrived = np.bincount(rows.suggested[rows.changed], minlength=size)
    wrong = rows.changed.astype(np.float64) if rows.issue is None else np.nan_to_num(rows.issue)
    noise = np.bincount(rows.given, weights=wrong, minlength=size)
    core = core_rows(rows, prototypes)
    found = [] if prototypes is None else to_numpy(prototypes.counts).tolist()
    filtered = [] if prototypes is None else to_numpy(prototypes.filtered).tolist()
    out = []
    for c in range(size):
        known = c < len(found)
        members = core.get(c, np.empty(0, np.int64))
        out.append(
            ClassRow(
                name=rows.names[c],
                size=int(count[c]),
                moved=int(moved[c]),
                arrived=int(arrived[c]),
                noise=float(noise[c] / count[c]) if count[c] else None,
                prototypes=int(found[c]) if known else None,
                purity=float(1 - wrong[members].mean()) if len(members) else None,
                filtered=float(filtered[c]) if known and np.isfinite(filtered[c]) else None,
            )
        )
    return out


def core_rows(rows: Rows, prototypes: Any) -> dict[int, np.ndarray]:
    """Row numbers of the prototypes of each class; nothing where they are rows of another data set."""
    if prototypes is None:
        return {}
    core = {}
    for c, indices in enumerate(to_numpy(prototypes.indices)):
        members = indices[indices >= 0].astype(np.int64)
        if len(members) and (members.max() >= len(rows) or bool((rows.given[members] != c).any())):
            return {}  # prototypes come from the rows given that class: these were selected elsewhere
        if len(members):
            core[c] = members
    return core


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"
