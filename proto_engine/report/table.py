"""A correction read back from the table that `Corrections.save` wrote."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bank_parquet import refuse_repeated
from ..label_text import encode_labels
from ..labels import column_names, number_columns, read_label_pair

_FLOATS = ("score", "margin", "issue_score", "probability")


@dataclass(frozen=True, eq=False)
class Table:
    """What `write_report` reads of a correction; columns that the file does not have are None."""

    labels: np.ndarray
    given: np.ndarray
    score: Any = None
    margin: Any = None
    issue_score: Any = None
    probability: Any = None

    def __len__(self) -> int:
        return len(self.given)


def read_table(path: str | os.PathLike[str]) -> tuple[Table, list[str] | None]:
    """Read the table of a correction.

    Parameters
    ----------
    path : str or os.PathLike
        ``.parquet`` or ``.csv`` with the columns ``given_label`` and ``suggested_label``; ``score margin
        issue_score likely_label probability index`` where it has them. What the page suggests is the likeliest
        label where there is one, also where it was not clear enough to decide without a person.

    Returns
    -------
    table : Table
        Labels as int64.
    class_names : list of str or None
        The sorted names where the labels are names.

    Raises
    ------
    ValueError
        Another ending, a column that is missing or there twice, text for a number, or rows left out or in another
        order than those of the data set.
    FileNotFoundError
        There is no such file.
    """
    what = f"table: {os.fspath(path)!r}"
    ending = os.path.splitext(path)[1].lower()
    if ending not in (".parquet", ".csv"):
        raise ValueError(f"{what}: wanted features and labels, or one table (.parquet or .csv) of a correction")
    given, suggested, names, others = read_label_pair(path, "given_label", ("likely_label", "suggested_label"), what)
    has = column_names(path)
    wanted = [name for name in _FLOATS if name in has]
    for name in wanted:
        refuse_repeated(name, has, what)
    numbers = number_columns(path, wanted, what)
    if names is not None and others is not None:
        old, new = np.array(names, dtype=object), np.array(others, dtype=object)
        given, suggested, names = encode_labels(old[given].astype(str), new[suggested].astype(str))
    return Table(suggested, given, **numbers), names
