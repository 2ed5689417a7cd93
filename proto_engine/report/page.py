"""Puts the page together: figures drawn here, rows as data for the script, both under a strict policy.

Class names, paths and titles are text from elsewhere: they are escaped wherever they enter the page, and the
policy lets nothing run or load but the one script and the one style sheet that came with it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..figures import count_pairs, heat_map, histogram, most_changed
from ..versions import __version__
from .numbers import ClassRow, Rows, class_rows, summary_figures
from .thumbnails import Thumbnails

MAX_ROWS = 200_000  # in the list; the figures count all rows
_MAX_CELLS = 30  # classes of the noise matrix
_SCRIPTS = ("core.js", "decisions.js", "figures.js", "gallery.js", "rows.js", "main.js")


@dataclass(frozen=True, eq=False)
class Content:
    """All that the page shows."""

    title: str
    rows: Rows
    suspects: np.ndarray
    gallery: list[int]
    prototype_rows: dict[int, list[int]]
    pictures: Thumbnails
    paths: list[str] | None
    prototypes: Any
    graphs: dict[int, list[np.ndarray]]


def render(content: Content) -> str:
    """The page as text."""
    rows, assets = content.rows, files(__package__) / "assets"
    if len(rows.names) > 2**16:
        raise ValueError(f"class_names: a report shows up to {2**16:,} classes, got {len(rows.names):,}")
    style = (assets / "page.css").read_text("utf-8")
    pieces = [(assets / name).read_text("utf-8") for name in _SCRIPTS]
    script = '(() => {\n"use strict";\n' + "\n".join(pieces) + "\n})();\n"
    classes = most_changed(rows.given, rows.suggested, len(rows.names), _MAX_CELLS)
    counts = count_pairs(rows.given, rows.suggested, classes, len(rows.names))
    listed = np.sort(content.suspects[:MAX_ROWS])
    text = Template((assets / "page.html").read_text("utf-8")).substitute(
        policy=_policy(script, style),
        title=escape(content.title),
        version=escape(__version__),
        style=style,
        script=script,
        data=_json(_data(content, listed, classes, counts)),
        digest=rows.digest,
        short_digest=rows.digest[:12],
        figures=_figures(rows),
        before=_matrix(rows, classes, counts, "before"),
        after=_matrix(rows, classes, counts, "after"),
        matrix_note=_matrix_note(classes, rows),
        histograms=_histograms(rows),
        class_head=_class_head(rows, content.prototypes is not None),
        class_rows="".join(
            _class_row(c, row, content.prototypes is not None)
            for c, row in enumerate(class_rows(rows, content.prototypes))
        ),
        class_note=_class_note(rows, content.prototypes),
        no_graph="" if content.graphs else " hidden",
        no_images="" if content.gallery else " hidden",
        image_note=escape(_image_note(content)),
        no_prototypes="" if content.prototype_rows else " hidden",
        list_note=escape(_list_note(len(listed), len(rows))),
    )
    return text.encode("utf-8", "replace").decode("utf-8")  # names from file systems may hold half characters


def _policy(script: str, style: str) -> str:
    def source(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return (
        f"default-src 'none'; script-src {source(script)}; style-src {source(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _json(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _packed(array: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype=dtype).tobytes()).decode("ascii")


def _data(content: Content, listed: np.ndarray, classes: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    rows = content.rows
    place = np.full(len(rows), -1)
    place[listed] = np.arange(len(listed))
    shown = hashlib.sha256(rows.digest.encode() + rows.suggested.tobytes()).hexdigest()
    floats = {
        "issue": rows.issue,
        "probability": rows.probability,
        "score": None if np.isnan(rows.score).all() else rows.score,
        "margin": None if np.isnan(rows.margin).all() else rows.margin,
    }
    return {
        "id": shown[:32],
        "digest": rows.digest,
        "changed": int(rows.changed.sum()),
        "names": rows.names,
        "index": None if len(listed) == len(rows) else _packed(listed, "<u4"),
        "given": _packed(rows.given[listed], "<u2"),
        "suggested": _packed(rows.suggested[listed], "<u2"),
        **{name: None if values is None else _packed(values[listed], "<f4") for name, values in floats.items()},
        "suspects": _packed(place[content.suspects[:MAX_ROWS]], "<u4"),
        "paths": None if content.paths is None else [content.paths[row] for row in listed.tolist()],
        "pictures": content.pictures.data,
        "gallery": [row for row in content.gallery if row in content.pictures.data],
        "prototypes": [[c, members] for c, members in content.prototype_rows.items()],
        "graphs": [[c, [_packed(array, "<f4") for array in arrays]] for c, arrays in content.graphs.items()],
        "matrix": {"classes": classes.tolist(), "counts": counts.ravel().tolist()},
    }


def _figures(rows: Rows) -> str:
    return "".join(
        f'<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd class="note">{escape(note)}</dd></div>'
        for name, value, note in summary_figures(rows)
    )


def _matrix(rows: Rows, classes: np.ndarray, counts: np.ndarray, ident: str) -> str:
    label = {"before": "Given label by suggested label", "after": "Label after your decisions by suggested label"}
    return heat_map(counts, [rows.names[c] for c in classes.tolist()], label[ident], ident)


def _matrix_note(classes: np.ndarray, rows: Rows) -> str:
    present = len(np.unique(np.concatenate([rows.given, rows.suggested])))
    return f"The {len(classes)} classes with most changes, of {present:,}." if len(classes) < present else ""


def _histograms(rows: Rows) -> str:
    drawn = []
    if rows.issue is not None:
        drawn.append(histogram(rows.issue, rows.changed, "probability that the given label is wrong", (0.0, 1.0)))
    if np.isfinite(rows.margin).any():
        drawn.append(histogram(rows.margin, rows.changed, "margin: best score minus second best"))
    return "".join(drawn) or '<p class="note">No row has a margin.</p>'


def _class_head(rows: Rows, with_prototypes: bool) -> str:
    noise = "share changed" if rows.issue is None else "noise, estimated"
    heads = ["class", "rows", "leave", "arrive", noise]
    if with_prototypes:
        heads += ["prototypes", "core purity", "filtered"]
    return "".join(f'<th scope="col" aria-sort="none"><button type="button">{head}</button></th>' for head in heads)


def _class_row(c: int, row: ClassRow, with_prototypes: bool) -> str:
    def number(value: float | None, text: str) -> str:
        return f'<td data-value="{"" if value is None else f"{value:.6g}"}">{text}</td>'

    def share(value: float | None) -> str:
        return "\u2013" if value is None else f"{100 * value:.1f} %"

    bar = f'<svg width="48" height="7" aria-hidden="true"><rect height="7" width="{48 * (row.noise or 0):.1f}"/></svg>'
    name = escape(row.name)
    cells = [
        f'<th scope="row" data-value="{name}"><button type="button" data-class="{c}">{name}</button></th>',
        number(row.size, f"{row.size:,}"),
        number(row.moved, f"{row.moved:,}"),
        number(row.arrived, f"{row.arrived:,}"),
        number(row.noise, bar + share(row.noise)),
    ]
    if with_prototypes:
        cells.append(number(row.prototypes, "\u2013" if row.prototypes is None else f"{row.prototypes:,}"))
        cells += [number(row.purity, share(row.purity)), number(row.filtered, share(row.filtered))]
    return f"<tr>{''.join(cells)}</tr>"


def _class_note(rows: Rows, prototypes: Any) -> str:
    text = "Leave and arrive: rows that the suggestions move."
    if prototypes is None:
        return text
    core = "their mean probability of being labeled right" if rows.issue is not None else "the share left unchanged"
    by_contrast = to_numpy(prototypes.consistent).any()
    filtered = "that is denser in another class" if by_contrast else "turned down as too similar to a denser row"
    return f"{text} Core purity: of the prototypes, {core}. Filtered: share of the class {filtered}."


def _image_note(content: Content) -> str:
    pictures, parts = content.pictures, []
    if content.gallery:
        parts.append(f"The {len(content.gallery):,} most suspect rows.")
    for count, what in (
        (pictures.missing, "without an image"),
        (pictures.unreadable, "with an image that cannot be decoded"),
        (pictures.over_budget, "left out to keep this page small"),
    ):
        if count:
            parts.append(f"{count:,} {what}.")
    return " ".join(parts)


def _list_note(listed: int, total: int) -> str:
    return "" if listed == total else f"The list holds the {listed:,} most suspect of {total:,} rows."
