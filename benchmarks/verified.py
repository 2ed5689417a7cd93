"""The record of what a run on a GPU has verified: which sources, on which GPU, which tile loops."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("benchmarks/results/gpu_verified.json", "proto_engine/gpu_verified.json")  # the second is package data
_SOURCES = ("csrc", "proto_engine")
_ENDINGS = (".c", ".cpp", ".cu", ".cuh", ".h", ".py", ".pyi", ".txt")


@dataclass(frozen=True)
class Gpu:
    """The GPU that a run is about."""

    name: str
    capability: str  # such as "9.0"
    driver: str

    @property
    def architectures(self) -> str:
        """CMAKE_CUDA_ARCHITECTURES for this GPU alone; Hopper's own instructions need the "a"."""
        number = self.capability.replace(".", "")
        return f"{number}a-real" if number == "90" else f"{number}-real"


def present_gpu() -> Gpu | None:
    """The first NVIDIA GPU, as nvidia-smi tells; None where there is none."""
    command = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    parts = [part.strip() for part in (told.splitlines() or [""])[0].split(",")]
    return Gpu(*parts) if len(parts) == 3 and re.fullmatch(r"\d+\.\d+", parts[1]) else None


def sources_hash(root: Path = ROOT) -> str:
    """SHA-256 of the names and contents of all sources of the engine."""
    found = hashlib.sha256()
    paths = [path for folder in _SOURCES for path in (root / folder).rglob("*") if path.suffix in _ENDINGS]
    for path in sorted(paths, key=lambda path: path.relative_to(root).as_posix()):
        content = path.read_bytes()
        found.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return found.hexdigest()


def commit(root: Path = ROOT) -> str:
    """The commit that is checked out, with a "+" where files differ; that of PROTO_ENGINE_COMMIT, which a copy
    without history needs; "unknown" without either."""
    if told := os.environ.get("PROTO_ENGINE_COMMIT"):
        return told
    try:
        head = _told(root, "git", "rev-parse", "HEAD").strip()
        changed = _told(root, "git", "status", "--porcelain", "--untracked-files=no").strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+" if changed else "")


def cuda_version() -> str:
    """The toolkit's version, such as "13.0"."""
    try:
        found = re.search(r"release (\d+\.\d+)", _told(ROOT, "nvcc", "--version"))
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.group(1) if found else "unknown"


def _told(folder: Path, *command: str) -> str:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True).stdout


def write_record(gpu: Gpu, loops: Sequence[str], root: Path = ROOT) -> dict[str, Any]:
    """Put a run in the place of the one before on GPUs of that compute capability; returns the run."""
    run = {
        "device": gpu.name,
        "compute_capability": gpu.capability,
        "driver": gpu.driver,
        "cuda": cuda_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "commit": commit(root),
        "sources": sources_hash(root),
        "verified": sorted(loops),
    }
    others = [old for old in _runs(root / PLACES[0]) if old.get("compute_capability") != gpu.capability]
    text = json.dumps({"runs": [*others, run]}, indent=2) + "\n"
    for place in PLACES:
        write_whole(root / place, text)
    return run


def _runs(path: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(path.read_text())["runs"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def write_whole(path: Path, text: str) -> None:
    """The whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
