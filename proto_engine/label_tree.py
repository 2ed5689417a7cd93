"""A corrected image folder made of symbolic links: the originals stay where they are and as they are."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from .decisions import Decision
from .image_files import list_image_folder


def write_tree(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    given: Sequence[str],
    labels: Sequence[str],
    decisions: Sequence[Decision] = (),
) -> int:
    """Link every image of ``source`` into a new folder ``target``, under the class that it has now.

    Parameters
    ----------
    source : str or os.PathLike
        A subfolder for each class, as torchvision's ``ImageFolder`` reads it. Row k is its k-th image.
    target : str or os.PathLike
        Must not exist. It appears complete or not at all.
    given, labels : sequence of str, [N]
        Each row's label before and after: names of subfolders, or their numbers.
    decisions : sequence of Decision
        Where they name a path, it is compared with the row's.

    Returns
    -------
    int
        Images that are in another class now. Their file names start with the class they came from.

    Notes
    -----
    Links are absolute. Every class of ``source`` keeps its folder, even if it is empty now, so that the classes
    keep their numbers.

    Raises
    ------
    FileExistsError
        ``target`` exists.
    ValueError
        The images are not the rows of the labels, or a label cannot be the name of a folder.
    OSError
        A folder cannot be read or written.
    """
    goal, root = Path(os.path.abspath(target)), Path(os.path.abspath(source))
    if os.path.lexists(goal):
        raise FileExistsError(f"tree: {os.fspath(target)!r} exists; wanted a new folder")
    if not goal.parent.is_dir():
        raise FileNotFoundError(f"tree: the folder {str(goal.parent)!r} does not exist")
    if Path(os.path.realpath(root)) in Path(os.path.realpath(goal)).parents:
        raise ValueError(f"tree: {os.fspath(target)!r} lies within {os.fspath(source)!r}, which stays as it is")
    paths, codes, classes = list_image_folder(root, "tree")
    if len(paths) != len(labels):
        raise ValueError(f"tree: wanted {len(labels):,} images, one for each label, {str(root)!r} has {len(paths):,}")
    named = _folders(given, classes, "given label")
    wrong = next((row for row, c in enumerate(codes.tolist()) if named[given[row]] != classes[c]), None)
    if wrong is not None:
        raise ValueError(f"tree: row {wrong} was given {given[wrong]!r}, but is {paths[wrong]!r} in {str(root)!r}")
    for decision in decisions:
        path = paths[decision.index]
        if decision.path and not f"/{path}".endswith("/" + decision.path.replace(os.sep, "/").lstrip("/")):
            raise ValueError(f"tree: row {decision.index} was {decision.path!r}, but is {path!r} in {str(root)!r}")
    places = _folders(labels, classes, "label")
    building = goal.with_name(f".{goal.name[:40]}.{secrets.token_hex(8)}.tmp")
    building.mkdir()
    try:
        moved = _link(root, building, paths, [places[label] for label in labels], classes)
        os.rename(building, goal)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return moved


def _folders(labels: Sequence[str], classes: list[str], what: str) -> dict[str, str]:
    """The folder of each label. Numbers count the sorted folders unless they are names of folders themselves."""
    folders = {}
    for label in set(labels):
        if label in classes:
            folders[label] = label
        elif label.isascii() and label.isdigit() and len(label) < 10 and int(label) < len(classes):
            folders[label] = classes[int(label)]
        elif label in ("", ".", "..") or any(sign in label for sign in ("/", "\\", "\0")):
            raise ValueError(f"tree: the {what} {label!r} cannot be the name of a folder")
        else:
            folders[label] = label
    return folders


def _link(root: Path, building: Path, paths: list[str], places: list[str], classes: list[str]) -> int:
    for name in sorted({*classes, *places}):
        (building / name).mkdir()
    moved = []
    for row, (path, place) in enumerate(zip(paths, places, strict=True)):
        folder, _, inside = path.partition("/")
        if folder != place:
            moved.append((row, folder, inside, place))
            continue
        link = building / place / inside
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(root / path)
    for row, folder, inside, place in moved:  # after all others, whose names they must not take
        link = building / place / f"{folder}--{inside.replace('/', '--')}"
        if os.path.lexists(link):
            link = link.with_name(f"{link.stem}--{row}{link.suffix}")
        link.symlink_to(root / paths[row])
    return len(moved)
