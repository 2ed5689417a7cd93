"""What the command line prints when it is done: small tables in plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import to_numpy
from .corrections import CorrectionSummary

_MAX_CLASSES = 30  # lines: the file holds the rest
_MAX_FLOWS = 10
_MAX_NAME = 32  # characters


def correction_report(summary: CorrectionSummary, class_names: Sequence[str] | None) -> str:
    """How many labels changed, in all and by given label, and the largest flows between classes."""
    samples, changed = summary.samples_per_class, summary.changed_per_class  # [C], [C]
    lines = [
        f"{summary.num_changed:,} of {summary.num_samples:,} labels changed ({100 * summary.share_changed:.1f} %)",
    ]
    if summary.expected_right is not None and summary.num_changed:
        lines.append(f"about {summary.expected_right:,.0f} of the changes are expected to be right")
    if summary.note is not None:
        lines.append(f"labels are left as they are: {summary.note}")
    lines.append("")
    order = np.arange(len(samples))
    if len(order) > _MAX_CLASSES:
        order = np.sort(np.argsort(-changed, kind="stable")[:_MAX_CLASSES])
    rows = [
        (_name(c, class_names), f"{samples[c]:,}", f"{changed[c]:,}", _share(changed[c], samples[c]))
        for c in order.tolist()
    ]
    lines += _table(("given class", "samples", "changed", "share"), rows)
    if len(order) < len(samples):
        lines.append(f"(the {len(order)} classes with most changes, of {len(samples)})")
    if summary.flows:
        lines.append("")
        flows = [
            (f"{_name(given, class_names)} -> {_name(suggested, class_names)}", f"{count:,}")
            for given, suggested, count in summary.flows[:_MAX_FLOWS]
        ]
        lines += _table(("largest flows", "samples"), flows)
    return "\n".join(lines)


def selection_report(prototypes: Any, samples_per_class: np.ndarray, class_names: Sequence[str] | None) -> str:
    """How many prototypes each class got, its cutoff, and the share of candidates that were filtered out."""
    counts, cutoff = to_numpy(prototypes.counts), to_numpy(prototypes.cutoff)  # [C], [C]
    filtered = to_numpy(prototypes.filtered)  # [C]
    lines = [
        f"{int(counts.sum()):,} prototypes for {int((counts > 0).sum()):,} of {len(counts):,} classes",
        "",
    ]
    shown = min(len(counts), _MAX_CLASSES)
    rows = [
        (
            _name(c, class_names),
            f"{samples_per_class[c]:,}",
            f"{counts[c]}",
            f"{cutoff[c]:.4f}" if np.isfinite(cutoff[c]) else "-",
            f"{100 * filtered[c]:.1f} %" if np.isfinite(filtered[c]) else "-",
        )
        for c in range(shown)
    ]
    lines += _table(("class", "samples", "prototypes", "cutoff", "filtered"), rows)
    if shown < len(counts):
        lines.append(f"(the first {shown} classes of {len(counts)})")
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _name(label: int, class_names: Sequence[str] | None) -> str:
    name = str(label) if class_names is None else class_names[label]
    name = "".join(letter if letter.isprintable() else "?" for letter in name)  # names come from files
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 3] + "..."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, numbers to the right."""
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
