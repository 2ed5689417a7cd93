"""Evidence against given labels: for every row the probability that its label is wrong, and of what is right.

Seven files in turn: rows are brought near 1 where floats could not hold their squares (`scaling`), half-whitened
(`whitening`) and compared with landmarks (`landmarks`); a ridge regression predicts every row's label from rows of
other folds (`ridge`); its scores become probabilities, together with the matrix of label noise, by maximum likelihood
(`calibration`, by the steps of `maximization`; where classes are many, near what `one_slope` finds); changes are judged
once more with more doubt (`second_opinion`); and classes whose own clear rows do not bear their name are not trusted
(`trust`). The last three count labels on the clearest rows (`anchors`), the first two of these with priors
(`shrinkage`). docs/evidence.md has the formulas.
"""

from __future__ import annotations

from .estimate import label_evidence
from .result import LabelEvidence

__all__ = ["LabelEvidence", "label_evidence"]
