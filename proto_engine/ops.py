"""The five operations of the method, with every check of their arguments: normalize cutoff density eta score.

Each is one step over one matrix of features, for those who build something of their own; the whole
method is `select_prototypes` and `correct_labels`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import ArrayKind, as_matrix, kind_of, to_numpy
from .backends import choose
from .backends.base import Backend, Pool, eta_of, usable

_ROWS_NAMED = 5
_LONGEST = float(np.finfo(np.float32).max)
_BITS_SHOWN = 128

ON_BAD_ROWS = ("raise", "keep-label")  # what may be done with rows that are zero or not finite


@dataclass(frozen=True)
class Resolved:
    """A backend, and the kind of array to answer in."""

    backend: Backend
    kind: ArrayKind

    def native(self, rows: Any) -> Any:
        """Rows as the backend wants them."""
        return self.backend.native(rows)


def resolve(features: Any, backend: str) -> Resolved:
    """Choose the backend for checked features.

    Raises
    ------
    TypeError
        Not a name.
    ValueError
        Unknown name, or a host backend for features on a GPU.
    BackendUnavailable
        The named backend cannot run here.
    """
    if not isinstance(backend, str):
        raise TypeError(f"backend: wanted 'auto' or a name from backends(), got {type(backend).__name__}")
    kind = kind_of(features)
    chosen = choose(backend, on_cpu=kind.on_cpu, device=kind.device)
    if not kind.on_cpu and not chosen.takes_device_arrays:
        raise ValueError(
            f"backend: wanted one that computes on {kind}, where the features are, got {chosen.name!r}; "
            f"pass {kind.to_host} or another backend"
        )
    return Resolved(chosen, kind)


def bad_rows_message(bad: np.ndarray, num_rows: int, *, transformed: bool = False) -> str:
    """The message for rows without a direction, given their row numbers."""
    first = ", ".join(map(str, bad[:_ROWS_NAMED])) + (", ..." if len(bad) > _ROWS_NAMED else "")
    return (
        f"features: wanted finite rows that are not all zero{' after the transform' * transformed}, "
        f"got {len(bad)} of {num_rows} rows with NaN, "
        f'infinity or zero norm (rows {first}); on_bad_rows="keep-label" leaves such rows out'
    )


def check_fraction(value: Any, name: str) -> float:
    """A number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: wanted a number from 0 to 1, got {type(value).__name__}")
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}: wanted a number from 0 to 1, got {_shown(value)}")
    return float(value)


def check_number(value: Any, name: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: wanted a number, got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name}: wanted a finite number, got {_shown(value)}")
    return number


def check_count(value: Any, name: str, least: int = 1, most: int | None = None) -> int:
    """A whole number of at least ``least``, and at most ``most`` where there is such a limit."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: wanted a whole number, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: wanted {least} or more, got {_shown(value)}")
    if most is not None and value > most:
        raise ValueError(f"{name}: wanted {most} at most, got {_shown(value)}")
    return int(value)


def _shown(value: Any) -> str:
    """A number for a message, which hundreds of digits would drown."""
    bits = value.bit_length() if isinstance(value, int) else 0
    return f"a whole number of {bits} bits" if bits > _BITS_SHOWN else str(value)


def check_choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: wanted one of {', '.join(map(repr, choices))}, got {value!r}")
    return str(value)


def _ready(features: Any, backend: str) -> tuple[Resolved, Any, np.ndarray]:
    """Checked features as the backend wants them, and their squares; every row usable."""
    matrix = as_matrix(features, "features")
    resolved = resolve(matrix, backend)
    rows = resolved.native(matrix)
    squares = resolved.backend.squared_norms(rows)
    bad = np.flatnonzero(~usable(squares))
    if len(bad):
        raise ValueError(bad_rows_message(bad, len(squares)).split(";")[0])
    return resolved, rows, squares


def make_pool(features: Any, backend: str) -> tuple[Resolved, Pool]:
    """The pool of all rows of a matrix; errors as in the operations below."""
    resolved, rows, squares = _ready(features, backend)
    return resolved, resolved.backend.pool(rows, squares)


def normalize(features: Any, *, backend: str = "auto") -> Any:
    """Rows divided by their Euclidean norm.

    Parameters
    ----------
    features : array, [N, D]
        float16, bfloat16, float32 or float64; numpy, torch, CuPy or ``__dlpack__``.
    backend : str
        "auto" or a name from `backends`.

    Returns
    -------
    array, [N, D]
        float32 (float64 from the reference), in the caller's kind of array.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape; rows that are zero or not finite.
    BackendUnavailable
        The named backend cannot run here.
    """
    resolved, rows, squares = _ready(features, backend)
    return resolved.kind.give(resolved.backend.normalize(rows, squares))


def similarity(features: Any, *, backend: str = "auto") -> Any:
    """The explicit matrix of cosine similarities, for those who want it; nothing else here stores it.

    Parameters
    ----------
    features : array, [m, D]
        As in `normalize`.
    backend : str
        "auto" or a name from `backends`.

    Returns
    -------
    array, [m, m]
        float32, within the backend's bound of the float64 value: `error_bound`, or on tensor cores
        `tensor_core_bound` (float64 from the reference). Symmetric, ones on the diagonal. Takes ``4 m**2`` bytes.

    Raises
    ------
    TypeError, ValueError, BackendUnavailable
        As in `normalize`.
    """
    resolved, pool = make_pool(features, backend)
    return resolved.kind.give(pool.similarity())


def cutoff(features: Any, *, quantile: float = 0.6, backend: str = "auto") -> float:
    """The cutoff S_c: an order statistic of all ``m * m`` similarities.

    Parameters
    ----------
    features : array, [m, D]
        As in `normalize`.
    quantile : float
        q from 0 to 1: the entry at index ``floor(q (m m - 1))`` in ascending order, the diagonal included
        (`numpy.quantile` with ``method="lower"``).
    backend : str
        "auto" or a name from `backends`.

    Returns
    -------
    float
        An entry of S in float64, the same on every backend.

    Raises
    ------
    TypeError, ValueError, BackendUnavailable
        As in `normalize`, and for a quantile outside 0 to 1.
    """
    quantile = check_fraction(quantile, "quantile")
    return make_pool(features, backend)[1].density(quantile)[0]


def density(features: Any, *, cutoff: float, backend: str = "auto") -> Any:
    """rho_i = sum_j sign(S_ij - S_c), j = i included.

    Parameters
    ----------
    features : array, [m, D]
        As in `normalize`.
    cutoff : float
        S_c. (`density_peaks` finds cutoff and density together, in one pass.)
    backend : str
        "auto" or a name from `backends`.

    Returns
    -------
    array of int64, [m]
        In the caller's kind of array.

    Raises
    ------
    TypeError, ValueError, BackendUnavailable
        As in `normalize`, and for a cutoff that is not a finite number.

    References
    ----------
    Han, Luo, Wang: Deep Self-Learning From Noisy Labels. ICCV 2019, section 3.3.
    """
    cutoff = check_number(cutoff, "cutoff")
    resolved, pool = make_pool(features, backend)
    return resolved.kind.give(pool.density_at(cutoff))


def eta(features: Any, rho: Any, *, backend: str = "auto") -> Any:
    """Similarity to the most similar row of higher density.

    Parameters
    ----------
    features : array, [m, D]
        As in `normalize`.
    rho : array of int, [m]
        Densities.
    backend : str
        "auto" or a name from `backends`.

    Returns
    -------
    array of float64, [m]
        Max of S_ij over j with rho_j > rho_i; for rows of the highest density the min of S_ij over all j.

    Raises
    ------
    TypeError, ValueError, BackendUnavailable
        As in `normalize`, and for densities that are not m integers.
    """
    resolved, pool = make_pool(features, backend)
    density = to_numpy(rho, "rho")
    if density.shape != (pool.m,):
        raise ValueError(f"rho: wanted one entry a row of features, [{pool.m}], got shape {density.shape}")
    if density.dtype.kind not in "iu":
        raise TypeError(f"rho: wanted integers, got {density.dtype}")
    ranks = np.unique(density, return_inverse=True)[1]  # of any size: only their order counts
    return resolved.kind.give(eta_of(pool, ranks, np.arange(pool.m)))


def score(features: Any, folded: Any, *, backend: str = "auto") -> Any:
    """Cosine of each row with a set of vectors: sigma_c(x) = x_hat . folded_c.

    Parameters
    ----------
    features : array, [N, D]
        As in `normalize`.
    folded : array, [C, D]
        One vector a class: the mean of its unit prototypes. Not normalized again, so that the result is
        the mean of the cosines to the prototypes (the mean is linear).
    backend : str
        "auto" or a name from `backends`.

    Returns
    -------
    array, [N, C]
        float32, within `error_bound` of the float64 value (float64 from the reference).

    Raises
    ------
    TypeError, ValueError, BackendUnavailable
        As in `normalize`, and for another dimension than the features have, vectors that are not finite, or longer
        than a float32 can be.
    """
    vectors = as_matrix(folded, "folded")
    resolved, rows, _ = _ready(features, backend)
    if vectors.shape[1] != rows.shape[1]:
        raise ValueError(f"folded: wanted [C, {rows.shape[1]}] like the features, got {tuple(vectors.shape)}")
    double = np.ascontiguousarray(to_numpy(vectors), dtype=np.float64)
    if not np.isfinite(double).all():
        raise ValueError("folded: wanted finite vectors, got NaN or infinity")
    with np.errstate(over="ignore"):
        longest = float(np.sqrt(np.einsum("ij,ij->i", double, double)).max())
    if longest > _LONGEST:
        raise ValueError(
            f"folded: wanted vectors no longer than {_LONGEST:g}, a float32, got entries up to {np.abs(double).max():g}"
        )
    # The backends count on norms of at most 1, which means of unit vectors have; a power of two is exact.
    factor = 2.0 ** max(0, math.frexp(longest)[1]) if longest > 1.0 + 1e-9 else 1.0
    sigma = resolved.kind.give(resolved.backend.score(rows, double / factor))
    return sigma if factor == 1.0 else sigma * factor
