"""What one would write without this package, in plain torch: the dense pipeline and a chunked one.

Both compute in float32 and return what the engine returns: the cutoff S_c, the densities rho and the
picked rows. They differ from it by the rounding of float32 only, see `checks.tolerance`.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from checks import ETA_MAX, NUM_PROTOTYPES, QUANTILE, Selected

CHUNK_BYTES = 64 * 2**20
_BINS = 4096


def torch_dense(x: torch.Tensor) -> Selected:
    """The method as the paper's formulas read, the m x m matrix in memory.   x [m, D]"""
    unit = F.normalize(x)
    s = unit @ unit.T  # [m, m]
    cutoff = s.flatten().kthvalue(_rank(len(x)) + 1).values
    rho = torch.sign(s - cutoff).sum(dim=1).long()  # [m]
    denser = rho[None, :] > rho[:, None]  # [m, m]
    eta = torch.where(denser, s, -torch.inf).amax(dim=1)
    eta = torch.where(rho == rho.max(), s.amin(dim=1), eta)  # [m]
    return Selected(float(cutoff), rho.numpy(), _pick(rho, eta).numpy())


def torch_chunked(x: torch.Tensor) -> Selected:
    """The same without the matrix: a chunk of its rows at a time, multiplied anew for each of four steps."""
    unit = F.normalize(x)
    m = len(x)
    step = max(1, CHUNK_BYTES // (4 * m))
    chunks = [slice(i, min(i + step, m)) for i in range(0, m, step)]

    # The cutoff: find its bin in a histogram, then sort the entries of that bin.
    counts = torch.zeros(_BINS, dtype=torch.int64)
    for rows in chunks:
        counts += torch.bincount(_bin(unit[rows] @ unit.T).flatten(), minlength=_BINS)
    before = counts.cumsum(0) - counts
    chosen = int((before <= _rank(m)).nonzero().max())
    entries = []
    for rows in chunks:
        s = unit[rows] @ unit.T
        entries.append(s[_bin(s) == chosen])
    cutoff = torch.cat(entries).kthvalue(_rank(m) - int(before[chosen]) + 1).values

    rho = torch.cat([torch.sign(unit[rows] @ unit.T - cutoff).sum(dim=1).long() for rows in chunks])  # [m]
    etas = []
    for rows in chunks:
        s = unit[rows] @ unit.T
        eta = torch.where(rho[None, :] > rho[rows, None], s, -torch.inf).amax(dim=1)
        etas.append(torch.where(rho[rows] == rho.max(), s.amin(dim=1), eta))
    return Selected(float(cutoff), rho.numpy(), _pick(rho, torch.cat(etas)).numpy())


def torch_score(features: np.ndarray, labels: np.ndarray, folded: np.ndarray) -> dict[str, np.ndarray]:
    """Corrected labels by torch, a chunk at a time.   features [N, D], labels [N], folded [C, D]"""
    weights = torch.from_numpy(folded).float()
    step = max(1, CHUNK_BYTES // (features.shape[1] * features.itemsize))
    values, classes = [], []
    for start in range(0, len(features), step):
        x = F.normalize(_tensor(features[start : start + step]))  # [b, D]
        top = (x @ weights.T).topk(2, dim=1)
        values.append(top.values)
        classes.append(top.indices[:, 0])
    best = torch.cat(values)  # [N, 2]
    corrected = torch.cat(classes).numpy()
    return {
        "labels": corrected,
        "score": best[:, 0].numpy(),
        "margin": (best[:, 0] - best[:, 1]).numpy(),
        "changed": corrected != labels,
    }


def _rank(m: int) -> int:
    return int(QUANTILE * (m * m - 1))


def _bin(s: torch.Tensor) -> torch.Tensor:
    return ((s + 1.0) * (_BINS / 2)).to(torch.int32).clamp_(0, _BINS - 1)


def _pick(rho: torch.Tensor, eta: torch.Tensor) -> torch.Tensor:
    """The densest rows with eta < eta_max; the densest of all in any case."""
    order = torch.sort(rho, descending=True, stable=True).indices
    passed = eta[order] < ETA_MAX
    passed[0] = True
    return order[passed][:NUM_PROTOTYPES]


def _tensor(rows: np.ndarray) -> torch.Tensor:
    """A tensor over the same memory; torch warns about read-only memory maps, which we only read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(rows)
