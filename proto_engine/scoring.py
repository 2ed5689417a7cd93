"""Scores against the prototypes, and the corrected labels."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .array_kinds import to_numpy
from .arrays import as_bank, as_labels
from .bank import FeatureBank
from .corrections import COLUMNS, Corrections
from .ops import ON_BAD_ROWS, Resolved, bad_rows_message, check_choice, check_number, resolve
from .policy import Policy, check_policy, decide
from .prototypes import Prototypes
from .transform import in_space

logger = logging.getLogger(__name__)


def score_samples(
    features: Any,
    prototypes: Prototypes,
    *,
    backend: str = "auto",
    progress: bool | None = None,
    on_bad_rows: str = "raise",
) -> Any:
    """Score of every row for every class: the mean cosine to the class's prototypes.

    Parameters
    ----------
    features : array or FeatureBank, [N, D]
        float16, bfloat16, float32 or float64.
    prototypes : Prototypes
        From `select_prototypes`.
    backend : str
        "auto" or a name from `backends`.
    progress : bool, optional
        Show a bar on a terminal.
    on_bad_rows : {"raise", "keep-label"}
        Rows that are zero or not finite: refuse, or give them NaN.

    Returns
    -------
    array of float32, [N, C]
        Within `error_bound` of the float64 value (float64 from the reference); -inf in the column of a
        class without prototypes. In the caller's kind of array.

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong dtype, shape or range; bad rows with ``on_bad_rows="raise"``.
    BackendUnavailable
        The named backend cannot run here.

    References
    ----------
    Han, Luo, Wang: Deep Self-Learning From Noisy Labels. ICCV 2019, equation 4.
    """
    bank, resolved, present, folded = _prepare(features, prototypes, backend, on_bad_rows)
    num_classes = prototypes.num_classes
    kind = resolved.kind
    columns = kind.give(present)
    sigma: Any = None
    bad: list[np.ndarray] = []
    for start, result in resolved.backend.score_chunks(_chunks(bank, progress, "score"), folded):
        part = kind.give(result)  # [b, present]
        with kind.current():
            bad.append(start + _rows_where(part[:, 0] != part[:, 0]))
        _refuse(bad[-1], bank, on_bad_rows)
        if sigma is None:
            sigma = kind.full((len(bank), num_classes), -np.inf, part.dtype)
        with kind.current():
            sigma[start : start + len(part), columns] = part
    with kind.current():
        sigma[kind.give(np.concatenate(bad))] = np.nan
    return sigma


def correct_labels(
    features: Any,
    labels: Any,
    prototypes: Prototypes | None = None,
    *,
    policy: Policy | None = None,
    backend: str = "auto",
    min_margin: float = 0.0,
    progress: bool | None = None,
    on_bad_rows: str = "raise",
) -> Corrections:
    """Correct labels: on evidence, or as published by the class that a row scores highest for.

    Parameters
    ----------
    features : array or FeatureBank, [N, D]
        float16, bfloat16, float32 or float64. A memory map is read in chunks.
    labels : array of int, [N]
        Given labels, 0 to C - 1.
    prototypes : Prototypes, optional
        From `select_prototypes`. They give ``score`` and ``margin``; without them the evidence does.
    policy : {"confident", "all"} or callable, optional
        Which labels change.

        - "confident": those for which `label_evidence` finds another label clearly more probable than the given
          one, and none where it cannot tell. The default without prototypes.
        - "all": every label that is not the best one: the published method. The default with prototypes, which
          then decide alone; without them the most probable label is the best one.
        - a function of `Corrections` in which every label is the most probable one: bool [N], where to change. Its
          arrays are read-only.
    backend : str
        "auto" or a name from `backends`. Every backend gives the same labels, scores and margins. Evidence is
        worked out on the host, whatever the backend.
    min_margin : float
        Keep the given label where the margin is less than this.
    progress : bool, optional
        Show a bar on a terminal.
    on_bad_rows : {"raise", "keep-label"}
        Rows that are zero or not finite: refuse, or keep their given label (score and margin NaN).

    Returns
    -------
    Corrections
        ``labels given score margin changed`` [N] in the caller's kind of array, and ``issue_score likely
        probability`` where evidence was asked for. The lowest class wins between equal scores. A class without
        prototypes is never suggested by them.

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong dtype, shape or range; bad rows with ``on_bad_rows="raise"``.
    BackendUnavailable
        The named backend cannot run here.

    References
    ----------
    Han, Luo, Wang: Deep Self-Learning From Noisy Labels. ICCV 2019, equations 4 and 5.
    """
    min_margin = check_number(min_margin, "min_margin")
    if min_margin < 0:
        raise ValueError(f"min_margin: wanted 0 or more, got {min_margin}")
    policy = check_policy(policy if policy is not None else "confident" if prototypes is None else "all")
    found = None
    if prototypes is not None:
        found = _correct_by_score(features, labels, prototypes, backend, min_margin, progress, on_bad_rows)
        if policy == "all":
            return found
    kind = resolve(as_bank(features), backend).kind
    from .evidence import label_evidence  # needs SciPy's linear algebra, which takes a while to import

    evidence = label_evidence(
        features, labels, num_classes=None if prototypes is None else prototypes.num_classes, on_bad_rows=on_bad_rows
    )
    scores = {} if found is None else {"score": to_numpy(found.score), "margin": to_numpy(found.margin)}
    decided = decide(policy, evidence, min_margin=min_margin, **scores)
    if decided.note is not None:
        logger.info("labels are left as they are: %s", decided.note)
    with kind.current():
        columns = {name: kind.give(getattr(decided, name)) for name in COLUMNS}
    return replace(decided, **columns)


def _correct_by_score(
    features: Any,
    labels: Any,
    prototypes: Prototypes,
    backend: str,
    min_margin: float,
    progress: bool | None,
    on_bad_rows: str,
) -> Corrections:
    """The published rule: the class of the highest score."""
    bank, resolved, present, folded = _prepare(features, prototypes, backend, on_bad_rows)
    given = as_labels(labels, len(bank), prototypes.num_classes)
    kind, xp = resolved.kind, resolved.kind.xp
    with kind.current():
        given = kind.give(given.copy())
        classes = kind.give(present)
        suggested = kind.full((len(bank),), -1, xp.int64)
        score, margin = (kind.full((len(bank),), np.nan, xp.float64) for _ in range(2))
        for start, result in resolved.backend.top2_chunks(_chunks(bank, progress, "correct"), folded):
            label, best, second = (kind.give(array) for array in result)
            unusable = label < 0
            _refuse(start + _rows_where(unusable), bank, on_bad_rows)
            part = slice(start, start + len(label))
            suggested[part] = xp.where(unusable, -1, classes[label])
            score[part] = best
            margin[part] = best - second  # infinite with a single class
        keep = (suggested < 0) | (margin < min_margin)
        corrected = xp.where(keep, given, suggested)
        return Corrections(corrected, given, score, margin, corrected != given)


def _prepare(
    features: Any, prototypes: Prototypes, backend: str, on_bad_rows: str
) -> tuple[FeatureBank, Resolved, np.ndarray, np.ndarray]:
    """Checked arguments; the classes that have prototypes, and their folded vectors."""
    bank = as_bank(features)
    check_choice(on_bad_rows, "on_bad_rows", ON_BAD_ROWS)
    if not isinstance(prototypes, Prototypes):
        raise TypeError(f"prototypes: wanted Prototypes from select_prototypes, got {type(prototypes).__name__}")
    prototypes.check()
    if prototypes.dim != bank.shape[1]:
        raise ValueError(f"prototypes: wanted dimension {bank.shape[1]} like the features, got {prototypes.dim}")
    present = np.flatnonzero(to_numpy(prototypes.counts) > 0)
    if len(present) == 0:
        raise ValueError("prototypes: wanted at least one class with a prototype, got none")
    folded = np.ascontiguousarray(to_numpy(prototypes.folded)[present], dtype=np.float64)
    bank = in_space(bank, prototypes.transform)
    return bank, resolve(bank, backend), present, folded


def _refuse(bad: np.ndarray, bank: FeatureBank, on_bad_rows: str) -> None:
    if len(bad) and on_bad_rows == "raise":
        raise ValueError(bad_rows_message(bad, len(bank), transformed=bank.transform is not None))


def _rows_where(mask: Any) -> np.ndarray:
    """Positions that are True, on the host; little is copied where there are none."""
    return np.flatnonzero(to_numpy(mask)) if bool(mask.any()) else np.empty(0, dtype=np.int64)


def _chunks(bank: FeatureBank, progress: bool | None, what: str) -> Iterator[tuple[int, Any]]:
    """The bank's chunks, under a progress bar where one was asked for and somebody can see it."""
    if not progress or sys.stderr is None or not sys.stderr.isatty():  # None: closed, or under pythonw
        yield from bank.chunks()
        return
    from tqdm import tqdm

    with tqdm(total=len(bank), desc=what, unit="rows", unit_scale=True) as bar:
        for start, rows in bank.chunks():
            yield start, rows
            bar.update(len(rows))
