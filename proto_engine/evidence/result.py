"""What the evidence says, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .trust import MARGIN


@dataclass(frozen=True, eq=False)
class LabelEvidence:
    """For every row: how likely its given label is wrong, and which label is most probable.

    Rows of classes with fewer than 20 usable rows, and with ``on_bad_rows="keep-label"`` rows that are zero or not
    finite, were not judged: their ``issue_score`` and ``lead`` are 0, ``suggested`` is the given label and
    ``probability`` 1.

    Attributes
    ----------
    given : numpy.ndarray of int64, [N]
        The labels that went in.
    issue_score : numpy.ndarray of float64, [N]
        Estimated probability that the given label is wrong.
    suggested : numpy.ndarray of int64, [N]
        The most probable label, often the given one.
    probability : numpy.ndarray of float64, [N]
        Of the suggested label. For another label than the given one it is a careful estimate, by the label noise among
        the clearest rows and with the more doubt the fewer rows there are and the more alike the classes; at most
        ``issue_score``.
    lead : numpy.ndarray of float64, [N]
        By how much the suggested label is more probable than the given one, both by the label noise of all rows; 0
        where they are the same.
    judged : numpy.ndarray of int64, [K]
        Classes that were judged, ascending: those with 20 usable rows.
    judged_noise : numpy.ndarray of float64, [K, K]
        ``T[true, given]`` between them: how often rows of a class are given each label. Rows sum to 1.
    noise : float
        Estimated share of wrong labels among the rows of trusted classes; 0 without any.
    trusted : numpy.ndarray of bool, [C]
        Classes whose clear rows mostly bear their own label. Only between these are labels changed.
    reason : str or None
        Why no label may be changed, in one sentence; None when labels may.
    usable : numpy.ndarray of bool, [N]
        Rows that are finite and not all zero.
    """

    given: np.ndarray
    issue_score: np.ndarray
    suggested: np.ndarray
    probability: np.ndarray
    lead: np.ndarray
    judged: np.ndarray
    judged_noise: np.ndarray
    noise: float
    trusted: np.ndarray
    reason: str | None
    usable: np.ndarray

    def __len__(self) -> int:
        return len(self.given)

    @cached_property
    def noise_matrix(self) -> np.ndarray:
        """``judged_noise`` among all classes, [C, C]; the others have a one on the diagonal.

        Made when it is asked for: it takes ``8 C**2`` bytes, however few rows there are.
        """
        matrix = np.eye(len(self.trusted))
        matrix[np.ix_(self.judged, self.judged)] = self.judged_noise
        return matrix

    def confident(self) -> np.ndarray:
        """Rows whose label the default policy changes.

        Another label leads the given one by over 0.4, is also more probable than not by the careful ``probability``,
        both classes are trusted, and there is no ``reason`` to change none.

        Returns
        -------
        numpy.ndarray of bool, [N]
        """
        if self.reason is not None:
            return np.zeros(len(self), dtype=bool)
        between = self.trusted[self.suggested] & self.trusted[self.given]
        return (self.suggested != self.given) & (self.lead > MARGIN) & (self.probability > 0.5) & between

    def expected_right(self, changed: np.ndarray) -> float:
        """Share of these rows whose suggested label is expected to be right.

        Parameters
        ----------
        changed : array of bool, [N]
            For instance `confident`.

        Returns
        -------
        float
            Mean probability of the suggested labels; NaN without any row.

        Raises
        ------
        TypeError, ValueError
            Not N booleans.
        """
        rows = np.asarray(changed)
        if rows.dtype != np.bool_:
            raise TypeError(f"changed: wanted booleans, got {rows.dtype}")
        if rows.shape != (len(self),):
            raise ValueError(f"changed: wanted one entry a row, [{len(self)}], got shape {rows.shape}")
        return float(self.probability[rows].mean()) if rows.any() else float("nan")
