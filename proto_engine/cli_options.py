"""The options of ``proto-engine`` that several commands share, and the parser that takes them."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterable
from typing import Any, NoReturn

from .cli_streams import say
from .ops import ON_BAD_ROWS
from .policy import POLICIES
from .selection import select_prototypes
from .selection_checks import METHODS
from .transform import KINDS

SELECTION = (
    "num_classes",
    "prototypes_per_class",
    "samples_per_class",
    "cutoff_quantile",
    "eta_max",
    "contrast_quantile",
    "method",
    "seed",
    "transform",
)
_DEFAULTS = {name: option.default for name, option in inspect.signature(select_prototypes).parameters.items()}
CORRECTION = ("policy", "min_margin")
RUNNING = ("backend", "on_bad_rows")


class Parser(argparse.ArgumentParser):
    """argparse, with its errors in one line like all the others."""

    def error(self, message: str) -> NoReturn:
        say(f"proto-engine: error: {message} (see {self.prog} --help)")
        self.exit(2)


def _count_or_all(text: str) -> int | None:
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"wanted a whole number or 'all', got {text!r}") from None


def _count_or_share(text: str) -> int | float | str:
    if text == "auto":
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    raise argparse.ArgumentTypeError(f"wanted a whole number, a share such as 0.5, or 'auto', got {text!r}")


def add_inputs(parser: argparse.ArgumentParser, labels: bool, table: bool = False) -> None:
    """What the command reads."""
    text = "[N, D] float features: .npy, .safetensors or .parquet"
    if table:
        text += "; or the table that `proto-engine correct` wrote, without LABELS"
    parser.add_argument("features", metavar="FEATURES", help=text)
    parser.add_argument("--feature-column", metavar="NAME", help="tensor or Parquet column of the features")
    if labels:
        text = "N class numbers or names: .npy, .csv or .parquet"
        parser.add_argument("labels", metavar="LABELS", nargs="?" if table else None, help=text)
        parser.add_argument("--label-column", metavar="NAME", help="CSV or Parquet column of the labels")


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    """What the command writes."""
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help=what)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The arguments of `select_prototypes`."""
    group = parser.add_argument_group("selection of prototypes")

    def add(name: str, kind: Any, metavar: str, text: str, shown: str | None = None) -> None:
        default = str(_DEFAULTS[name]) if shown is None else shown
        # Left out of the namespace when not given: select_prototypes keeps its own defaults.
        group.add_argument(
            option(name),
            type=kind,
            metavar=metavar,
            default=argparse.SUPPRESS,
            help=f"{text} (default {default})",
        )

    add("num_classes", int, "C", "number of classes", "one more than the largest label")
    add("prototypes_per_class", _count_or_share, "P", "prototypes of each class, a share of it such as 0.5, or auto")
    add("samples_per_class", _count_or_all, "M", "rows drawn from each class, or 'all'")
    add("cutoff_quantile", float, "Q", "share of similarities below the cutoff")
    add("eta_max", float, "X", "candidates are less similar than this to every denser row")
    add("contrast_quantile", float, "Q", "density-contrast: share of similarities below the cutoff of all classes")
    add("method", str, "NAME", f"one of {', '.join(METHODS)}")
    add("seed", int, "N", "seed of the draw")
    add("transform", str, "NAME", f"one of {', '.join(KINDS)}: look at centered or whitened features", "none")


def add_correction(parser: argparse.ArgumentParser) -> None:
    """The arguments of `correct_labels`."""
    parser.add_argument(
        "--policy",
        choices=POLICIES,
        help="which labels change: those with clear evidence against them (default), or all whose best score is that "
        "of another class, the published method",
    )
    parser.add_argument("--prototypes", metavar="FILE", help="use these saved prototypes, select none")
    parser.add_argument(
        "--min-margin",
        type=float,
        metavar="X",
        help="keep labels where the best score leads by less than this (default 0)",
    )


def add_running(parser: argparse.ArgumentParser) -> None:
    """How the command runs."""
    parser.add_argument("--backend", metavar="NAME", help="see `proto-engine info` (default auto)")
    parser.add_argument(
        "--on-bad-rows",
        choices=ON_BAD_ROWS,
        help="rows that are zero or not finite: an error, or leave their labels alone (default raise)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress and no notes on stderr")


def given(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Those of the options that the command line has; the others keep the defaults of the functions."""
    # None is a value of --samples-per-class: options of the selection that were not given are not there at all.
    found = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return {name: value for name, value in found.items() if value is not None or name in SELECTION}


def refuse(arguments: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raise ValueError for the first of these options that the command line has: it would do nothing."""
    for name in given(arguments, names):
        raise ValueError(f"{option(name)}: {why}")


def option(name: str) -> str:
    """The option that fills this entry of the namespace."""
    return "--" + name.replace("_", "-")
