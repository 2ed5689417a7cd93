"""What one would write without this package, in plain torch: dense, chunked, and chunked with torch.compile.

All compute in float32 and return what the engine returns. They differ from it by the rounding of float32
only, see `checks.tolerance`. Half-precision features on a GPU are multiplied as stored, on tensor cores.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from checks import ETA_MAX, NUM_PROTOTYPES, Selected, rank_of
from harness import first_line, outcome_of
from parts import Unavailable
from rows import OUT_OF_MEMORY

CHUNK_BYTES = {"cpu": 64 * 2**20, "cuda": 2**28}
_BINS = 4096


class Cosines:
    """Rows made ready for float32 similarities.   x [m, D]"""

    def __init__(self, x: torch.Tensor) -> None:
        self._scale = None
        if x.is_cuda and x.dtype in (torch.float16, torch.bfloat16):
            self._x = x
            self._scale = 1.0 / torch.linalg.vector_norm(x, dim=1, dtype=torch.float32)  # [m]
        else:
            self._x = F.normalize(x if x.dtype == torch.float64 else x.float())

    def __call__(self, rows: slice = slice(None)) -> torch.Tensor:
        """Similarities of some rows with all.   [b, m]"""
        if self._scale is None:
            return self._x[rows] @ self._x.T
        s = torch.mm(self._x[rows], self._x.T, out_dtype=torch.float32)
        return s.mul_(self._scale[rows, None]).mul_(self._scale)


def chunks(x: torch.Tensor) -> list[slice]:
    """Rows at a time, so that a chunk of the matrix stays within `CHUNK_BYTES`."""
    step = max(1, CHUNK_BYTES[x.device.type] // (4 * len(x)))
    return [slice(i, min(i + step, len(x))) for i in range(0, len(x), step)]


def torch_similarity(x: torch.Tensor) -> torch.Tensor:
    return Cosines(x)()


def torch_dense(x: torch.Tensor, *, pick: bool = True) -> Selected:
    """The method as the paper's formulas read, the m x m matrix in memory.   x [m, D]"""
    s = Cosines(x)()  # [m, m]
    cutoff = s.flatten().kthvalue(rank_of(len(x)) + 1).values
    rho = torch.sign(s - cutoff).sum(dim=1).long()  # [m]
    picks = _pick(rho, _eta(s, rho, rho, rho.max())) if pick else None
    return _selected(cutoff, rho, picks)


def torch_dense_cutoff(x: torch.Tensor) -> Selected:
    s = Cosines(x)()
    return Selected(float(s.flatten().kthvalue(rank_of(len(x)) + 1).values))


def torch_dense_eta(x: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
    return _eta(Cosines(x)(), rho, rho, rho.max())


class Steps(NamedTuple):
    """What is done to a chunk of similarities: functions that torch.compile may take."""

    bins: Callable[..., torch.Tensor]
    signs: Callable[..., torch.Tensor]
    eta: Callable[..., torch.Tensor]


def torch_chunked(x: torch.Tensor, *, steps: Steps | None = None, pick: bool = True) -> Selected:
    """The same without the matrix: a chunk of its rows at a time, multiplied anew for each of four steps."""
    steps = steps or EAGER
    cosines, parts = Cosines(x), chunks(x)
    cutoff = _chunked_cutoff(cosines, parts, len(x), steps)
    rho = torch.cat([steps.signs(cosines(rows), cutoff) for rows in parts])  # [m]
    picks = _pick(rho, _chunked_eta(cosines, parts, rho, steps)) if pick else None
    return _selected(cutoff, rho, picks)


def torch_chunked_cutoff(x: torch.Tensor, *, steps: Steps | None = None) -> Selected:
    return Selected(float(_chunked_cutoff(Cosines(x), chunks(x), len(x), steps or EAGER)))


def torch_chunked_eta(x: torch.Tensor, rho: torch.Tensor, *, steps: Steps | None = None) -> torch.Tensor:
    return _chunked_eta(Cosines(x), chunks(x), rho, steps or EAGER)


@functools.cache
def compiled_steps() -> Steps:
    """The steps through torch.compile: what follows the product becomes one kernel; the product stays cuBLAS's."""
    return Steps(*(torch.compile(step, dynamic=True) for step in EAGER))


def torch_compiled(function: Callable[..., object], *arguments: torch.Tensor, **options: bool) -> object:
    """A chunked function with compiled steps.

    Raises
    ------
    Unavailable
        The compiler does not work here.
    """
    try:
        return function(*arguments, steps=compiled_steps(), **options)
    except Exception as error:
        if outcome_of(error) == OUT_OF_MEMORY:
            raise
        raise Unavailable(f"torch.compile: {first_line(error)}") from error


def _dense_density(x: torch.Tensor) -> Selected:
    return torch_dense(x, pick=False)


def _chunked_density(x: torch.Tensor, *, steps: Steps | None = None) -> Selected:
    return torch_chunked(x, steps=steps, pick=False)


def _chunked_cutoff(cosines: Cosines, parts: list[slice], m: int, steps: Steps) -> torch.Tensor:
    """Find its bin in a histogram, then the order statistic among the entries of that bin."""
    counts: torch.Tensor | int = 0
    for rows in parts:
        counts = counts + torch.bincount(steps.bins(cosines(rows)).flatten(), minlength=_BINS)
    before = counts.cumsum(0) - counts
    chosen = int((before <= rank_of(m)).nonzero().max())
    entries = []
    for rows in parts:
        s = cosines(rows)
        entries.append(s[steps.bins(s) == chosen])
    return torch.cat(entries).kthvalue(rank_of(m) - int(before[chosen]) + 1).values


def _chunked_eta(cosines: Cosines, parts: list[slice], rho: torch.Tensor, steps: Steps) -> torch.Tensor:
    top = rho.max()
    return torch.cat([steps.eta(cosines(rows), rho[rows], rho, top) for rows in parts])


def _bins(s: torch.Tensor) -> torch.Tensor:
    return ((s + 1.0) * (_BINS / 2)).to(torch.int32).clamp(0, _BINS - 1)


def _signs(s: torch.Tensor, cutoff: torch.Tensor) -> torch.Tensor:
    return torch.sign(s - cutoff).sum(dim=1).long()


def _eta(s: torch.Tensor, of: torch.Tensor, rho: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
    """s [b, m], of [b] and rho [m] densities, top the greatest   ->   [b]"""
    eta = torch.where(rho[None, :] > of[:, None], s, -torch.inf).amax(dim=1)
    return torch.where(of == top, s.amin(dim=1), eta)


EAGER = Steps(_bins, _signs, _eta)


# By what is computed; "eta" takes the densities as a second argument.
DENSE = {
    "similarity": torch_similarity,
    "cutoff": torch_dense_cutoff,
    "density": _dense_density,
    "select": torch_dense,
    "eta": torch_dense_eta,
}
CHUNKED = {
    "cutoff": torch_chunked_cutoff,
    "density": _chunked_density,
    "select": torch_chunked,
    "eta": torch_chunked_eta,
}


def _selected(cutoff: torch.Tensor, rho: torch.Tensor, picks: torch.Tensor | None) -> Selected:
    return Selected(float(cutoff), rho.cpu().numpy(), None if picks is None else picks.cpu().numpy())


def _pick(rho: torch.Tensor, eta: torch.Tensor) -> torch.Tensor:
    """The densest rows with eta < eta_max; the densest of all in any case."""
    order = torch.sort(rho, descending=True, stable=True).indices
    passed = eta[order] < ETA_MAX
    passed[0] = True
    return order[passed][:NUM_PROTOTYPES]
