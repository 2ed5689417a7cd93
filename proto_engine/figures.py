"""Figures of a correction as SVG text: the noise matrix, a histogram, bars. For the report and for notebooks.

Colors are CSS variables with a fallback, set by presentation attributes: a page may forbid inline styles.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

KEPT = "var(--kept, #4a7ab5)"
CHANGED = "var(--changed, #c9621c)"
_BINS = 40
_MAX_TEXT = 14  # classes whose cells still have room for a number


def short(name: str, length: int = 16) -> str:
    """A name for a place of little room, printable."""
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    return name if len(name) <= length else name[: length - 1] + "\u2026"


def most_changed(given: np.ndarray, suggested: np.ndarray, num_classes: int, limit: int) -> np.ndarray:
    """The classes that occur, at most ``limit``: those that most rows leave, in ascending order."""
    moved = np.bincount(given[given != suggested], minlength=num_classes)  # [C]
    classes = np.flatnonzero(np.bincount(given, minlength=num_classes) + np.bincount(suggested, minlength=num_classes))
    return np.sort(classes[np.argsort(-moved[classes], kind="stable")[:limit]])


def count_pairs(given: np.ndarray, suggested: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """How often each pair of labels occurs among K of C classes, int64 [K, K]: given label by suggested label."""
    size = len(classes)
    place = np.full(num_classes, -1)  # [C]
    place[classes] = np.arange(size)
    rows, columns = place[given], place[suggested]
    pairs = (rows * size + columns)[(rows >= 0) & (columns >= 0)]
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


def row_shares(counts: np.ndarray) -> np.ndarray:
    """Each row of [C, C] counts as shares of its sum; zeros for an empty row."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def share_text(share: float) -> str:
    """A share as a percentage of at most three signs; nothing for zero."""
    percent = 100 * share
    if percent == 0:
        return ""
    return f"{percent:.0f}" if percent >= 9.95 else f"{percent:.1f}"


def heat_map(counts: np.ndarray, names: Sequence[str], label: str, ident: str = "") -> str:
    """The noise matrix: a row for each given label, a column for each suggested one.

    Parameters
    ----------
    counts : numpy.ndarray of int64, [C, C]
    names : sequence of str, [C]
    label : str
        What a screen reader says.
    ident : str
        The ``id`` of the element, if any.

    Returns
    -------
    str
        An ``svg`` element. Cells carry ``data-given`` and ``data-suggested``; the diagonal is shaded by its
        share of the row, all others by their share relative to the largest such share.
    """
    size = len(names)
    cell = 34 if size <= _MAX_TEXT else 18
    left = 12 + 6.2 * max((len(short(name)) for name in names), default=1)
    top = left * 0.75 + 10
    width, height = left + size * cell + 24, top + size * cell + 4
    shares = row_shares(counts)  # [C, C]
    off = np.where(np.eye(size, dtype=bool), 0.0, shares)
    largest = float(off.max(initial=0.0))
    parts = [
        f'<svg class="matrix"{f" id={chr(34)}{escape(ident)}{chr(34)}" if ident else ""} role="img" '
        f'aria-label="{escape(label)}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" data-largest="{largest:.6g}" font-size="11" fill="currentColor">'
    ]
    for k, name in enumerate(names):
        middle = (k + 0.5) * cell
        text = escape(short(name))
        parts.append(f'<text x="{left - 6:.0f}" y="{top + middle + 4:.1f}" text-anchor="end">{text}</text>')
        x, y = left + middle + 3, top - 6
        parts.append(f'<text x="{x:.1f}" y="{y:.0f}" transform="rotate(-45 {x:.1f} {y:.0f})">{text}</text>')
    for g in range(size):
        for s in range(size):
            x, y = left + s * cell, top + g * cell
            parts.append(
                f'<rect data-given="{g}" data-suggested="{s}" x="{x:.1f}" y="{y:.1f}" width="{cell - 1}" '
                f'height="{cell - 1}" fill="{KEPT if g == s else CHANGED}" '
                f'fill-opacity="{_opacity(float(shares[g, s]), g == s, largest):.2f}">'
                f"<title>{escape(names[g])} \u2192 {escape(names[s])}: {counts[g, s]:,}</title></rect>"
            )
            if size <= _MAX_TEXT:
                parts.append(
                    f'<text class="value" x="{x + (cell - 1) / 2:.1f}" y="{y + cell / 2 + 3:.1f}" font-size="10" '
                    f'text-anchor="middle" pointer-events="none">{share_text(float(shares[g, s]))}</text>'
                )
    return "".join([*parts, "</svg>"])


def _opacity(share: float, diagonal: bool, largest: float) -> float:
    if diagonal:
        return 0.06 + 0.5 * share
    return 0.04 + (0.8 * (share / largest) ** 0.8 if largest else 0.0)


def histogram(values: np.ndarray, changed: np.ndarray, title: str, limits: tuple[float, float] | None = None) -> str:
    """How often each value occurs: kept rows upwards, changed rows downwards, each on a scale of its own.

    Changes are few beside the rows that stay; on one scale they would not be seen.

    Parameters
    ----------
    values : numpy.ndarray of float, [N]
        Those that are not finite are left out.
    changed : numpy.ndarray of bool, [N]
    title : str
        Name of the values, shown under the axis.
    limits : (float, float), optional
        Ends of the axis; by default the smallest and largest value.
    """
    usable = np.isfinite(values)
    shown, marks = values[usable], changed[usable]
    low, high = limits or (float(shown.min(initial=np.inf)), float(shown.max(initial=-np.inf)))
    if not low < high:
        low, high = (low - 0.5, low + 0.5) if low == high else (0.0, 1.0)
    edges = np.linspace(low, high, _BINS + 1)
    left, top, wide, tall = 58, 8, 430, 84
    axis, step = top + tall, wide / _BINS
    width, height = left + wide + 14, top + 2 * tall + 38
    parts = [
        f'<svg class="histogram" role="img" aria-label="Histogram: {escape(title)}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-size="11" fill="currentColor">'
    ]
    for rows, color, way, what in ((~marks, KEPT, -1, "kept"), (marks, CHANGED, 1, "changed")):
        counts = np.histogram(shown[rows], edges)[0]  # [bins]
        most = max(int(counts.max(initial=0)), 1)
        for part in (0.5, 1.0) if most > 1 else (1.0,):
            y = axis + way * tall * part
            parts.append(f'<path d="M{left} {y:.1f}h{wide}" stroke="currentColor" stroke-opacity="0.15"/>')
            parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{round(most * part):,}</text>')
        for k in np.flatnonzero(counts).tolist():
            size = max(tall * counts[k] / most, 1.0)
            parts.append(
                f'<rect x="{left + k * step:.2f}" y="{axis - size if way < 0 else axis:.2f}" width="{step - 1:.2f}" '
                f'height="{size:.2f}" fill="{color}">'
                f"<title>{edges[k]:.3g} to {edges[k + 1]:.3g}: {counts[k]:,} {what}</title></rect>"
            )
    parts.append(f'<path d="M{left} {axis}h{wide}" stroke="currentColor" stroke-opacity="0.6"/>')
    for at in _ticks(low, high):
        x = left + wide * (at - low) / (high - low)
        parts.append(f'<text x="{x:.1f}" y="{axis + tall + 16}" text-anchor="middle">{at:.6g}</text>')
    parts.append(f'<text x="{left + wide / 2}" y="{height - 5}" text-anchor="middle">{escape(title)}</text>')
    return "".join([*parts, "</svg>"])


def _ticks(low: float, high: float) -> list[float]:
    """Three to eight round numbers within an interval."""
    power = 10.0 ** np.floor(np.log10((high - low) / 3))
    step = next((power * unit for unit in (5, 2) if (high - low) / (power * unit) >= 3), power)
    first = int(np.ceil(low / step - 1e-9))
    return [round(k * step, 12) + 0.0 for k in range(first, int(np.floor(high / step + 1e-9)) + 1)]


def class_bars(shares: np.ndarray, names: Sequence[str], title: str) -> str:
    """A bar for each class; shares from 0 to 1, [C]."""
    height, left, wide = 18, 130, 260
    parts = [
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {left + wide + 60} {len(names) * height + 24}" '
        f'width="{left + wide + 60}" height="{len(names) * height + 24}" font-size="11" fill="currentColor">',
        f'<text x="{left}" y="12">{escape(title)}</text>',
    ]
    largest = max(float(shares.max(initial=0.0)), 1e-9)
    for k, (name, share) in enumerate(zip(names, shares.tolist(), strict=True)):
        y = 20 + k * height
        parts.append(f'<text x="{left - 6}" y="{y + 12}" text-anchor="end">{escape(short(name, 20))}</text>')
        long = wide * share / largest
        parts.append(f'<rect x="{left}" y="{y + 2}" width="{long:.1f}" height="{height - 5}" fill="{CHANGED}"/>')
        parts.append(f'<text x="{left + long + 5:.1f}" y="{y + 12}">{100 * share:.1f} %</text>')
    return "".join([*parts, "</svg>"])
