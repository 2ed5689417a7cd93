"""From evidence to decisions: which labels are changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .arrays import to_numpy
from .corrections import COLUMNS, Corrections

if TYPE_CHECKING:
    from .evidence import LabelEvidence

POLICIES = ("confident", "all")
Policy = str | Callable[[Corrections], Any]


def check_policy(policy: Any) -> Policy:
    """The policy, if it is one.

    Raises
    ------
    ValueError
        An unknown name.
    TypeError
        Neither a name nor callable.
    """
    if callable(policy):
        return cast(Policy, policy)
    if not isinstance(policy, str):
        raise TypeError(f"policy: wanted one of {', '.join(POLICIES)} or a function, got {type(policy).__name__}")
    if policy not in POLICIES:
        raise ValueError(f"policy: wanted one of {', '.join(POLICIES)} or a function, got {policy!r}")
    return policy


def decide(
    policy: Policy,
    evidence: LabelEvidence,
    *,
    score: np.ndarray | None = None,
    margin: np.ndarray | None = None,
    min_margin: float = 0.0,
) -> Corrections:
    """Corrections of what a policy wants changed.

    Parameters
    ----------
    policy : {"confident", "all"} or callable
        See `correct_labels`.
    evidence : LabelEvidence
    score, margin : numpy.ndarray of float64, [N], optional
        Of prototypes. By default ``probability`` and ``lead`` of the evidence, NaN for rows without a usable feature.
    min_margin : float
        No label of a smaller margin is changed.

    Returns
    -------
    Corrections
        numpy arrays.

    Raises
    ------
    TypeError, ValueError
        The function gave something else than [N] bool.
    """
    given, likely = evidence.given, evidence.suggested
    every = Corrections(
        labels=likely,
        given=given,
        score=np.where(evidence.usable, evidence.probability, np.nan) if score is None else score,
        margin=np.where(evidence.usable, evidence.lead, np.nan) if margin is None else margin,
        changed=likely != given,
        issue_score=evidence.issue_score,
        likely=likely,
        probability=evidence.probability,
    )
    if callable(policy):
        views: dict[str, Any] = {name: _read_only(getattr(every, name)) for name in COLUMNS}
        wanted = _checked(policy(replace(every, **views)), len(given))
    else:
        wanted = evidence.confident() if policy == "confident" else np.ones(len(given), dtype=bool)
    # NaN is the margin of a row without a usable feature, whose likeliest label is the given one anyway
    changed = wanted & every.changed & ~(every.margin < min_margin)
    note = evidence.reason if policy == "confident" else None
    return replace(every, labels=np.where(changed, likely, given), changed=changed, note=note)


def _read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written to: what a function writes would be in the result."""
    view = array.view()
    view.flags.writeable = False
    return view


def _checked(mask: Any, num_samples: int) -> np.ndarray:
    mask = to_numpy(mask, "policy")
    if mask.dtype != bool:
        raise TypeError(f"policy: wanted a function that gives bool [{num_samples}], got {mask.dtype}")
    if mask.shape != (num_samples,):
        raise ValueError(f"policy: wanted a function that gives bool [{num_samples}], got shape {list(mask.shape)}")
    return mask
