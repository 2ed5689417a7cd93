"""Decision graphs: density against similarity to the nearest denser row, for a sample of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import as_bank, as_labels, to_numpy
from ..ops import check_count
from ..peaks import density_peaks
from ..prototypes import Prototypes
from ..sampling import class_pools
from ..transform import in_space

_MAX_FORCED = 200  # prototypes that are sure to be in the sample: more would change its density


def decision_graphs(
    features: Any,
    labels: Any,
    prototypes: Prototypes | None = None,
    *,
    classes: Sequence[int] | None = None,
    samples_per_class: int = 1000,
    cutoff_quantile: float = 0.6,
    backend: str = "auto",
    seed: int = 0,
) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """rho and eta of a sample of each class, as `write_report` draws them.

    Parameters
    ----------
    features : array or FeatureBank, [N, D]
        float16, bfloat16, float32 or float64. Rows that are zero or not finite are left out.
    labels : array of int, [N]
        Given labels.
    prototypes : Prototypes, optional
        Selected from the same rows, which go through their transform. The first 200 of each class, or as many as are
        drawn, are always part of the sample.
    classes : sequence of int, optional
        Only these classes; by default all that have rows.
    samples_per_class : int
        Rows drawn from each class.
    cutoff_quantile : float
        As in `density_peaks`.
    backend : str
        "auto" or a name from `backends`.
    seed : int
        Seed of the draw.

    Returns
    -------
    dict of int to (rho, eta, is_prototype)
        int64, float64 and bool arrays [m] for each class with at least two usable rows.

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong dtype, shape or range.
    BackendUnavailable
        The named backend cannot run here.
    """
    bank = as_bank(features)
    given = as_labels(labels, len(bank), None)
    count = check_count(samples_per_class, "samples_per_class", 2)
    size = int(given.max(initial=-1)) + 1
    preferred = np.zeros(len(bank), dtype=bool)
    core = np.empty(0, np.int64)
    if prototypes is not None:
        bank = in_space(bank, prototypes.transform)
        indices = to_numpy(prototypes.indices)  # [C, p]
        core = indices[indices >= 0]
        if core.max(initial=-1) >= len(bank):
            raise ValueError(f"prototypes: wanted rows of the {len(bank)} given, got row {int(core.max())}")
        first = indices[:, : min(_MAX_FORCED, count)]
        preferred[first[first >= 0]] = True
    graphs = {}
    for c, pool in enumerate(class_pools(given, size, count, seed, preferred=preferred)):
        if (classes is not None and c not in classes) or len(pool) < 2:
            continue
        rows = bank.rows(pool)
        values = to_numpy(rows).astype(np.float64)
        good = np.isfinite(values).all(axis=1) & (values != 0).any(axis=1)
        if good.sum() < 2:
            continue
        rows = rows if good.all() else bank.rows(pool[good])
        peaks = density_peaks(rows, cutoff_quantile=cutoff_quantile, backend=backend)
        graphs[c] = (to_numpy(peaks.rho), to_numpy(peaks.eta), np.isin(pool[good], core))
    return graphs
