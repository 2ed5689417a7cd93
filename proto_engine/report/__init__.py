"""The report: one HTML page with all its data inside, to look at a correction and to decide row by row."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..files import atomic_write, check_ending
from .graphs import decision_graphs
from .numbers import Rows, core_rows, gather
from .page import Content, render
from .thumbnails import MAX_PROTOTYPES, MAX_SUSPECTS, Thumbnails, make_thumbnails

__all__ = ["decision_graphs", "write_report"]


def write_report(
    path: str | os.PathLike[str],
    corrections: Any,
    *,
    prototypes: Any = None,
    class_names: Sequence[Any] | None = None,
    images: Sequence[Any] | None = None,
    title: str | None = None,
    decision_graph: Mapping[int, Sequence[Any]] | None = None,
) -> None:
    """Write one self-contained HTML page about a correction; it needs no network and no other file.

    Parameters
    ----------
    path : str or os.PathLike
        Ends in ``.html``.
    corrections : Corrections
        ``labels given score margin changed`` [N]. Where it has them, ``issue_score`` [N] (probability that the
        given label is wrong) and ``probability`` [N] (of the suggested label) are shown too.
    prototypes : Prototypes, optional
        For the table of classes and the pictures of the prototypes.
    class_names : sequence, optional
        Name of each class, where the labels are class numbers.
    images : sequence, [N], optional
        A path, the bytes of an encoded image, or None for each row. The 500 most suspect rows and up to 300
        prototypes are embedded as small JPEG pictures, 8 MB at most.
    title : str, optional
        Heading of the page.
    decision_graph : mapping of int to (rho, eta) or (rho, eta, is_prototype), optional
        For each class arrays [m], as `decision_graphs` gives them. Without ``is_prototype`` the prototypes' own
        rho and eta are drawn, which is right where the graph is that of the pool they were picked from.

    Raises
    ------
    ValueError, TypeError
        Columns that do not fit together; another ending.
    ImportError
        Images were given and Pillow is missing.
    OSError
        The file cannot be written.
    """
    check_ending(path, (".html", ".htm"), "path")
    rows = gather(corrections, class_names, prototypes)
    if images is not None and len(images) != len(rows):
        raise ValueError(f"images: wanted one for each of {len(rows)} rows, got {len(images)}")
    suspects = rows.suspects()
    shown, pictures = _prototypes_shown(rows, prototypes), Thumbnails()
    gallery = [] if images is None else suspects[:MAX_SUSPECTS].tolist()
    if images is not None:
        pictures = make_thumbnails(images, gallery + [row for members in shown.values() for row in members])
    content = Content(
        title=title or "Label report",
        rows=rows,
        suspects=suspects,
        gallery=gallery,
        prototype_rows=shown if images is not None else {},
        pictures=pictures,
        paths=_paths(images),
        prototypes=prototypes,
        graphs=_graphs(decision_graph, prototypes, len(rows.names)),
    )
    with atomic_write(path, "w") as file:
        file.write(render(content))


def _prototypes_shown(rows: Rows, prototypes: Any) -> dict[int, list[int]]:
    """The first prototypes of each class, as many of each as fit among all."""
    core = core_rows(rows, prototypes)
    each = max(MAX_PROTOTYPES // max(len(core), 1), 1)
    return {c: members[:each].tolist() for c, members in list(core.items())[:MAX_PROTOTYPES]}


def _paths(images: Sequence[Any] | None) -> list[str] | None:
    """What the rows are called: paths below their common folder."""
    if images is None:
        return None
    known = getattr(images, "paths", None)
    if known is not None:
        return list(known)
    texts = [os.fspath(value) if isinstance(value, (str, os.PathLike)) else "" for value in images]
    folders = {os.path.dirname(text) for text in texts if text}
    if not folders:
        return None
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # some absolute, some not
        common = ""
    return [os.path.relpath(text, common) if text and common else text for text in texts]


def _graphs(
    given: Mapping[int, Sequence[Any]] | None, prototypes: Any, num_classes: int
) -> dict[int, list[np.ndarray]]:
    """[rho, eta, rho and eta of the prototypes] of each class."""
    graphs = {}
    for c, arrays in (given or {}).items():
        if not 0 <= c < num_classes:
            raise ValueError(f"decision_graph: wanted classes 0 to {num_classes - 1}, got {c}")
        rho, eta, *marks = (to_numpy(array) for array in arrays)
        if rho.ndim != 1 or eta.shape != rho.shape or (marks and marks[0].shape != rho.shape):
            raise ValueError(f"decision_graph: wanted arrays of one length for class {c}, got {rho.shape}, {eta.shape}")
        if marks:
            marked = marks[0].astype(bool)
            points = [rho[~marked], eta[~marked], rho[marked], eta[marked]]
        elif prototypes is not None and c < prototypes.num_classes:
            count = int(to_numpy(prototypes.counts)[c])
            points = [rho, eta, to_numpy(prototypes.rho)[c, :count], to_numpy(prototypes.eta)[c, :count]]
        else:
            points = [rho, eta, rho[:0], eta[:0]]
        graphs[int(c)] = [np.asarray(array, dtype=np.float32) for array in points]
    return graphs
