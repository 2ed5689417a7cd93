"""What a notebook shows for a correction: its numbers, its largest changes, and three figures."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from .arrays import to_numpy
from .figures import class_bars, count_pairs, heat_map, histogram, most_changed, short
from .label_text import encode_labels

_MAX_CLASSES = 12
_MAX_ROWS = 8


def corrections_html(corrections: Any) -> str:
    """HTML of a `Corrections`, without scripts, styles of its own or anything from elsewhere."""
    given, suggested, names = encode_labels(corrections.given, corrections.labels)
    changed, margin = to_numpy(corrections.changed), to_numpy(corrections.margin).astype(np.float64)
    if len(given) == 0:
        return "<p><b>Corrections</b>: 0 rows</p>"
    size = np.bincount(given, minlength=len(names))  # [C]
    moved = np.bincount(given[given != suggested], minlength=len(names)) / np.maximum(size, 1)
    classes = most_changed(given, suggested, len(names), _MAX_CLASSES)
    chosen = [names[c] for c in classes.tolist()]
    issue = getattr(corrections, "issue_score", None)
    values, what = (
        (margin, "margin") if issue is None else (to_numpy(issue), "probability that the given label is wrong")
    )
    number = int(changed.sum())
    parts = [
        f"<p><b>Corrections</b>: {len(given):,} rows, {int((size > 0).sum()):,} classes, {number:,} labels changed "
        f"({100 * number / len(given):.1f} %)</p>",
        _largest(given, suggested, changed, margin, names),
        '<div style="display: flex; flex-wrap: wrap; gap: 1.5em; align-items: flex-start">',
        heat_map(
            count_pairs(given, suggested, classes, len(names)),
            chosen,
            "Given label by suggested label, per cent of the given class",
        ),
        histogram(values, changed, what, None if issue is None else (0.0, 1.0)),
        class_bars(moved[classes], chosen, "labels changed, by given class"),
        "</div>",
    ]
    if len(classes) == _MAX_CLASSES < len(names):
        parts.append(f"<p>Figures: the {len(classes)} classes with most changes.</p>")
    return "".join(parts)


def _largest(
    given: np.ndarray, suggested: np.ndarray, changed: np.ndarray, margin: np.ndarray, names: list[str]
) -> str:
    """The changes with the largest margins, as a table."""
    rows = np.flatnonzero(changed)
    rows = rows[np.argsort(-np.nan_to_num(margin[rows], nan=-np.inf), kind="stable")[:_MAX_ROWS]]
    if len(rows) == 0:
        return ""
    cells = "".join(
        f"<tr><td>{row}</td><td>{escape(short(names[given[row]], 32))}</td>"
        f"<td>{escape(short(names[suggested[row]], 32))}</td><td>{margin[row]:.3f}</td></tr>"
        for row in rows.tolist()
    )
    return f"<table><tr><th>row</th><th>given</th><th>suggested</th><th>margin</th></tr>{cells}</table>"
