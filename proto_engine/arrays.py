"""Checks of what callers pass in: features, labels.

numpy in, numpy out; torch or CuPy in, the same out on the same device; anything with ``__dlpack__`` on the CPU
is read without a copy and answered with numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .array_kinds import ArrayKind, has_float_dtype, is_cupy, is_tensor, readable, to_numpy
from .bank import FeatureBank

__all__ = ["MOST_CLASSES", "ArrayKind", "as_bank", "as_labels", "as_matrix", "kind_of", "to_numpy"]

MOST_CLASSES = 2**24  # a few numbers are kept of each; beyond this, labels are row numbers or hashes, not classes
_KDLCPU = 1  # DLPack's number for host memory


def kind_of(x: Any) -> ArrayKind:
    """The kind in which results computed from ``x`` are given back."""
    return x.kind if isinstance(x, FeatureBank) else ArrayKind.of(x)


def as_matrix(x: Any, name: str) -> Any:
    """Check a matrix of features and return it as a numpy array, torch tensor or CuPy array, without a copy.

    Parameters
    ----------
    x : array, [N, D]
        numpy, torch, CuPy, an object with ``__dlpack__`` on the CPU, or nested lists of floats.
    name : str
        The argument's name, for the message.

    Raises
    ------
    TypeError
        Not an array, or its elements are not float16, bfloat16, float32 or float64; what `readable` raises.
    ValueError
        Not two-dimensional, without rows or columns, with masked entries, or on a device that cannot be read here.
    """
    x = readable(x, name)
    if not (is_tensor(x) or is_cupy(x)):
        x = _as_numpy(x, name)
    if not has_float_dtype(x):
        raise TypeError(f"{name}: wanted float16, bfloat16, float32 or float64, got {x.dtype}")
    if len(x.shape) != 2 or 0 in tuple(x.shape):
        raise ValueError(f"{name}: wanted [N, D] with N, D >= 1, got shape {tuple(x.shape)}")
    return x


def as_bank(x: Any, name: str = "features") -> FeatureBank:
    """`FeatureBank` around whatever the caller passed; errors as in `as_matrix`."""
    return x if isinstance(x, FeatureBank) else FeatureBank(as_matrix(x, name))


def as_labels(labels: Any, num_samples: int, num_classes: int | None, name: str = "labels") -> np.ndarray:
    """Check integer labels and return them as int64 [N].

    Raises
    ------
    TypeError
        Not integers.
    ValueError
        Not one-dimensional, another length than ``num_samples``, negative, or not below ``num_classes`` or, without
        it, `MOST_CLASSES`.
    """
    array = to_numpy(labels, name)
    if array.ndim != 1:
        raise ValueError(f"{name}: wanted one dimension [N], got shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: wanted integers, got {array.dtype}")
    if len(array) != num_samples:
        raise ValueError(f"{name}: wanted {num_samples} entries, one a row of features, got {len(array)}")
    if array.min() < 0:
        first = int(np.flatnonzero(array < 0)[0])
        raise ValueError(f"{name}: wanted 0 or more, got {array[first]} at row {first}")
    limit = MOST_CLASSES if num_classes is None else num_classes
    if array.max() >= limit:
        first = int(np.flatnonzero(array >= limit)[0])
        wanted = "" if num_classes is None else "num_classes = "
        raise ValueError(f"{name}: wanted less than {wanted}{limit}, got {array[first]} at row {first}")
    return array.astype(np.int64, copy=False)


def _as_numpy(x: Any, name: str) -> np.ndarray:
    if isinstance(x, np.ndarray):
        return x
    if hasattr(x, "__dlpack__"):
        device = x.__dlpack_device__()
        if int(device[0]) != _KDLCPU:
            raise ValueError(
                f"{name}: wanted a torch tensor, a CuPy array or an array in host memory, "
                f"got DLPack device {tuple(map(int, device))}"
            )
        return np.from_dlpack(x)
    try:
        array = np.asarray(x)
    except (ValueError, TypeError) as error:  # ragged lists
        raise ValueError(f"{name}: wanted a [N, D] array of floats, got {type(x).__name__} ({error})") from None
    if array.dtype.kind not in "iufb":
        raise TypeError(f"{name}: wanted a [N, D] array of floats, got {type(x).__name__}")
    return array
