"""The parts of a benchmark: its variants, what it does on the host and on a GPU, and how one says no."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from places import Place

Case = dict[str, Any]  # whole numbers by name, and on a GPU the "dtype"
Work = dict[str, "float | None"]  # {"flops": ..., "bytes": ...} of a task


class CheckFailed(Exception):
    """A variant returned something wrong: there is nothing to time."""


class Unavailable(Exception):
    """A variant cannot run here; the message says why."""


@dataclass(frozen=True)
class Variant:
    """One way to compute the thing.

    Attributes
    ----------
    name : str
        What is run, such as "cpu" or "torch.mm".
    task : str
        What is computed, such as "select_prototypes"; variants of one task are comparable.
    role : {"ours", "baseline", "roofline"}
    threads : int
        Of the host; a GPU takes all that it has.
    call : callable
        Takes the case's inputs; returns what the check looks at.
    needs_bytes : int
        Rough peak of memory, inputs left out, for variants that may not fit.
    ends_on_host : bool
        On a GPU: the result is host data, so the wall clock from call to result is what counts.
        Others are timed between two events of the GPU.
    work : dict, optional
        {"flops", "bytes"} of this variant where it is not that of the case.
    meter : {"allocators", "free memory"}
        On a GPU: how its memory is measured, see `gpu_memory`.
    """

    name: str
    task: str
    role: str
    threads: int
    call: Callable[[Any], Any]
    needs_bytes: int = 0
    ends_on_host: bool = False
    work: Work | None = None
    meter: str = "allocators"

    @property
    def key(self) -> str:
        """Tells the variants of a case apart."""
        return f"{self.name}/{self.task}/{self.threads}"


@dataclass(frozen=True)
class Side:
    """A benchmark on one kind of place.

    Attributes
    ----------
    cases, quick, gpu_check : sequences of dict
        All cases; tiny ones; those of ``make gpu-check``, the most important first.
    inputs : callable
        Case, folder and place to inputs; the same for the same case, in any process.
    variants : callable
        Case and place to the list of variants.
    checker : callable
        Case and inputs to a function ``check(variant, result)`` that raises `CheckFailed`.
    check_without : tuple of str
        Variants that ``make gpu-check`` has no time for.
    prepare : callable
        Case and folder: write the files that the inputs need there.
    tiny : callable
        Case to a case of the same kind so small that computing it only loads libraries.
    """

    cases: Sequence[Case]
    quick: Sequence[Case]
    inputs: Callable[[Case, Path, Place], Any]
    variants: Callable[[Case, Place], list[Variant]]
    checker: Callable[[Case, Any], Callable[[Variant, Any], None]]
    gpu_check: Sequence[Case] = ()
    check_without: tuple[str, ...] = ()
    prepare: Callable[[Case, Path], None] = lambda case, folder: None
    tiny: Callable[[Case], Case] = lambda case: {**case, "m": min(case["m"], 512)}


@dataclass(frozen=True)
class Bench:
    """A benchmark: the name of its result file, its script, the names of a case's sizes in the order of
    ``--size``, the nominal work of a case, and its two sides."""

    name: str
    script: Path
    sizes: tuple[str, ...]
    work: Callable[[Case], Work]
    host: Side
    gpu: Side
