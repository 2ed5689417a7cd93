"""Forward loss correction: let the network predict the truth, and the noise turn it into the given label."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..correction import CorrectionPhase
from ..data import LabeledImages
from ..features import extract_features, model_device
from ..losses import forward_loss
from .ce import CrossEntropy
from .verified import VerifiedLabels

logger = logging.getLogger(__name__)

# Of a column of probabilities the top 3 % are taken for outliers.
_OUTLIER_PERCENTILE = 97


class ForwardCorrection(CrossEntropy):
    """Patrini et al., "Making Deep Neural Networks Robust to Label Noise: A Loss Correction Approach", CVPR 2017.

    The original trains one network with cross-entropy to the end, estimates T from it, and trains a second
    network with the corrected loss. Here both are one run: the epochs before `start_epoch` train with
    cross-entropy, T is estimated once at the start of epoch `start_epoch`, and the same network goes on with
    the corrected loss and the learning rate that the run has reached. This costs half as much, and T comes
    from a network that has not yet memorized the wrong labels.

    With verified labels T is counted, see `count_transition`; the network's estimate then fills in what they
    do not tell.

    Parameters
    ----------
    start_epoch : int
        The first epoch, counted from 0, with the corrected loss; 1 or more.
    verified : sequence of VerifiedLabels
        They should be a random draw of the training images, or of those of each class: T is counted as if.
    batch_size, workers : int
        For the passes over the training images.
    """

    def __init__(
        self, *, start_epoch: int, verified: Sequence[VerifiedLabels] = (), batch_size: int, workers: int = 0
    ) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        self.start_epoch = start_epoch
        self.verified = verified
        self._transition: Tensor | None = None  # float [C, C], on the device of the model

    def before_epoch(self, model: nn.Module, dataset: LabeledImages, epoch: int) -> CorrectionPhase | None:
        """Estimate T, or count it, once."""
        if epoch >= self.start_epoch and self._transition is None:
            probabilities, _ = extract_features(
                model, dataset, features=_softmax, batch_size=self.batch_size, workers=self.workers
            )
            transition = estimate_transition(probabilities)
            if self.verified:
                given = torch.cat([labels.given_in(dataset) for labels in self.verified]).numpy()
                known = torch.cat([labels.known() for labels in self.verified]).numpy()
                shares = np.bincount(dataset.given.numpy(), minlength=len(transition)) / len(dataset)
                transition = count_transition(given, known, transition, shares)
            logger.info("epoch %d: mean diagonal of the noise matrix %.3f", epoch, transition.diagonal().mean())
            self._transition = torch.from_numpy(transition).to(model_device(model), torch.float32)
        return None

    def batch_loss(self, model: nn.Module, images: Tensor, given: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """See `Method.batch_loss`."""
        if self._transition is None:
            return super().batch_loss(model, images, given, index)
        logits = model(images)
        return forward_loss(logits, given, self._transition), logits

    def state_dict(self) -> dict[str, Tensor]:
        """T, once there is one."""
        return {} if self._transition is None else {"transition": self._transition}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See `Method.load_state_dict`."""
        self._transition = state.get("transition")


def _softmax(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).softmax(dim=1)


def estimate_transition(probabilities: np.ndarray) -> np.ndarray:
    """The noise matrix T from what a network that was trained on noisy labels predicts.

    For class i take the image that is most surely of class i, leaving out the outliers: the images whose
    probability of class i lies at or above the 97th percentile. What the network predicts for that image is
    row i. Ties go to the lowest index; when all images are equally sure, the first one is taken.

    Parameters
    ----------
    probabilities : ndarray, float [N, C]
        Is not changed.

    Returns
    -------
    ndarray, float64 [C, C]
        T[i, j] = P(given label j | true class i); rows sum to 1.
    """
    rows = []
    for column in probabilities.T:
        threshold = np.percentile(column, _OUTLIER_PERCENTILE, method="higher")
        below = np.where(column < threshold, column, -1.0)  # a copy: the later classes see the whole column
        rows.append(probabilities[int(below.argmax())])
    transition = np.array(rows, dtype=np.float64)  # [C, C]
    return transition / transition.sum(axis=1, keepdims=True)


def count_transition(given: np.ndarray, known: np.ndarray, estimated: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The noise matrix T from images that somebody has looked at.

    An image whose right label i is known counts 1 for (i, j), j being its given label. One whose given label
    j is only known to be wrong is shared out over the other classes, in the proportion in which they are
    behind a wrong label j by the estimate E and Bayes' rule: it counts
    ``shares_i E_ij / sum_{k != j} shares_k E_kj`` for each (i, j) with i != j. So the diagonal comes from the
    counts alone, and the estimate only says where wrong labels come from, as far as nobody has said it.
    T_ij is the count of (i, j) divided by the sum of row i. A class that no image is known to belong to keeps
    its row of E: there is nothing to set against the wrong labels that were shared out to it.

    Parameters
    ----------
    given : ndarray, int64 [V]
        The given labels of these images.
    known : ndarray, int64 [V]
        Their right labels; -1 where it is only known that the given one is wrong.
    estimated : ndarray, float64 [C, C]
        E, see `estimate_transition`.
    shares : ndarray, float64 [C]
        Of each class among the given labels, in place of the unknown ones among the right labels.

    Returns
    -------
    ndarray, float64 [C, C]
        T[i, j] = P(given label j | true class i); rows sum to 1.
    """
    num_classes = len(estimated)
    certain = known >= 0
    counts = np.bincount(known[certain] * num_classes + given[certain], minlength=num_classes**2)
    counts = counts.reshape(num_classes, num_classes).astype(np.float64)  # [C, C]
    wrong = np.bincount(given[~certain], minlength=num_classes)  # [C]
    behind = shares[:, None] * estimated  # [C, C]
    np.fill_diagonal(behind, 0)
    tiny = np.finfo(np.float64).tiny  # a column of zeros: nobody knows where its wrong labels come from
    shared_out = wrong * behind / np.maximum(behind.sum(axis=0), tiny)
    belongs = counts.sum(axis=1) > 0
    counts = np.where(belongs[:, None], counts + shared_out, estimated)
    return counts / counts.sum(axis=1, keepdims=True)
