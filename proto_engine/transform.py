"""Centering and whitening of a feature bank: fitted in one walk, applied a block of rows at a time."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .array_kinds import as_double
from .arrays import as_bank
from .bank import FeatureBank
from .moments import bank_moments, brought_near_one

KINDS = ("center", "whiten")
_NAMES = {"center": "centered rows", "whiten": "whitened rows"}
BLOCK_ROWS = 2048  # in float64 on their way out
_EQUAL = 2.0**-100  # variance over squared mean that rounding alone can leave behind


@dataclass(frozen=True, eq=False)
class BankTransform:
    """An affine map of feature rows, x -> A (s x - s mean), with A symmetric.

    Cosines measured around the mean of all rows tell classes apart that share most of their direction, and
    whitening keeps a few strong directions, often of no use for the classes, from drowning the others.

    Attributes
    ----------
    kind : {"center", "whiten"}
    mean : numpy.ndarray of float64, [D]
    matrix : numpy.ndarray of float64, [D, D], or None
        A; None for "center", where it is the identity.
    scale : float
        s, a power of two; 1 but for features so large or so small that float32 could not hold the transformed rows.
    """

    kind: str
    mean: np.ndarray
    matrix: np.ndarray | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_kind(self.kind)
        for name, array in (("mean", self.mean), ("matrix", self.matrix)):
            if not isinstance(array, np.ndarray) and (array is not None or name == "mean"):
                raise TypeError(f"{name}: wanted a numpy array of float64, got {type(array).__name__}")
        _check_scale(self.scale)
        dim = self.mean.shape[0] if self.mean.ndim == 1 else 0
        if dim == 0 or self.mean.dtype != np.float64 or not np.isfinite(self.mean).all():
            raise ValueError("transform: wanted a mean of D finite float64 entries")
        if (self.matrix is None) != (self.kind == "center"):
            raise ValueError(f"transform: wanted a matrix for 'whiten' and none for 'center', got kind {self.kind!r}")
        matrix = self.matrix
        if matrix is not None and (
            matrix.shape != (dim, dim) or matrix.dtype != np.float64 or not np.isfinite(matrix).all()
        ):
            raise ValueError(f"transform: wanted a matrix of [{dim}, {dim}] finite float64 entries")

    @classmethod
    def fit(cls, features: Any, kind: str = "whiten", *, power: float = 0.5, shrinkage: float = 0.01) -> BankTransform:
        """Learn the transform from the rows of a bank, in one walk over them.

        Parameters
        ----------
        features : array or FeatureBank, [N, D]
            float16, bfloat16, float32 or float64. Rows that are zero or not finite are left out.
        kind : {"center", "whiten"}
            Take off the mean; or that, and ``A = E (v + shrinkage * mean(v))^(-power) E^T`` with the eigenvalues v
            and eigenvectors E of the covariance.
        power : float
            Above 0 and up to 1/2. At 1/2 every direction that varies more than the shrinkage ends with about the
            same variance; 1/4 goes half of the way.
        shrinkage : float
            Above 0: keeps directions that hardly vary, or not at all, from being blown up. With 0.01 no direction
            gains more than a factor ten on one of mean variance.

        Returns
        -------
        BankTransform

        Raises
        ------
        TypeError, ValueError
            An argument of the wrong dtype, shape or range; fewer than two usable rows, or rows that are all equal.

        Notes
        -----
        Memory is that of the covariance, ``8 D**2`` bytes a few times over, whatever the number of rows. Rows whose
        squares leave the range of floats take two more walks.
        """
        check_kind(kind)
        power = _positive(power, "power", 0.5, " and up to 0.5")
        shrinkage = _positive(shrinkage, "shrinkage", sys.float_info.max)
        bank = as_bank(features)
        exponent, moments = brought_near_one(bank, bank_moments(bank))
        mean, scale = np.ldexp(moments.mean, -exponent), 2.0**exponent
        count = moments.num_rows
        if count < 2:
            raise ValueError(f"transform: wanted at least 2 rows that are finite and not all zero, got {count}")
        variance = float(np.trace(moments.covariance)) / len(moments.mean)
        if variance <= _EQUAL * float(np.square(moments.mean).mean()):
            raise ValueError(f"transform: wanted rows that differ, all {count} are equal")
        if kind == "center":
            return cls(kind, mean, None, scale)
        # Relative to the mean variance: the matrix is the same up to its scale whatever the unit of the features.
        values, vectors = np.linalg.eigh(moments.covariance / variance)
        weights = (np.maximum(values, 0.0) + shrinkage) ** -power * variance**-power  # [D]
        half = vectors * np.sqrt(weights)
        return cls(kind, mean, half @ half.T, scale)

    @property
    def dim(self) -> int:
        """D."""
        return len(self.mean)

    def apply(self, features: Any) -> FeatureBank:
        """A bank whose rows go through the transform when they are asked for.

        Parameters
        ----------
        features : array or FeatureBank, [N, D]
            float16, bfloat16, float32 or float64.

        Returns
        -------
        FeatureBank, [N, D]
            float32, in the caller's kind of array and place. A zero row stays zero, and one that is not finite
            stays that way, so that ``on_bad_rows`` means the rows that it means without a transform, and besides them
            any row at the mean, which has no direction after it.

        Raises
        ------
        TypeError, ValueError
            Wrong dtype or shape, another dimension than the transform has, or a bank that went through one already.

        Notes
        -----
        Products are taken in float64 and rounded once: a row comes out the same, but for a rare last bit, in a chunk
        of any size. Nothing but the chunk that was asked for is ever in memory.
        """
        bank = as_bank(features)
        self.check_dim(bank)
        if bank.transform is not None:
            raise ValueError("features: wanted rows as they are stored, got a bank that went through a transform")
        return FeatureBank.over(TransformedRows(bank, self))

    def check_dim(self, bank: FeatureBank) -> None:
        """Raise ValueError for rows of another dimension."""
        if bank.shape[1] != self.dim:
            raise ValueError(f"transform: wanted dimension {bank.shape[1]} like the features, got {self.dim}")

    def same_as(self, other: BankTransform | None) -> bool:
        """Whether another transform maps rows to the same space."""
        if other is None or (self.kind, self.scale) != (other.kind, other.scale):
            return False
        if not np.array_equal(self.mean, other.mean):
            return False
        return self is other or self.matrix is None or np.array_equal(self.matrix, other.matrix)  # type: ignore[arg-type]


class TransformedRows:
    """The rows of a bank after a transform, computed when they are asked for.

    Rows on a GPU stay there and so do the products; they come in chunks too, since the transformed rows are new memory.
    """

    def __init__(self, bank: FeatureBank, transform: BankTransform) -> None:
        self.transform = transform
        self.name = _NAMES[transform.kind]
        self.shape = bank.shape
        self.kind = bank.kind
        self.dtype: Any = sys.modules["torch"].float32 if self.kind.library == "torch" else np.dtype(np.float32)
        self._bank = bank
        with self.kind.current():
            self._mean = self.kind.give(transform.mean * transform.scale)
            self._matrix = None if transform.matrix is None else self.kind.give(transform.matrix)

    def rows(self, wanted: np.ndarray) -> Any:
        """Rows ``wanted`` (int64, [k], in range) in that order, [k, D]."""
        return self._mapped(self._bank.rows(wanted))

    def chunks(self, step: int) -> Iterator[tuple[int, Any]]:
        """(start, [b, D]) over all rows, b <= ``step``."""
        for start, rows in self._bank.chunks(step * self.shape[1] * self._bank.dtype.itemsize):
            yield start, self._mapped(rows)

    def _mapped(self, rows: Any) -> Any:
        with self.kind.current(), np.errstate(all="ignore"):  # what is not finite is found by its squares
            out = self.kind.full(tuple(rows.shape), 0.0, self.dtype)
            for start in range(0, len(rows), BLOCK_ROWS):
                part = slice(start, start + BLOCK_ROWS)
                double = as_double(rows[part])
                empty = (double == 0).all(1)  # [b]
                shifted = (double if self.transform.scale == 1.0 else double * self.transform.scale) - self._mean
                mapped = shifted if self._matrix is None else shifted @ self._matrix
                mapped[empty] = 0.0
                out[part] = mapped
        return out


def _positive(value: Any, name: str, most: float, limit: str = "") -> float:
    """A number above 0, finite and within ``most``, which ``limit`` puts in words."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: wanted a number above 0{limit}, got {type(value).__name__}")
    number = value if isinstance(value, int) else float(value)  # a whole number may be too large for a float
    if not 0.0 < number <= most:
        raise ValueError(f"{name}: wanted a number above 0{limit}, got {value}")
    return float(number)


def _check_scale(scale: Any) -> None:
    """Powers of two lose no digit of a row; beyond these limits they would have no inverse."""
    fits = isinstance(scale, float) and math.isfinite(scale) and math.frexp(scale)[0] == 0.5
    if not fits or abs(math.log2(scale)) > 1000:
        raise ValueError(f"scale: wanted a power of two from 2**-1000 to 2**1000 as a float, got {scale!r}")


def check_kind(kind: Any) -> None:
    """Raise ValueError for a kind that there is not."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"transform: wanted one of {', '.join(map(repr, KINDS))}, got {kind!r}")


def in_space(features: FeatureBank, transform: BankTransform | None) -> FeatureBank:
    """The bank in the space of a transform, however far it has come.

    Raises
    ------
    ValueError
        The bank went through another transform, or another dimension than the transform has.
    """
    if transform is not None and features.transform is None:
        return transform.apply(features)
    if features.transform is None or features.transform.same_as(transform):
        return features
    wanted = "rows as they are stored" if transform is None else f"the transform {transform.kind!r} of the prototypes"
    raise ValueError(f"features: wanted {wanted}, got a bank that went through another transform")
