"""``proto-engine report`` and ``--report``: the page, with images and decision graphs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .bank import FeatureBank
from .class_names import load_with_names, renumber
from .cli_paths import refuse_loss
from .figures import most_changed
from .image_files import ParquetImages, folder_files
from .prototypes import Prototypes
from .report import decision_graphs, write_report
from .report.table import read_table
from .report.thumbnails import check_pillow
from .transform import in_space

PAGE_ENDINGS = (".html", ".htm")
PAGE_OPTIONS = ("images", "image_column", "title")
_MAX_GRAPHS = 30  # classes: a graph takes a tenth of a second and eight kilobytes


def add_page(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what the page shows besides numbers."""
    group = parser.add_argument_group("report")
    group.add_argument(
        "--images",
        metavar="PATH",
        help="images of the rows: a folder with a subfolder for each class, or a .parquet file",
    )
    group.add_argument("--image-column", metavar="NAME", help="Parquet column of the images (bytes or paths)")
    group.add_argument("--title", metavar="TEXT", help="heading of the page (default: the name of the labels' file)")


def open_images(arguments: argparse.Namespace, outputs: Mapping[str, str]) -> Any:
    """The images, if there are any, before hours of work; none of them may be an output (option: path)."""
    path = arguments.images
    if path is None:
        if arguments.image_column is not None:
            raise ValueError("--image-column: wanted --images too")
        return None
    if not os.path.exists(path):
        raise FileNotFoundError(f"--images: {path!r} does not exist")
    check_pillow()
    images: Any
    if os.path.isdir(path):
        if arguments.image_column is not None:
            raise ValueError(f"--image-column: {path!r} is a folder, which has no columns")
        images = files = folder_files(path, "--images")
    else:
        images = ParquetImages(path, arguments.image_column)
        files = images.files
    for option, output in outputs.items():
        refuse_loss(output, option, files)
    return images


def check_count(arguments: argparse.Namespace, images: Any, num_samples: int) -> None:
    """Raise ValueError unless there is an image for each row."""
    if images is not None and len(images) != num_samples:
        raise ValueError(
            f"--images: wanted {num_samples:,} images, one a row, {arguments.images!r} has {len(images):,}"
        )


def page_of_table(arguments: argparse.Namespace, images: Any) -> None:
    """Write the page about a table that `proto-engine correct` wrote."""
    table, names = read_table(arguments.features)
    check_count(arguments, images, len(table))
    prototypes = None
    if arguments.prototypes is not None:
        prototypes, class_names = load_with_names(arguments.prototypes)
        given, suggested = (renumber(codes, names, class_names) for codes in (table.given, table.labels))
        table, names = replace(table, given=given, labels=suggested), class_names
    write_page(arguments, arguments.output, images, table, names, prototypes)


def write_page(
    arguments: argparse.Namespace,
    path: str,
    images: Any,
    found: Any,
    names: list[str] | None,
    prototypes: Prototypes | None = None,
    bank: FeatureBank | None = None,
) -> None:
    """Write the page about a correction."""
    graphs = None
    if bank is not None and prototypes is not None:
        classes = most_changed(found.given, found.labels, prototypes.num_classes, _MAX_GRAPHS).tolist()
        quantile = getattr(arguments, "cutoff_quantile", 0.6)
        rows = in_space(bank, prototypes.transform)
        own = prototypes if _picked_here(prototypes, found.given) else None
        graphs = decision_graphs(
            rows, found.given, own, classes=classes, cutoff_quantile=quantile, backend=_graph_backend(arguments)
        )
    source = getattr(arguments, "labels", None) or arguments.features
    write_report(
        path,
        found,
        prototypes=prototypes,
        class_names=names,
        images=images,
        title=arguments.title or Path(source).name,
        decision_graph=graphs,
    )


def _picked_here(prototypes: Prototypes, given: np.ndarray) -> bool:
    """Whether the prototypes are rows of this bank; saved ones may be of another."""
    rows = [(c, indices[indices >= 0]) for c, indices in enumerate(prototypes.indices)]
    return all(len(own) == 0 or (own.max() < len(given) and bool((given[own] == c).all())) for c, own in rows)


def _graph_backend(arguments: argparse.Namespace) -> str:
    """The backend asked for; FAISS only scores."""
    return "auto" if arguments.backend in (None, "faiss") else arguments.backend
