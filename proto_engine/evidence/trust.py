"""Which classes the evidence may speak about, and whether any label may be changed at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .anchors import MIN_CLASS, Clarity, anchor_labels

TRUST_SHARE = 0.3  # of the rows that a class wins: more than make T, so that a small wrong core cannot pass for all
STANDARD_ERRORS = 3.0  # by which the anchors' own label must lead: chance alone does not
OWN_ERRORS = 1.0  # are enough for a class where the anchors of all classes together lead by three
STARVED = 0.25  # of its size: a class that wins less has lost its rows to another one
TRUSTED_SHARE = 0.5  # of the classes: where fewer hold, labels and features do not belong together
MIN_NOISE = 0.02  # clean label sets of many rows are estimated at .003 to .014; below this, most changes would be wrong
LAPSES_SEEN = 0.75  # of the lapses of the features may pass for noise: 5,000 clean labels are estimated at up to .040
# Where classes overlap by more than this, clear rows are wrong, too: 0.05 of noise is estimated at .10 to .15, and
# mostly right labels would be changed for worse.
MOST_OVERLAP, MIN_NOISE_BEYOND = 0.3, 0.15
MARGIN = 0.4  # by which the suggested label's probability must exceed the given one's
_NAMED = 5  # classes in a message


@dataclass(frozen=True, eq=False)
class Trust:
    """Attributes
    ----------
    trusted : numpy.ndarray of bool, [K]
        The clear rows of the class mostly bear its label, beyond doubt or like those of the other classes, and it wins
        the rows that bear it.
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
        least = max(MIN_NOISE + LAPSES_SEEN * lapses, MIN_NOISE_BEYOND if overlap > MOST_OVERLAP else 0.0)
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
    With n_c anchors of class c, of which a share d bears c and a share o the next most frequent label, the difference
    d - o has a standard error of at most ``sqrt((d + o) / n_c)``. A class is trusted where it leads by three of them.
    Among small classes with much noise hardly any does, although all together leave no doubt: where the sum of
    ``n_c (d - o)`` is three times its own error, ``sqrt(sum n_c (d + o))``, one is enough. Then a class of 40 anchors
    in which another label is ahead by 60 to 40 passes for trusted with a chance of less than 1 in 100.
    """
    counts = anchor_labels(clarity, labels, num_classes, TRUST_SHARE)
    number = counts.sum(axis=1)  # [K]
    shares = counts / number[:, None]
    own = np.diag(shares).copy()
    np.fill_diagonal(shares, 0.0)
    other = shares.max(axis=1)
    lead, error = own - other, np.sqrt((own + other) / number)
    together = number @ lead > STANDARD_ERRORS * np.sqrt(number @ (own + other))
    enough = number >= MIN_CLASS
    trusted = enough & (lead > (OWN_ERRORS if together else STANDARD_ERRORS) * error)
    contradicted = enough & (-lead > STANDARD_ERRORS * error)

    wins = np.bincount(clarity.winner, minlength=num_classes)
    size = np.bincount(labels, minlength=num_classes)
    for c in np.flatnonzero(wins < STARVED * size):
        taker = np.bincount(clarity.winner[labels == c], minlength=num_classes).argmax()
        trusted[[c, taker]] = False  # neither name can be relied on
    return Trust(trusted, contradicted)
