"""Random data that looks like what a network puts out: a direction of the class, noise, no negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

_ROWS_AT_ONCE = 2**16


def class_means(rng: np.random.Generator, num_classes: int, dim: int) -> np.ndarray:
    """A direction for each class.   [C, D] float32"""
    return rng.standard_normal((num_classes, dim), dtype=np.float32)


def relu_rows(rng: np.random.Generator, means: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean of each row's class plus noise of the same size, the positive part.   [n, D] float32"""
    rows = rng.standard_normal((len(labels), means.shape[1]), dtype=np.float32)
    rows += means[labels]
    return np.maximum(rows, 0.0, out=rows)


def relu_bank(labels: np.ndarray, dim: int, dtype: str, device: Any) -> torch.Tensor:
    """The same made on a device, a part at a time.   labels [N] -> [N, D] of the dtype"""
    import torch

    means = torch.from_numpy(class_means(np.random.default_rng(0), int(labels.max()) + 1, dim)).to(device)
    generator = torch.Generator(device=device).manual_seed(0)
    bank = torch.empty((len(labels), dim), dtype=getattr(torch, dtype), device=device)
    for start in range(0, len(labels), _ROWS_AT_ONCE):
        of = torch.from_numpy(labels[start : start + _ROWS_AT_ONCE]).to(device)
        rows = torch.randn((len(of), dim), generator=generator, device=device)
        rows += means[of]
        bank[start : start + len(of)] = rows.clamp_(min=0.0)
    return bank


def itemsize(case: dict[str, Any]) -> int:
    """Bytes of an element of a case's features."""
    return 2 if case.get("dtype") in ("float16", "bfloat16") else 4


def rows_within(num_bytes: int, dim: int, size: int) -> int:
    """Rows of D elements of so many bytes that stay within a number of bytes; one at least."""
    return max(1, num_bytes // (dim * size))
