"""Decisions of a person about suggested labels: the CSV file that the report gives, and what follows from it."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .label_text import labels_digest

COLUMNS = ("index", "given_label", "suggested_label", "decision", "label", "labels_sha256")
KINDS = ("accept", "reject", "relabel")


@dataclass(frozen=True)
class Decision:
    """One row of the file. Labels are text: class names, or class numbers in decimal."""

    index: int
    path: str | None
    given: str
    suggested: str
    kind: str
    label: str


def read_decisions(path: str | os.PathLike[str]) -> tuple[list[Decision], str]:
    """Read a file of decisions.

    Parameters
    ----------
    path : str or os.PathLike
        CSV with a header line and the columns ``index given_label suggested_label decision label
        labels_sha256``, and maybe ``path``, in any order.

    Returns
    -------
    decisions : list of Decision
    digest : str
        `labels_digest` of the labels that they are about.

    Raises
    ------
    ValueError
        No such file of decisions: a column is missing, no row, a value that means nothing, a row decided
        twice, a label that does not follow from its decision, rows of different data sets.
    OSError
        The file cannot be read.
    """
    what = f"decisions: {os.fspath(path)!r}"
    found: list[Decision] = []
    digests: dict[str, int] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # spreadsheets write a byte order mark
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(f"{what}: wanted a column {missing[0]!r}, it has {list(reader.fieldnames or [])}")
            for number, row in enumerate(reader, start=2):
                if any(row[name] is None for name in COLUMNS):
                    raise ValueError(f"{what}: line {number} is too short")
                found.append(_decision(row, f"{what}: line {number}"))
                digests.setdefault(row["labels_sha256"], number)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{what} is damaged or not a CSV file: {error}") from None
    if not found:
        raise ValueError(f"{what} holds no decisions")
    if len(digests) > 1:
        raise ValueError(f"{what}: its rows are about different data sets, see line {list(digests.values())[1]}")
    seen: set[int] = set()
    for decision in found:
        if decision.index in seen:
            raise ValueError(f"{what}: row {decision.index} is decided twice")
        seen.add(decision.index)
    return found, next(iter(digests))


def _decision(row: dict[str, str], where: str) -> Decision:
    index, kind = row["index"].strip(), row["decision"].strip()
    if not (index.isascii() and index.isdigit() and len(index) < 19):
        raise ValueError(f"{where}: wanted a row number from 0 as index, got {row['index']!r}")
    if kind not in KINDS:
        raise ValueError(f"{where}: wanted accept, reject or relabel as decision, got {row['decision']!r}")
    given, suggested, label = row["given_label"], row["suggested_label"], row["label"]
    if label == "" or (kind != "relabel" and label != (suggested if kind == "accept" else given)):
        means = {"accept": f"the label {suggested!r}", "reject": f"the label {given!r}", "relabel": "a label"}[kind]
        raise ValueError(f"{where}: {kind} means {means}, got {label!r}")
    return Decision(int(index), row.get("path"), given, suggested, kind, label)


def apply_decisions(
    codes: np.ndarray,
    names: Sequence[str] | None,
    decisions: Sequence[Decision],
    digest: str | None,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, list[str] | None]:
    """Labels after the decisions.

    Parameters
    ----------
    codes : numpy.ndarray of int64, [N]
        Given labels: class numbers, or places among ``names``.
    names : sequence of str or None
    decisions : sequence of Decision
    digest : str or None
        What the file of decisions says about its data set; None only without decisions.
    start : numpy.ndarray of int64, [N], optional
        Labels of the undecided rows; by default the given ones.

    Returns
    -------
    codes : numpy.ndarray of int64, [N]
    names : list of str or None
        Longer than before where somebody chose a name that no given label has.

    Raises
    ------
    ValueError
        Decisions about another data set; a row that does not exist, or has another given label; a label that
        is no class number where the labels are numbers.
    """
    result = (codes if start is None else start).copy()
    texts = [str(c) for c in range(int(codes.max(initial=-1)) + 1)] if names is None else list(names)
    if digest is not None and (actual := labels_digest(codes, texts)) != digest:
        raise ValueError(
            f"decisions: made for another data set: the SHA-256 of its given labels is {digest[:16]}..., "
            f"that of these {len(codes):,} labels {actual[:16]}..."
        )
    place = {name: c for c, name in enumerate(texts)}
    for decision in decisions:
        if decision.index >= len(codes):
            raise ValueError(f"decisions: wanted rows below {len(codes)}, got row {decision.index}")
        if (given := texts[codes[decision.index]]) != decision.given:
            raise ValueError(f"decisions: row {decision.index} was given {given!r}, not {decision.given!r}")
        if names is None:
            if not (decision.label.isascii() and decision.label.isdigit() and len(decision.label) < 19):
                raise ValueError(
                    f"decisions: the labels are numbers, row {decision.index} was labeled {decision.label!r}"
                )
            result[decision.index] = int(decision.label)
        else:
            if decision.label not in place:
                place[decision.label] = len(texts)
                texts.append(decision.label)
            result[decision.index] = place[decision.label]
    return result, None if names is None else texts
