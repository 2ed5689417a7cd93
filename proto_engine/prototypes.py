"""The prototypes of all classes, and their file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from .array_kinds import ArrayKind, has_float_dtype
from .arrays import to_numpy
from .files import atomic_write, plain_file
from .transform import BankTransform

FORMAT = "proto_engine.prototypes.1"


@dataclass(frozen=True, eq=False)
class Prototypes:
    """What `select_prototypes` found. C classes, p prototypes a class, D dimensions.

    Attributes
    ----------
    indices : array of int64, [C, p]
        Rows of the feature bank, in the order of the picks; -1 where a class has fewer.
    vectors : array of float32, [C, p, D]
        Unit rows; zeros where there is no prototype.
    folded : array of float64, [C, D]
        Mean of the unit prototypes of each class, not normalized; what scoring multiplies with.
    counts : array of int64, [C]
        Prototypes found; 0 only for a class without usable samples.
    cutoff : array of float64, [C]
        S_c of each class (NaN where the method has none).
    rho : array of int64, [C, p]
        Density of each prototype (0 where there is none, or the method has none). Of density contrast: how many
        other rows of its class are more similar to it than the cutoff, which is ``share`` before the division.
    eta : array of float64, [C, p]
        Similarity to the nearest denser row (NaN where there is none, or the method has none).
    filtered : array of float64, [C]
        Share of the class pool that the eta filter turned down on the way to the picks. Of density contrast: share
        of the rows that might have been picked, but are not consistent.
    consistent : array of int64, [C]
        Of density contrast: rows that might have been picked and have no greater share of neighbors in another class
        than in their own. 0 where the published rule took over, and with every other method.
    share : array of float64, [C, p]
        Of density contrast: the share of the other rows of its class that are more similar to a prototype than the
        cutoff (NaN where there is none).
    contrast : array of float64, [C, p]
        ``share`` less the greatest such share of another class (NaN where there is none).
    transform : BankTransform or None
        What the rows went through; all vectors are in its space, and so are the scores of other rows.
    """

    indices: Any
    vectors: Any
    folded: Any
    counts: Any
    cutoff: Any
    rho: Any
    eta: Any
    filtered: Any
    consistent: Any
    share: Any
    contrast: Any
    transform: BankTransform | None = None

    @property
    def num_classes(self) -> int:
        return int(self.folded.shape[0])

    @property
    def dim(self) -> int:
        return int(self.folded.shape[1])

    def save(self, path: str | os.PathLike[str], *, class_names: Sequence[str] | None = None) -> None:
        """Write all arrays, those of the transform too, to one ``.safetensors`` file, all of it or nothing.

        Parameters
        ----------
        path : str or os.PathLike
        class_names : sequence of str, optional
            C different names. Kept in the file's metadata, so that labels read later are numbered as they were now.

        Raises
        ------
        TypeError, ValueError
            ``class_names`` are not strings, not different, or not one a class.
        OSError
            The file cannot be written.
        """
        arrays = {name: np.ascontiguousarray(to_numpy(getattr(self, name))) for name in _ARRAYS}
        metadata = {"format": FORMAT}
        if self.transform is not None:
            metadata["transform"] = self.transform.kind
            arrays.update(_transform_arrays(self.transform))
        if class_names is not None:
            metadata["class_names"] = json.dumps(_checked_names(class_names, self.num_classes))
        data = safetensors.numpy.save(arrays, metadata=metadata)
        with atomic_write(path) as file:
            file.write(data)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Prototypes:
        """Read a file that `save` wrote, as numpy arrays; ``transform`` is None where the file has none.

        Raises
        ------
        ValueError
            The file is truncated, foreign, or its arrays do not fit together.
        OSError
            The file cannot be read.
        """
        name = os.fspath(plain_file(path, "prototypes"))
        with open(name, "rb"):
            pass  # one that may not be read is an OSError with its name, not a missing file
        try:
            with safetensors.safe_open(name, framework="numpy") as file:
                metadata = file.metadata() or {}
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        except (safetensors.SafetensorError, AttributeError, TypeError, KeyError) as error:  # dtypes NumPy has not
            raise ValueError(f"prototypes: {name!r} is not a complete safetensors file ({error})") from None
        kind = metadata.get("transform")
        extra = [key for key in _TRANSFORM_ARRAYS if kind is not None and key in arrays]
        if metadata.get("format") != FORMAT or sorted(arrays) != sorted([*_ARRAYS, *extra]):
            raise ValueError(
                f"prototypes: wanted a file of format {FORMAT!r} with {', '.join(_ARRAYS)}, "
                f"got {name!r} with format {metadata.get('format')!r} and {', '.join(sorted(arrays)) or 'nothing'}"
            )
        mean, matrix, scale = (arrays.pop(key, None) for key in _TRANSFORM_ARRAYS)
        transform = None if kind is None else _transform_of(kind, mean, matrix, scale)
        prototypes = cls(**arrays, transform=transform)
        prototypes.check(name)
        return prototypes

    def check(self, name: str = "prototypes") -> None:
        """Raise ValueError where the arrays do not fit together or hold values that no selection gives.

        Of arrays on a GPU only those that scoring brings to the host anyway are looked into.
        """
        self._check_shapes(name)
        self._check_dtypes(name)
        counts, most = to_numpy(self.counts), int(self.indices.shape[1])
        if counts.min() < 0 or counts.max() > most:
            raise ValueError(f"{name}: wanted counts from 0 to {most}, got {counts.min()} to {counts.max()}")
        if most and ArrayKind.of(self.indices).on_cpu:
            least = to_numpy(self.indices).min()
            if least < -1:
                raise ValueError(f"{name}: wanted indices of rows, or -1 for none, got {least}")
        self._check_vectors(name)

    def _check_shapes(self, name: str) -> None:
        if len(self.folded.shape) != 2 or 0 in tuple(self.folded.shape):
            raise ValueError(f"{name}: wanted folded of shape [C, D], got {tuple(self.folded.shape)}")
        if len(self.indices.shape) != 2 or self.indices.shape[0] != self.num_classes:
            raise ValueError(
                f"{name}: wanted indices of shape [{self.num_classes}, p], got {tuple(self.indices.shape)}"
            )
        shape = tuple(self.indices.shape)
        for key, want in {
            "vectors": (*shape, self.dim),
            "counts": shape[:1],
            "cutoff": shape[:1],
            "rho": shape,
            "eta": shape,
            "filtered": shape[:1],
            "consistent": shape[:1],
            "share": shape,
            "contrast": shape,
        }.items():
            got = tuple(getattr(self, key).shape)
            if got != want:
                raise ValueError(f"{name}: wanted {key} of shape {list(want)}, got {list(got)}")
        if self.transform is not None and self.transform.dim != self.dim:
            raise ValueError(f"{name}: wanted a transform of dimension {self.dim}, got {self.transform.dim}")

    def _check_dtypes(self, name: str) -> None:
        for key in _ARRAYS:
            array = getattr(self, key)
            if key in _WHOLE_NUMBERS:
                fits = str(array.dtype).removeprefix("torch.").startswith(("int", "uint"))
            else:
                fits = has_float_dtype(array)
            if not fits:
                wanted = "whole numbers" if key in _WHOLE_NUMBERS else "floats"
                raise ValueError(f"{name}: wanted {key} of {wanted}, got {array.dtype}")

    def _check_vectors(self, name: str) -> None:
        if ArrayKind.of(self.vectors).on_cpu and self.indices.shape[1]:
            vectors = to_numpy(self.vectors)
            low, high = float(vectors.min()), float(vectors.max())  # NaN if there is any
            if not (low >= -_LONGEST and high <= _LONGEST):
                raise ValueError(f"{name}: wanted unit vectors, got entries from {low} to {high}")
        folded = to_numpy(self.folded).astype(np.float64, copy=False)
        if not bool(np.isfinite(folded).all()):
            raise ValueError(f"{name}: wanted finite folded vectors, got NaN or infinity")
        longest = float(np.sqrt(np.einsum("cd,cd->c", folded, folded).max()))
        if longest > 1.0 + 1e-9:  # means of unit vectors; the error bound of scores rests on it
            raise ValueError(f"{name}: wanted folded vectors of norm 1 at most, got {longest}")


_ARRAYS = [field.name for field in fields(Prototypes) if field.name != "transform"]
_WHOLE_NUMBERS = ("indices", "counts", "rho", "consistent")
_LONGEST = 1.01  # of a unit vector's entries, in whatever precision it was kept
_TRANSFORM_ARRAYS = ("transform.mean", "transform.matrix", "transform.scale")


def _checked_names(class_names: Sequence[str], num_classes: int) -> list[str]:
    """The names as a list, if a file can be read again with them."""
    names = list(class_names)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"class_names: wanted strings, got {type(name).__name__}")
    if len(names) != num_classes:
        raise ValueError(f"class_names: wanted {num_classes} names, one a class, got {len(names)}")
    if len(set(names)) != len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"class_names: wanted different names, got {twice!r} twice")
    return names


def _transform_arrays(transform: BankTransform) -> dict[str, np.ndarray]:
    scale = None if transform.scale == 1.0 else np.array([transform.scale])
    arrays = dict(zip(_TRANSFORM_ARRAYS, (transform.mean, transform.matrix, scale), strict=True))
    return {key: np.ascontiguousarray(array) for key, array in arrays.items() if array is not None}


def _transform_of(
    kind: str, mean: np.ndarray | None, matrix: np.ndarray | None, scale: np.ndarray | None
) -> BankTransform:
    if mean is None:
        raise ValueError("prototypes: wanted the mean of the transform that the file names, got none")
    if scale is not None and scale.shape != (1,):
        raise ValueError(f"prototypes: wanted a transform.scale of shape [1], got {list(scale.shape)}")
    return BankTransform(kind, mean, matrix, 1.0 if scale is None else float(scale[0]))
