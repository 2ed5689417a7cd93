"""All classes at once in plain torch: the dense method over [C, m, D], picks on the host at the end."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from checks import ETA_MAX, NUM_PROTOTYPES, Selected, rank_of


def similarities(x: torch.Tensor) -> torch.Tensor:
    """x [C, m, D]  ->  [C, m, m] float32; half-precision features on a GPU are multiplied as stored."""
    if not (x.is_cuda and x.dtype in (torch.float16, torch.bfloat16)):
        unit = F.normalize(x.float(), dim=2)
        return torch.bmm(unit, unit.mT)
    scale = 1.0 / torch.linalg.vector_norm(x, dim=2, dtype=torch.float32)  # [C, m]
    s = torch.bmm(x, x.mT, out_dtype=torch.float32)
    return s.mul_(scale[:, :, None]).mul_(scale[:, None, :])


def torch_batched(x: torch.Tensor, *, sort: bool) -> list[Selected]:
    """Cutoff and picks of every class; ``sort`` finds the cutoff by sorting, else by kthvalue."""
    classes, m, _ = x.shape
    s = similarities(x)
    flat, rank = s.view(classes, m * m), rank_of(m)
    cutoff = flat.sort(dim=1).values[:, rank] if sort else flat.kthvalue(rank + 1, dim=1).values  # [C]
    rho = torch.sign(s - cutoff[:, None, None]).sum(dim=2)  # [C, m]
    eta = torch.where(rho[:, None, :] > rho[:, :, None], s, -torch.inf).amax(dim=2)
    eta = torch.where(rho == rho.amax(dim=1, keepdim=True), s.amin(dim=2), eta)  # [C, m]
    order = torch.sort(rho, dim=1, descending=True, stable=True).indices
    passed = eta.gather(1, order) < ETA_MAX
    passed[:, 0] = True
    # The first p positions that passed: those that did not go behind all others, in order.
    place = torch.where(passed, 0, m) + torch.arange(m, device=x.device)
    first = place.topk(min(NUM_PROTOTYPES, m), dim=1, largest=False, sorted=True).values
    picks = torch.where(first < m, order.gather(1, first.clamp(max=m - 1)), -1)  # [C, p]
    on_host = torch.cat([cutoff.double()[:, None], picks.double()], dim=1).cpu().numpy()
    return [Selected(float(row[0]), None, row[1:][row[1:] >= 0].astype("int64")) for row in on_host]
