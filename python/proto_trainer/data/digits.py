"""The 8 x 8 handwritten digits that come with scikit-learn: 1,797 images, nothing to download."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits as sklearn_digits
from sklearn.model_selection import train_test_split

from .base import Splits
from .tensor import tensor_splits

# A quarter. The split is fixed: runs with different seeds are tested on the same images.
TEST_IMAGES = 450


def load_digits() -> Splits:
    """1,347 training and 450 test images, uint8 [1, 8, 8], 10 classes."""
    digits = sklearn_digits()
    images = torch.from_numpy(digits.images * 15).to(torch.uint8).unsqueeze(1)  # 0..16 -> 0..240, [N, 1, 8, 8]
    labels = torch.from_numpy(digits.target).to(torch.int64)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_IMAGES, stratify=digits.target, random_state=0
    )
    names = [str(name) for name in digits.target_names]
    return tensor_splits((images[train], labels[train]), (images[test], labels[test]), names)
