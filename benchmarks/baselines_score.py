"""Corrected labels as one would write them without this package: in torch, in NumPy or CuPy, through FAISS.

features [N, D], labels [N], folded [C, D] float64   ->   {"labels", "score", "margin", "changed"} [N]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from inputs import rows_within

CHUNK_BYTES = {"cpu": 64 * 2**20, "cuda": 2**28}


def torch_score(features: Any, labels: Any, folded: np.ndarray, device: Any = "cpu") -> dict[str, Any]:
    """By torch on a device, a chunk at a time; a bank that lies elsewhere is copied there chunk by chunk."""
    import torch
    import torch.nn.functional as F

    weights = torch.from_numpy(folded).float().to(device).T  # [D, C]
    values, classes = [], []
    for chunk in _chunks(features, torch.device(device).type):
        x = F.normalize(chunk.to(device, non_blocking=True).float())  # [b, D]
        top = (x @ weights).topk(2, dim=1)
        values.append(top.values)
        classes.append(top.indices[:, 0])
    return _answer(torch.cat(classes), torch.cat(values), torch.as_tensor(labels))


def array_score(xp: Any, features: Any, labels: np.ndarray, folded: np.ndarray) -> dict[str, Any]:
    """By NumPy or CuPy (``xp``), a chunk at a time."""
    weights = xp.asarray(folded.astype(np.float32)).T  # [D, C]
    labels_of, best, second = [], [], []
    step = rows_within(CHUNK_BYTES["cpu" if xp is np else "cuda"], features.shape[1], 4)
    for start in range(0, len(features), step):
        x = features[start : start + step].astype(np.float32)
        s = (x @ weights) / xp.linalg.norm(x, axis=1, keepdims=True)  # [b, C]
        label, row = s.argmax(axis=1), xp.arange(len(s))
        labels_of.append(label)
        best.append(s[row, label])
        s[row, label] = -np.inf
        second.append(s.max(axis=1))
    label, score = xp.concatenate(labels_of), xp.concatenate(best)
    changed = label != xp.asarray(labels)
    return {"labels": label, "score": score, "margin": score - xp.concatenate(second), "changed": changed}


def faiss_score(features: Any, labels: Any, folded: np.ndarray, resources: Any) -> dict[str, Any]:
    """By FAISS's flat index on a GPU, which takes torch tensors as they lie, in float32."""
    import faiss
    import faiss.contrib.torch_utils  # lets the index search tensors
    import torch

    index = faiss.GpuIndexFlatIP(resources, folded.shape[1])
    index.add(torch.from_numpy(folded).float().to(features.device))
    values, classes = [], []
    for chunk in _chunks(features, features.device.type):
        x = chunk.float()
        s, found = index.search(x, 2)  # [b, 2] each, the greatest first
        values.append(s / torch.linalg.vector_norm(x, dim=1, keepdim=True))
        classes.append(found[:, 0])
    return _answer(torch.cat(classes), torch.cat(values), torch.as_tensor(labels))


def _chunks(features: Any, kind: str) -> Iterator[Any]:
    """Tensors over the same memory; torch warns about read-only memory maps, which are only read here."""
    from truth import as_tensor

    step = rows_within(CHUNK_BYTES[kind], features.shape[1], 4)
    for start in range(0, len(features), step):
        yield as_tensor(features[start : start + step])


def _answer(classes: Any, best: Any, given: Any) -> dict[str, Any]:
    """classes [N], best [N, 2] as tensors: the answer where they are; in NumPy for a bank in host memory."""
    changed = classes != given.to(classes.device)
    found = {"labels": classes, "score": best[:, 0], "margin": best[:, 0] - best[:, 1], "changed": changed}
    return {name: a if a.is_cuda else a.numpy() for name, a in found.items()}
