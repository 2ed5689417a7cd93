"""The package's version, and everything that a bug report needs."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("proto_engine")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"

_PACKAGES = (
    *("numpy", "scipy", "scikit-learn", "threadpoolctl", "torch", "numba"),
    *("cupy", "cupy-cuda12x", "cupy-cuda13x", "faiss-cpu", "faiss-gpu"),
    *("pandas", "pyarrow", "safetensors", "ml-dtypes"),
)


def show_versions() -> None:
    """Print the versions of this package, Python and the libraries it can use, and its backends."""
    from .backends import backends
    from .backends.host import num_threads

    print(f"proto_engine {__version__}")
    print(f"python       {sys.version.split()[0]} on {platform.platform()}")
    print(f"threads      {num_threads()}")
    for package in _PACKAGES:
        try:
            print(f"{package:<12} {version(package)}")
        except PackageNotFoundError:
            continue
    print("native core  " + _native())
    for name, reason in backends().items():
        print(f"backend {name:<10} {'available' if reason is None else 'unavailable: ' + reason}")


def _native() -> str:
    try:
        from . import _core
    except ImportError:
        return "not built"
    cuda = _core.cuda_architectures
    return f"{_core.instruction_set()} loops, " + (f"CUDA code for {cuda}" if cuda else "no CUDA code")
