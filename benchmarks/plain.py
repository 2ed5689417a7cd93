"""The baselines of one class as variants: dense NumPy and CuPy, torch in three ways, KeOps, scikit-learn.

A stage is what is computed: "similarity", "cutoff", "density" (with the cutoff), "select" (with eta and picks)
or "eta" (densities given).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from engines import installed
from machine import num_processors
from one_class import OneClass
from parts import Case, Variant

# Bytes of the dense methods at their peak, in units of the float32 matrix: kthvalue copies it and keeps an int64
# index an entry, CuPy sorts a copy, eta compares and masks.
_DENSE_UNITS = {"similarity": 2, "cutoff": 4, "density": 4, "select": 4, "eta": 3}
_HOST_CHUNKED_ROWS = 32768  # beyond these rows a baseline keeps all others waiting
_GPU_CHUNKED_ROWS = 131072
_KEOPS_ROWS = {"density": 4096, "eta": 16384}


def host_baselines(stage: str, task: str, case: Case) -> list[Variant]:
    """What runs on the host."""
    m, threads = case["m"], num_processors()
    needs = _DENSE_UNITS[stage] * 4 * m * m
    found = []
    if stage != "select":
        found.append(Variant("numpy dense", task, "baseline", threads, partial(array_dense, "numpy", stage), needs))
    if stage == "similarity":
        found.append(Variant("scikit-learn", task, "baseline", threads, sklearn_similarity, needs))
    found.append(Variant("torch dense", task, "baseline", threads, partial(torch_dense, stage), needs))
    if stage != "similarity" and m <= _HOST_CHUNKED_ROWS:
        found.append(Variant("torch chunked", task, "baseline", threads, partial(torch_chunked, stage)))
    return found


def gpu_baselines(stage: str, task: str, case: Case, *, ends_on_host: bool) -> list[Variant]:
    """What runs on a GPU, of the libraries that are installed."""
    m = case["m"]
    needs = _DENSE_UNITS[stage] * 4 * m * m
    ways: list[tuple[str, Any, int, str]] = [("torch dense", partial(torch_dense, stage), needs, "allocators")]
    if stage != "similarity" and m <= _GPU_CHUNKED_ROWS:
        ways.append(("torch chunked", partial(torch_chunked, stage), 0, "allocators"))
        ways.append(("torch.compile", partial(torch_compiled, stage), 0, "allocators"))
    if installed("cupy", "cupy dense"):
        ways.append(("cupy dense", partial(array_dense, "cupy", stage), needs, "allocators"))
    if m <= _KEOPS_ROWS.get(stage, 0) and installed("pykeops", "keops"):
        ways.append(("keops", partial(keops, stage), 0, "free memory"))
    return [
        Variant(name, task, "baseline", 1, call, bytes, ends_on_host=ends_on_host, meter=meter)
        for name, call, bytes, meter in ways
    ]


def array_dense(module: str, stage: str, inputs: OneClass) -> Any:
    import baselines_array

    method = getattr(baselines_array, stage)
    given: tuple[Any, ...] = (inputs.rho,) if stage == "eta" else ()
    if module == "numpy":
        return method(np, inputs.x, *given)
    import cupy

    if given:
        given = (cupy.from_dlpack(inputs.rho_tensor),)
    return method(cupy, cupy.from_dlpack(inputs.x.float()), *given)


def torch_dense(stage: str, inputs: OneClass) -> Any:
    import baselines

    return baselines.DENSE[stage](*_arguments(stage, inputs))


def torch_chunked(stage: str, inputs: OneClass) -> Any:
    import baselines

    return baselines.CHUNKED[stage](*_arguments(stage, inputs))


def torch_compiled(stage: str, inputs: OneClass) -> Any:
    import baselines

    return baselines.torch_compiled(baselines.CHUNKED[stage], *_arguments(stage, inputs))


def keops(stage: str, inputs: OneClass) -> Any:
    import baselines_keops

    return getattr(baselines_keops, stage)(*_arguments(stage, inputs))


def sklearn_similarity(inputs: OneClass) -> np.ndarray:
    from sklearn.metrics.pairwise import cosine_similarity

    return np.asarray(cosine_similarity(inputs.x))


def _arguments(stage: str, inputs: OneClass) -> tuple[Any, ...]:
    return (inputs.tensor, inputs.rho_tensor) if stage == "eta" else (inputs.tensor,)
