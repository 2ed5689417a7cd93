"""Which classes the evidence may speak about, and whether any label may be changed at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .anchors import MIN_CLASS, Clarity, anchor_labels

TRUST_SHARE = 0.3  # of the rows that a class wins: more than make T, so that a small wrong core cannot pass for all
STANDARD_ERRORS = 3.0  # by which the anchors' own label must lead: chance alone does not
OWN_ERRORS = 1.0  # are enough for a class that could hardly lead by three if it were like the others, which surely do
REACHED = 5.0  # errors: a class with such a lead is seen to lead by three, but for one time in 40
STARVED = 0.25  # of its size: a class that wins less has lost its rows to another one
TRUSTED_SHARE = 0.5  # of the classes: where fewer hold, labels and features do not belong together
MIN_NOISE = 0.02  # clean label sets of many rows are estimated at .003 to .014; below this, most changes would be wrong
LAPSES_SEEN = 0.75  # of the lapses of the features may pass for noise, so that more noise is estimated of fewer rows
# Where classes overlap by more than this, clear rows are wrong, too, and right labels would be changed: the least noise
# rises by twice of what is above.
MOST_OVERLAP, RISE = 0.3, 2.0
MARGIN = 0.4  # by which the suggested label's probability must exceed the given one's
_NAMED = 5  # classes in a message


@dataclass(frozen=True, eq=False)
class Trust:
    """Attributes
    ----------
    trusted : numpy.ndarray of bool, [K]
        The clear rows of the class mostly bear its label, by three standard errors, or by one where a small class could
        not lead by three; and it wins the rows that bear it.
    contradicted : numpy.ndarray of bool, [K]
        The clear rows of the class mostly bear one other label.
    """

    trusted: np.ndarray
    contradicted: np.ndarray

    def objection(self, noise: float, overlap: float, lapses: float, names: np.ndarray) -> str | None:
        """Why no label may be changed; None when labels may.

        Parameters
        ----------
        noise : float
            Estimated share of wrong labels.
        overlap, lapses : float
            Share of rows that the features are expected to be wrong about, and share that they are sure and wrong
            about.
        names : numpy.ndarray of int64, [K]
            The classes' own numbers.
        """
        if self.contradicted.any():
            wrong = names[self.contradicted]
            listed = ", ".join(map(str, wrong[:_NAMED])) + (", ..." if len(wrong) > _NAMED else "")
            return (
                f"the clearest rows of {'class' if len(wrong) == 1 else 'classes'} {listed} mostly bear another label"
            )
        if self.trusted.mean() < TRUSTED_SHARE:
            return f"only {self.trusted.sum()} of {len(names)} classes have clear rows that mostly bear their own label"
        least = MIN_NOISE + LAPSES_SEEN * lapses + RISE * max(0.0, overlap - MOST_OVERLAP)
        if noise < least:
            return (
                f"the estimated share of wrong labels, {noise:.3f}, is below {least:.3f}: "
                "too few to be told from errors of the features"
            )
        return None


def judge(clarity: Clarity, labels: np.ndarray, num_classes: int) -> Trust:
    """Judge every class by the labels of its anchors and by the rows that it wins.

    Parameters
    ----------
    clarity : Clarity
        Of n rows.
    labels : numpy.ndarray of int64, [n]
        Given labels, 0 to K - 1, each at least once.
    num_classes : int
        K.

    Notes
    -----
    With n_c anchors of class c, of which a share d bears c and a share o the next most frequent label, the lead d - o
    has a standard error of at most ``sqrt((d + o) / n_c)``. A class is trusted where it leads by three of them. A small
    class with much noise hardly can, although all classes together leave no doubt. So one is enough where the other
    classes together lead by three of their errors, but by less than five of this class's: if it were like them, it
    might well miss three. A class of 40 anchors in which another label is ahead by 60 to 40 then passes with a chance
    of 1 in 120, and one in which two labels are even with 1 in 7.
    """
    counts = anchor_labels(clarity, labels, num_classes, TRUST_SHARE)
    number = counts.sum(axis=1)  # [K]
    own = np.diag(counts).copy()
    np.fill_diagonal(counts, 0.0)
    other = counts.max(axis=1)
    lead, variance = own - other, own + other  # all in anchors, n_c times what the notes have
    error = np.sqrt(variance)
    ahead, spread = lead.sum() - lead, np.sqrt(variance.sum() - variance)  # of the other classes together
    like_them = ahead * number / (number.sum() - number)  # its lead if the class were like the others
    small = (ahead > STANDARD_ERRORS * spread) & (like_them < REACHED * error)
    enough = number >= MIN_CLASS
    trusted = enough & (lead > np.where(small, OWN_ERRORS, STANDARD_ERRORS) * error)
    contradicted = enough & (-lead > STANDARD_ERRORS * error)

    wins = np.bincount(clarity.winner, minlength=num_classes)
    size = np.bincount(labels, minlength=num_classes)
    for c in np.flatnonzero(wins < STARVED * size):
        taker = np.bincount(clarity.winner[labels == c], minlength=num_classes).argmax()
        trusted[[c, taker]] = False  # neither name can be relied on
    return Trust(trusted, contradicted)
