"""Corrections in the formats of the tools that people review labels with: cleanlab's table, Label Studio's tasks."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import to_numpy
from .files import atomic_write, check_ending

if TYPE_CHECKING:
    import pandas as pd

    from .corrections import Corrections


def to_cleanlab(corrections: Corrections) -> pd.DataFrame:
    """The table of ``Datalab.get_issues("label")`` and ``CleanLearning.get_label_issues()``.

    Parameters
    ----------
    corrections : Corrections
        With evidence.

    Returns
    -------
    pandas.DataFrame
        ``is_label_issue`` bool: the label was changed; ``label_score`` float64 in [0, 1]: the probability that
        the given label is right; ``given_label``, ``predicted_label``: the likeliest one. One row a sample.

    Raises
    ------
    ValueError
        Corrections without evidence.
    """
    import pandas as pd

    _need_evidence(corrections, "to_cleanlab")
    return pd.DataFrame(
        {
            "is_label_issue": to_numpy(corrections.changed),
            "label_score": 1.0 - to_numpy(corrections.issue_score),
            "given_label": to_numpy(corrections.given),
            "predicted_label": to_numpy(corrections.likely),
        }
    )


def save_label_studio(
    corrections: Corrections,
    path: str | os.PathLike[str],
    images: Sequence[str],
    *,
    class_names: Sequence[Any] | None = None,
    only_changed: bool = True,
) -> int:
    """Write tasks for Label Studio: an image, its given label, and the likeliest one as a prediction.

    The labeling interface wants an ``Image`` named "image" with the value ``$image`` and ``Choices`` named
    "label". The most suspect images come first.

    Parameters
    ----------
    corrections : Corrections
        With evidence.
    path : str or os.PathLike
        Ends in ``.json``.
    images : sequence of str, [N]
        Where Label Studio finds each image: a URL, or a path below its document root.
    class_names : sequence, optional
        Name of each class.
    only_changed : bool
        Only rows whose label was changed; else all of them.

    Returns
    -------
    int
        The number of tasks.

    Raises
    ------
    ValueError
        Corrections without evidence, another number of images, too few class names, another ending.
    OSError
        The file cannot be written.
    """
    check_ending(path, (".json",), "path")
    _need_evidence(corrections, "save_label_studio")
    if len(images) != len(corrections):
        raise ValueError(f"images: wanted {len(corrections)}, one a row, got {len(images)}")
    names = corrections.names_of(class_names)
    issue, probability = to_numpy(corrections.issue_score), to_numpy(corrections.probability)
    given, likely = to_numpy(corrections.given), to_numpy(corrections.likely)
    rows = np.flatnonzero(to_numpy(corrections.changed)) if only_changed else np.arange(len(issue))
    rows = rows[np.argsort(-issue[rows], kind="stable")]
    tasks = []
    for row in rows.tolist():
        choice: dict[str, Any] = {"from_name": "label", "to_name": "image", "type": "choices"}
        choice |= {"value": {"choices": [_text(likely[row], names)]}}
        tasks.append(
            {
                "data": {
                    "image": str(images[row]),
                    "index": row,
                    "given_label": _text(given[row], names),
                    "issue_score": round(float(issue[row]), 6),
                },
                "predictions": [
                    {
                        "model_version": "proto_engine",
                        "score": round(float(probability[row]), 6),
                        "result": [choice],
                    }
                ],
            }
        )
    with atomic_write(path, "w") as file:
        json.dump(tasks, file, ensure_ascii=False, indent=1)
    return len(tasks)


def _need_evidence(corrections: Corrections, what: str) -> None:
    if corrections.issue_score is None:
        raise ValueError(f"{what}: wanted corrections with evidence (correct_labels with policy 'confident'), got none")


def _text(label: Any, names: np.ndarray | None) -> str:
    return str(label if names is None else names[label])
