"""Is the outcome of the whole method right? Class by class in float64, and the corrected labels of all rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from checks import Selected, require
from one_class import HOST_ROWS, SelectionCheck, densities_of
from parts import Case, Variant

import proto_engine as pe
from proto_engine.array_kinds import to_numpy

_LARGE_CLASSES_CHECKED = 2  # float64 takes a second for a class of 71,000 rows; the others must equal each other


def checker(case: Case, inputs: Any) -> Callable[[Variant, Any], None]:
    """What is right of this bank; the first result of ours that float64 confirms stands for the classes that it
    does not look at."""
    checked = range(inputs.classes)
    if inputs.m > HOST_ROWS:
        checked = sorted({0, inputs.classes - 1})[:_LARGE_CLASSES_CHECKED]
    selections = {c: SelectionCheck(_rows(inputs, c)) for c in checked}
    first: list[pe.Prototypes] = []

    def check(variant: Variant, result: Any) -> None:
        if variant.role == "roofline":
            _check_products(inputs, result)
        elif variant.role == "baseline":
            picked, scores = result if isinstance(result, tuple) else (result, None)
            for c, selection in selections.items():
                selection.baseline(picked[c], f"{variant.name}, class {c}")
            if scores is not None:
                _check_scores(inputs, _folded(inputs, picked), *_scores_of(scores), variant, exact=False)
        else:
            prototypes, corrections = result if isinstance(result, tuple) else (result, None)
            for c, selection in selections.items():
                _check_class(inputs, selection, prototypes, c, variant)
            first.append(prototypes)
            _same(first[0], prototypes, variant)
            if corrections is not None:
                folded = to_numpy(prototypes.folded)
                _check_scores(inputs, folded, *_scores_of(vars(corrections)), variant, exact=True)

    return check


def _check_class(inputs: Any, selection: SelectionCheck, found: pe.Prototypes, c: int, variant: Variant) -> None:
    name, rows = f"{variant.name}, class {c}", _rows(inputs, c)
    picks = to_numpy(found.indices)[c]
    local = np.where(picks < 0, -1, picks - c * inputs.m)
    selected = Selected(float(to_numpy(found.cutoff)[c]), None, local[local >= 0])
    selection.ours(selected, name, densities_of(variant.name, rows))
    truth = selection.truth
    rho = to_numpy(found.rho)[c][local >= 0]
    require(np.array_equal(rho, truth.rho[truth.picks]), f"{name}: densities of the picks")


def _same(first: pe.Prototypes, found: pe.Prototypes, variant: Variant) -> None:
    for field in ("indices", "cutoff", "rho", "eta", "counts"):
        right, got = to_numpy(getattr(first, field)), to_numpy(getattr(found, field))
        equal = np.array_equal(right, got, equal_nan=field == "eta")
        require(equal, f"{variant.name}: {field} differs from the first of ours")


def _scores_of(found: dict[str, Any]) -> tuple[np.ndarray, ...]:
    return tuple(to_numpy(found[name]) for name in ("labels", "score", "margin"))


def _check_scores(
    inputs: Any,
    folded: np.ndarray,
    labels: np.ndarray,
    score: np.ndarray,
    margin: np.ndarray,
    variant: Variant,
    *,
    exact: bool,
) -> None:
    from truth import ScoreTruth

    if inputs.classes > 1:
        ScoreTruth(inputs.tensor.flatten(0, 1), folded).check(labels, score, margin, exact=exact, name=variant.name)
    else:
        require(not labels.any(), f"{variant.name}: another label than the only one")


def _folded(inputs: Any, picked: list[Selected]) -> np.ndarray:
    """The mean unit prototype of each class, in float64.   [C, D]"""
    from truth import as_tensor, unit_rows

    return np.stack(
        [
            unit_rows(as_tensor(_rows(inputs, c))[found.picks]).mean(dim=0).cpu().numpy()
            for c, found in enumerate(picked)
        ]
    )


def _check_products(inputs: Any, result: Any) -> None:
    """Of torch.bmm every class, else the rows that remain of the last one."""
    from products import Piece, check_product

    if result.ndim == 3:
        for c in range(inputs.classes):
            check_product(inputs.tensor[c], Piece(0, result[c]), rounds=False)
    else:
        check_product(inputs.tensor[-1], Piece(inputs.m - len(result), result), rounds=False)


def _rows(inputs: Any, c: int) -> Any:
    """Rows of a class, in the kind of the bank.   [m, D]"""
    return inputs.bank[c * inputs.m : (c + 1) * inputs.m]
