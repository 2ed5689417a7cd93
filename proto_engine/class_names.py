"""Class names kept with the prototypes, so that labels read later are numbered as they were then."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import numpy as np
import safetensors

from .prototypes import Prototypes


def load_with_names(path: str | os.PathLike[str]) -> tuple[Prototypes, list[str] | None]:
    """Read prototypes, and the class names if the file has them.

    Raises
    ------
    ValueError
        What `Prototypes.load` raises, and names that do not fit the classes.
    """
    prototypes = Prototypes.load(path)
    with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
        text = (file.metadata() or {}).get("class_names")
    if text is None:
        return prototypes, None
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    valid = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not valid or len(set(names)) != len(names) or len(names) != prototypes.num_classes:
        raise ValueError(
            f"prototypes: wanted {prototypes.num_classes} different class names in the metadata of {os.fspath(path)!r}"
        )
    return prototypes, names


def renumber(codes: np.ndarray, names: Sequence[str] | None, class_names: Sequence[str] | None) -> np.ndarray:
    """Labels in the numbering of ``class_names``.

    Parameters
    ----------
    codes : numpy.ndarray of int64, [N]
        Labels; positions in ``names``, or plain class numbers where that is None.
    names, class_names : sequence of str or None
        Names of the labels, names of the prototypes' classes.

    Raises
    ------
    ValueError
        A name that the prototypes do not have; names for classes that only have numbers, or the reverse.
    """
    if (names is None) != (class_names is None):
        kinds = ["numbers" if these is None else "names" for these in (names, class_names)]
        raise ValueError(f"labels: the labels are {kinds[0]}, the prototypes' classes have {kinds[1]}")
    if names is None or class_names is None:
        return codes
    place = {name: number for number, name in enumerate(class_names)}
    unknown = [name for name in names if name not in place]
    if unknown:
        raise ValueError(f"labels: {len(unknown)} names that the prototypes do not have, such as {unknown[0]!r}")
    numbers = np.array([place[name] for name in names], dtype=np.int64)
    return np.asarray(numbers[codes])
