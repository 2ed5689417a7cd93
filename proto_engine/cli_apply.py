"""``proto-engine apply``: what a person decided on the page, back into labels or a folder of links."""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np

from .arrays import as_labels
from .cli_paths import check_output, refuse_loss, refuse_same
from .decisions import apply_decisions, read_decisions
from .files import atomic_write, csv_quoting
from .image_files import folder_files, list_image_folder
from .label_tree import write_tree
from .labels import read_label_pair, read_labels

_ENDINGS = (".csv", ".parquet", ".npy")


def add_apply(commands: Any) -> None:
    """The arguments of the command."""
    parser = commands.add_parser("apply", help="decisions made on a report in, labels or a tree of links out")
    parser.add_argument(
        "labels",
        metavar="LABELS",
        help="given labels: .npy, .csv, .parquet, or a folder with a subfolder for each class",
    )
    parser.add_argument("decisions", metavar="DECISIONS", nargs="?", help="the CSV file downloaded from the report")
    parser.add_argument("--label-column", metavar="NAME", help="CSV or Parquet column of the given labels")
    parser.add_argument("-o", "--output", metavar="OUT", help="labels: .csv, .parquet or .npy")
    parser.add_argument(
        "--tree", nargs=2, metavar=("SOURCE", "NEW"), help="link the images of a class folder into a new, corrected one"
    )
    parser.add_argument(
        "--undecided",
        choices=("given", "suggested"),
        default="given",
        help="labels of the rows without a decision; 'suggested' needs the table of `proto-engine correct` as LABELS",
    )
    parser.set_defaults(run=run_apply)


def run_apply(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if arguments.output is None and arguments.tree is None:
        raise ValueError("--output: wanted --output, --tree or both, got neither")
    if arguments.decisions is None and arguments.undecided == "given":
        raise ValueError("decisions: without a file of decisions only --undecided suggested changes anything")
    if arguments.output is not None:
        _check_output(arguments)
    start = None
    if arguments.undecided == "given":
        codes, names = _given(arguments)
    else:
        codes, start, names = _given_and_suggested(arguments)
    decisions, digest = ([], None) if arguments.decisions is None else read_decisions(arguments.decisions)
    result, new_names = apply_decisions(codes, names, decisions, digest, start)
    before, after = _texts(codes, names), _texts(result, new_names)
    changed = sum(old != new for old, new in zip(before, after, strict=True))
    lines = [f"{len(decisions):,} decisions applied, {changed:,} of {len(codes):,} labels changed"]
    if arguments.tree is not None:
        source, target = arguments.tree
        moved = write_tree(source, target, before, after, decisions)
        lines.append(f"{len(after):,} images linked in {target}, {moved:,} of them in another class than before")
    if arguments.output is not None:
        _write(arguments.output, result, after if names is not None else None, np.array(before) != np.array(after))
    print("\n".join(lines))


def _check_output(arguments: argparse.Namespace) -> None:
    path = arguments.output
    check_output(path, _ENDINGS, "--output", arguments.labels, arguments.decisions)
    folders = {"labels": arguments.labels}
    if arguments.tree is not None:
        folders["tree"] = arguments.tree[0]
        refuse_same(path, "--output", arguments.tree[1], "--tree")
    for name, folder in folders.items():
        if os.path.exists(path) and os.path.isdir(folder):
            refuse_loss(path, "--output", folder_files(folder, name))


def _given(arguments: argparse.Namespace) -> tuple[np.ndarray, list[str] | None]:
    if os.path.isdir(arguments.labels):
        if arguments.label_column is not None:
            raise ValueError(f"--label-column: {arguments.labels!r} is a folder, which has no columns")
        _, codes, classes = list_image_folder(arguments.labels, "labels")
        return codes, classes
    codes, names = read_labels(arguments.labels, arguments.label_column)
    return _few_enough(codes), names


def _given_and_suggested(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    """Two columns of one table, in the numbering of the given labels; and their names, perhaps more."""
    path = arguments.labels
    if not path.lower().endswith((".csv", ".parquet")):
        raise ValueError(f"--undecided: {path!r} has no column 'suggested_label'")
    codes, suggested, names, others = read_label_pair(
        path, arguments.label_column, ("suggested_label",), f"--undecided: {path!r}"
    )
    if names is None or others is None:
        return _few_enough(codes), suggested, None
    extended = [*names, *sorted(set(others) - set(names))]
    place = {name: c for c, name in enumerate(extended)}
    return codes, np.array([place[name] for name in others], dtype=np.int64)[suggested], extended


def _few_enough(codes: np.ndarray) -> np.ndarray:
    """Each number up to the largest gets its text, so there is a limit."""
    return as_labels(codes, len(codes), None)


def _texts(codes: np.ndarray, names: list[str] | None) -> list[str]:
    return [str(code) if names is None else names[code] for code in codes.tolist()]


def _write(path: str, codes: np.ndarray, texts: list[str] | None, changed: np.ndarray) -> None:
    labels = codes if texts is None else np.array(texts)
    ending = os.path.splitext(path)[1].lower()
    if ending == ".npy":
        with atomic_write(path) as file:
            np.lib.format.write_array(file, labels, allow_pickle=False)
        return
    import pandas as pd

    frame = pd.DataFrame({"index": np.arange(len(codes)), "label": labels, "changed": changed})
    with atomic_write(path, "w" if ending == ".csv" else "wb") as file:
        if ending == ".csv":
            frame.to_csv(file, index=False, lineterminator="\n", quoting=csv_quoting(texts or ()))
        else:
            frame.to_parquet(file, index=False)
