"""The command ``proto-engine``: files in, files out, one table at the end."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from .backends import backends, self_check
from .backends.gpu_record import recorded_runs
from .bank import FeatureBank
from .class_names import load_with_names, renumber
from .cli_apply import add_apply
from .cli_options import (
    CORRECTION,
    RUNNING,
    SELECTION,
    Parser,
    add_correction,
    add_inputs,
    add_output,
    add_running,
    add_selection,
    given,
    option,
    refuse,
)
from .cli_page import PAGE_ENDINGS, PAGE_OPTIONS, add_page, check_count, open_images, page_of_table, write_page
from .cli_paths import check_output, refuse_same
from .cli_report import correction_report, selection_report
from .cli_streams import abandon, notes_shown, prepare_streams, say, terminated_in_order
from .corrections import OUTPUT_ENDINGS, Corrections
from .files import atomic_write
from .labels import read_labels
from .prototypes import Prototypes
from .scoring import correct_labels, score_samples
from .selection import select_prototypes
from .versions import __version__, show_versions


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0, 2 for an error, 130 for Ctrl-C)."""
    prepare_streams()
    arguments = _parser().parse_args(argv)
    try:
        notes = notes_shown(not getattr(arguments, "quiet", True))
        with terminated_in_order(), notes, warnings.catch_warnings():
            warnings.showwarning = _show_warning
            arguments.run(arguments)
        if sys.stdout is not None:  # as under pythonw, or closed by the caller
            sys.stdout.flush()
    except KeyboardInterrupt:
        say("proto-engine: interrupted")
        return 130
    except BrokenPipeError:  # the reader of the table left, as `head` does; the files are written
        abandon(sys.stdout)
        return 0
    except (ValueError, TypeError, OSError, RuntimeError, MemoryError, ImportError, OverflowError) as error:
        say(f"proto-engine: error: {_one_line(error)}")
        return 2
    return 0


def _correct(arguments: argparse.Namespace) -> None:
    inputs = (arguments.features, arguments.labels, arguments.prototypes, arguments.images)
    check_output(arguments.output, OUTPUT_ENDINGS, "--output", *inputs)
    images = None
    if arguments.report is None:
        refuse(arguments, PAGE_OPTIONS, "wanted --report too")
    else:
        check_output(arguments.report, PAGE_ENDINGS, "--report", *inputs)
        refuse_same(arguments.report, "--report", arguments.output, "--output")
        images = open_images(arguments, {"--output": arguments.output, "--report": arguments.report})
    bank, names, prototypes, found = _corrected(arguments, images)
    found.save(arguments.output, names)
    lines = [correction_report(found.summary(prototypes.num_classes), names)]
    if arguments.report is not None:
        write_page(arguments, arguments.report, images, found, names, prototypes, bank)
        lines.append(f"report written to {arguments.report}")
    print("\n".join(lines))  # after all files: whatever becomes of stdout, they are there


def _report(arguments: argparse.Namespace) -> None:
    inputs = (arguments.features, arguments.labels, arguments.prototypes, arguments.images)
    check_output(arguments.output, PAGE_ENDINGS, "--output", *inputs)
    if arguments.labels is None:
        names = ("feature_column", "label_column", *SELECTION, *CORRECTION, *RUNNING)
        refuse(arguments, names, "wanted LABELS too; a table of corrections leaves no room for it")
    images = open_images(arguments, {"--output": arguments.output})
    if arguments.labels is None:
        page_of_table(arguments, images)
    else:
        bank, class_names, prototypes, found = _corrected(arguments, images)
        write_page(arguments, arguments.output, images, found, class_names, prototypes, bank)
    print(f"report written to {arguments.output}")


def _corrected(
    arguments: argparse.Namespace, images: Any
) -> tuple[FeatureBank, list[str] | None, Prototypes, Corrections]:
    bank = FeatureBank.open(arguments.features, column=arguments.feature_column)
    check_count(arguments, images, len(bank))
    labels, names = read_labels(arguments.labels, arguments.label_column)
    if arguments.prototypes is None:
        prototypes = _selected(arguments, bank, labels, names)
    else:
        for name in given(arguments, SELECTION):
            raise ValueError(f"--prototypes: saved prototypes leave no room for {option(name)}")
        prototypes, class_names = load_with_names(arguments.prototypes)
        labels, names = renumber(labels, names, class_names), class_names
    options = {"policy": "confident", **given(arguments, (*CORRECTION, *RUNNING))}
    found = correct_labels(bank, labels, prototypes, progress=not arguments.quiet, **options)
    return bank, names, prototypes, found


def _select(arguments: argparse.Namespace) -> None:
    check_output(arguments.output, (".safetensors",), "--output", arguments.features, arguments.labels)
    bank = FeatureBank.open(arguments.features, column=arguments.feature_column)
    labels, names = read_labels(arguments.labels, arguments.label_column)
    prototypes = _selected(arguments, bank, labels, names)
    prototypes.save(arguments.output, class_names=names)
    print(selection_report(prototypes, np.bincount(labels, minlength=prototypes.num_classes), names))


def _score(arguments: argparse.Namespace) -> None:
    inputs = (arguments.features, arguments.prototypes)
    ending = check_output(arguments.output, (".npy", ".parquet"), "--output", *inputs)
    bank = FeatureBank.open(arguments.features, column=arguments.feature_column)
    prototypes, names = load_with_names(arguments.prototypes)
    scores = score_samples(bank, prototypes, progress=not arguments.quiet, **given(arguments, RUNNING))  # [N, C]
    with atomic_write(arguments.output) as file:
        if ending == ".npy":
            np.lib.format.write_array(file, scores, allow_pickle=False)
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            labels = names or [str(label) for label in range(scores.shape[1])]
            columns = [np.ascontiguousarray(column) for column in scores.T]
            pq.write_table(pa.table(columns, names=[f"score_{label}" for label in labels]), file)
    print(f"{scores.shape[0]:,} x {scores.shape[1]:,} scores written to {arguments.output}")


def _info(arguments: argparse.Namespace) -> None:
    show_versions()
    unavailable = {name for name, reason in backends().items() if reason is not None}  # said already
    for name, reason in self_check().items():
        if name not in unavailable:
            print(f"self-check {name:<10} {'passed' if reason is None else reason}")
    for run in recorded_runs():
        print(f"verified on {run['device']}, {run['date']}: {', '.join(sorted(run['verified'])) or 'nothing'}")


def _selected(
    arguments: argparse.Namespace, bank: FeatureBank, labels: np.ndarray, names: list[str] | None
) -> Prototypes:
    options = given(arguments, SELECTION)
    if "contrast_quantile" in options and options.get("method") != "density-contrast":
        raise ValueError("--contrast-quantile: wanted --method density-contrast too")
    if names is not None and options.setdefault("num_classes", len(names)) != len(names):
        raise ValueError(f"--num-classes: the labels are {len(names)} names, got {options['num_classes']}")
    return select_prototypes(bank, labels, **options, **given(arguments, RUNNING))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"out of memory{': ' + text if text else ''}"
    return text or type(error).__name__


def _show_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    say(f"proto-engine: warning: {' '.join(str(message).split())}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="proto-engine",
        description="Correct noisy class labels with density-peak prototypes of deep features.",
    )
    parser.add_argument("--version", action="version", version=f"proto-engine {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    correct = commands.add_parser("correct", help="features and labels in, corrected labels out")
    add_inputs(correct, labels=True)
    add_output(correct, "corrected labels: .parquet or .csv")
    add_selection(correct)
    add_correction(correct)
    correct.add_argument("--report", metavar="FILE", help="write a page to look at too: .html")
    add_page(correct)
    add_running(correct)
    correct.set_defaults(run=_correct)

    select = commands.add_parser("select", help="pick the prototypes of each class and save them")
    add_inputs(select, labels=True)
    add_output(select, "prototypes: .safetensors")
    add_selection(select)
    add_running(select)
    select.set_defaults(run=_select)

    score = commands.add_parser("score", help="score every row for every class")
    add_inputs(score, labels=False)
    score.add_argument("prototypes", metavar="PROTOTYPES", help="file written by `proto-engine select`")
    add_output(score, "scores, one column a class: .npy or .parquet")
    add_running(score)
    score.set_defaults(run=_score)

    report = commands.add_parser("report", help="a page to look at, from features and labels or from corrected labels")
    add_inputs(report, labels=True, table=True)
    add_output(report, "the page: .html")
    add_page(report)
    add_selection(report)
    add_correction(report)
    add_running(report)
    report.set_defaults(run=_report)

    add_apply(commands)

    info = commands.add_parser(
        "info", help="print versions, which backends can run here, and whether they compute right"
    )
    info.set_defaults(run=_info)
    return parser


if __name__ == "__main__":
    sys.exit(main())
