"""The machine that a benchmark runs on: its caches, threads and memory, and what a row says about it."""

from __future__ import annotations

import datetime
import gc
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]
CODE = ("csrc", "proto_engine", "benchmarks/*.py")
PACKAGES = (
    "proto_engine",
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "triton",
    "numba",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "pykeops",
    "faiss-cpu",
    "faiss-gpu",
)
_L3 = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_DEFAULT_L3_BYTES = 64 * 2**20


def num_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name() -> str:
    """The processor's model and how many of them this process may use, such as "AMD EPYC, 2 cores"."""
    model = platform.processor() or platform.machine()
    with_name = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    if with_name:
        model = with_name[0].split(":", 1)[1].strip()
    return f"{model}, {num_processors()} cores"


def l3_bytes() -> int:
    """Size of the last-level cache; a generous guess where the system does not tell."""
    try:
        text = _L3.read_text().strip()
    except OSError:
        return _DEFAULT_L3_BYTES
    unit = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 1)
    return int(text.rstrip("KMG")) * unit


class CacheFlush:
    """Empties the caches: reads and writes a buffer of twice the last-level cache."""

    def __init__(self) -> None:
        self._buffer = np.ones(2 * l3_bytes() // 8)

    def __call__(self) -> None:
        self._buffer += 1.0


@contextmanager
def thread_limit(num_threads: int) -> Iterator[None]:
    """Give this many threads to the engine, to torch, and to every BLAS and OpenMP library loaded so far."""
    torch = sys.modules.get("torch")
    engine, torch_threads = os.environ.get("PROTO_ENGINE_NUM_THREADS"), torch and torch.get_num_threads()
    os.environ["PROTO_ENGINE_NUM_THREADS"] = str(num_threads)
    try:
        with threadpool_limits(num_threads):
            if torch:
                torch.set_num_threads(num_threads)
            yield
    finally:
        if torch:
            torch.set_num_threads(torch_threads)
        if engine is None:
            del os.environ["PROTO_ENGINE_NUM_THREADS"]
        else:
            os.environ["PROTO_ENGINE_NUM_THREADS"] = engine


def available_bytes() -> int | None:
    """Memory that could be had now without swapping; None where the system does not tell."""
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def peak_memory(call: Callable[[], Any]) -> tuple[int, int] | None:
    """Run ``call`` and watch the resident set of this process, mapped pages of files included.

    Returns
    -------
    growth : int
        Highest resident set during the call less the resident set just before it, in bytes.
    peak : int
        Highest resident set since the process started, in bytes.
        None in place of both where the system cannot tell (it takes Linux's ``/proc/self/clear_refs``).
    """
    if not os.access(_CLEAR_REFS, os.W_OK):
        return None
    gc.collect()
    peak_before = _status("VmHWM")
    _CLEAR_REFS.write_text("5")  # sets the high-water mark down to the resident set of now
    before = _status("VmRSS")
    call()
    peak = _status("VmHWM")
    return max(0, peak - before), max(peak, peak_before)


def provenance(
    arguments: Sequence[str], about: dict[str, Any] | None = None, *, code: Sequence[str] = CODE
) -> dict[str, Any]:
    """What every row of one run has in common: when, what code, which command, on what device.

    ``about`` says what the device is; by default the host. ``code`` is what the row depends on: it is ``dirty``
    where this differs from the commit. A copy of the tree without its history, such as
    one that was sent to a machine with a GPU, takes the commit from ``PROTO_ENGINE_COMMIT``.
    """
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short=12", "HEAD") or os.environ.get("PROTO_ENGINE_COMMIT"),
        "dirty": bool(_git("status", "--porcelain", "--", *code)),
        "command": _command(arguments),
        **(about or {"on": "cpu", "device": device_name(), "driver": None, "l3_bytes": l3_bytes()}),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are compared."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _command(arguments: Sequence[str]) -> str:
    """The command line as typed from the repository root; folders of this machine are left out."""
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(ROOT) if script.is_relative_to(ROOT) else Path(script.name)
    return shlex.join(["python", str(name), *("DIR" if os.path.isabs(a) else a for a in arguments)])


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # a source archive
        return None
    return done.stdout.strip()


def _status(field: str) -> int:
    for line in _lines("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
