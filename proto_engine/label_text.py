"""Labels of any kind as class numbers and names, and the digest that says which data set they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import to_numpy

_MAX_PLAIN = 2**16  # larger class numbers are treated as names: tables of C entries stay small
_BLOCK = 2**16


def encode_labels(
    given: Any, suggested: Any, class_names: Sequence[Any] | None = None, num_classes: int = 0
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Two columns of labels in one numbering.

    Parameters
    ----------
    given, suggested : array, [N]
        Class numbers, or names.
    class_names : sequence, optional
        A name for each class number.
    num_classes : int
        At least so many classes, where the labels are numbers.

    Returns
    -------
    given, suggested : numpy.ndarray of int64, [N]
        Class numbers as they are; names by their place among the sorted names.
    names : list of str, [C]

    Raises
    ------
    ValueError
        The columns differ in length, or there are fewer names than classes.
    TypeError
        ``class_names`` beside labels that are not class numbers.
    """
    columns = [to_numpy(given), to_numpy(suggested)]
    if columns[0].ndim != 1 or columns[0].shape != columns[1].shape:
        raise ValueError(f"labels: wanted two columns [N], got shapes {columns[0].shape} and {columns[1].shape}")
    numbers = all(column.dtype.kind in "iu" for column in columns)
    largest = max((int(column.max(initial=-1)) for column in columns), default=-1) if numbers else -1
    if numbers and min(int(column.min(initial=0)) for column in columns) >= 0 and largest < _MAX_PLAIN:
        size = max(largest + 1, num_classes) if class_names is None else len(class_names)
        if size <= largest:
            raise ValueError(f"class_names: wanted a name for each label up to {largest}, got {size} names")
        names = [str(c) for c in range(size)] if class_names is None else [str(name) for name in class_names]
        return columns[0].astype(np.int64), columns[1].astype(np.int64), names
    if class_names is not None:
        raise TypeError(f"class_names: wanted labels that are class numbers, got {columns[0].dtype}")
    both = np.concatenate(columns)
    values, codes = np.unique(both.astype(str) if both.dtype.kind == "O" else both, return_inverse=True)
    codes = codes.astype(np.int64)
    return codes[: len(columns[0])], codes[len(columns[0]) :], [str(value) for value in values.tolist()]


def labels_digest(codes: np.ndarray, names: Sequence[str]) -> str:
    """The SHA-256 of the labels as text, each followed by a line feed, in UTF-8; 64 hexadecimal digits.

    Names and numbers in the same order of rows give the same digest from every kind of file.
    """
    lines = [f"{name}\n".encode("utf-8", "surrogatepass") for name in names]
    digest = hashlib.sha256()
    for start in range(0, len(codes), _BLOCK):
        digest.update(b"".join([lines[code] for code in codes[start : start + _BLOCK].tolist()]))
    return digest.hexdigest()
