"""The lines of the paper's tables: each is a way to train, said as what differs from the data set's recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from proto_trainer import TrainConfig

Row = dict[str, Any]

# What tables vary. A row belongs to a line when these settings are the line's, whatever the others are.
VARIED = ("method", "selector", "samples_per_class", "prototypes_per_class", "alpha")
DEFAULTS = {f.name: f.default for f in fields(TrainConfig) if f.default is not MISSING}
NOISY, VERIFIED, CLEAN = "noisy", "verified", "clean"


@dataclass(frozen=True)
class Variant:
    """One line of a table.

    Attributes
    ----------
    line : str
        Its name, the same as in `paper_numbers.PAPER`.
    method : str
    supervision : str
        What is known beside the noisy labels: nothing (``noisy``), for some images whether the label is right
        (``verified``), or also their true label (``clean``).
    settings : mapping
        Of `make_config`.
    """

    line: str
    method: str = "smp"
    supervision: str = NOISY
    settings: Mapping[str, Any] = field(default_factory=dict)

    def has(self, row: Row) -> bool:
        """Whether a row is a run of this variant."""
        wanted = {name: DEFAULTS[name] for name in VARIED} | {"method": self.method} | dict(self.settings)
        found = DEFAULTS | row["settings"]
        return row["supervision"] == self.supervision and all(found[name] == wanted[name] for name in VARIED)


@dataclass(frozen=True)
class Table:
    """A table of the paper: its lines, and the columns of the rows that it shows."""

    title: str
    variants: tuple[Variant, ...]
    columns: tuple[str, ...]


def _method(method: str, supervision: str = NOISY) -> Variant:
    return Variant(method if supervision == NOISY else f"{method} + {supervision}", method, supervision)


def _vary(name: str, lines: Mapping[str, Any], *supervisions: str) -> tuple[Variant, ...]:
    """Self-correction with each value of one setting."""
    return tuple(
        Variant(line if kind == NOISY else f"{line} + {kind}", supervision=kind, settings={name: value})
        for kind in supervisions
        for line, value in lines.items()
    )


_TEST = ("test_accuracy", "test_accuracy_best")
_LABELS = ("label_accuracy_given", "label_accuracy_first", "label_accuracy_last")

TABLES: dict[str, Table] = {
    "methods": Table(
        "Methods",
        (
            *map(_method, ("ce", "forward", "joint", "mlnt", "smp")),
            _method("cleannet-hard", VERIFIED),
            _method("cleannet-soft", VERIFIED),
        ),
        (*_TEST, *_LABELS),
    ),
    "extra": Table(
        "Verified and clean labels",
        (
            *(_method(method, VERIFIED) for method in ("forward", "cleannet-hard", "cleannet-soft", "smp")),
            *(_method(method, CLEAN) for method in ("ce", "forward", "cleannet-soft", "smp")),
        ),
        (*_TEST, *_LABELS),
    ),
    "samples": Table(
        "Images drawn per class, m",
        _vary("samples_per_class", {f"m = {m}": m for m in (320, 640, 1280, 2560)}, NOISY, VERIFIED),
        ("test_accuracy_first", "test_accuracy", *_LABELS[1:]),
    ),
    "selectors": Table(
        "How prototypes are picked",
        _vary(
            "selector",
            {
                "k-means++": "kmeans++",
                "density peaks, Euclidean": "density-peaks-euclidean",
                "density peaks": "density-peaks",
                "density contrast": "density-contrast",  # not in the paper
            },
            NOISY,
            VERIFIED,
        ),
        (*_TEST, *_LABELS[1:]),
    ),
    "label-accuracy": Table("Label accuracy", (_method("smp"),), (*_LABELS, "label_accuracy_least")),
    "alpha": Table(
        "Weight of the corrected labels, alpha",
        _vary("alpha", {f"alpha = {a:g}": a for a in (0.0, 0.25, 0.5, 0.75, 1.0)}, NOISY),
        (*_TEST, *_LABELS[1:]),
    ),
    "prototypes": Table(
        "Prototypes per class, p",
        _vary("prototypes_per_class", {f"p = {p}": p for p in (1, 2, 4, 6, 8, 10)}, NOISY),
        (*_TEST, *_LABELS[1:]),
    ),
}


def rival_settings(method: str, data: str, noise: str) -> dict[str, float]:
    """The settings that the authors of a rival method give for this case, where they are not the default."""
    if method != "joint":
        return {}
    if data == "clothing1m":
        return {"prior_weight": 2.4, "entropy_weight": 0.8}
    return {"prior_weight": 0.8, "entropy_weight": 0.4} if noise.startswith("pairflip") else {}
