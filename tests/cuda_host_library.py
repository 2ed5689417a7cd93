"""The CUDA launches of the package compiled for the host: the Python module that tests/cuda_host makes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path
from types import ModuleType

import pytest

NATIVE = Path(__file__).parent.parent / "csrc"
STAND_IN = Path(__file__).parent / "cuda_host"
SANITIZED = os.environ.get("PROTO_ENGINE_SANITIZED") == "1"
NAME = "cuda_host_core"
KEPT_SECONDS = 3600 * 24  # what older sources were compiled to
# One rounding an operation; `#pragma unroll` is the GPU's alone.
FLAGS = ["-std=c++17", "-g1", "-ffp-contract=off", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


def missing() -> str | None:
    """What the build lacks on this machine."""
    if compiler() is None:
        return "there is no C++ compiler"
    if importlib.util.find_spec("pybind11") is None:
        return "pybind11 is not installed"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers are not installed"
    return None


def compiler() -> str | None:
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def load(temporary: pytest.TempPathFactory) -> ModuleType:
    """The module; compiled into pytest's folder for temporary files, unless it is there from the same sources."""
    shared = temporary.getbasetemp().parent
    folder = shared / f"{NAME}-{fingerprint()}"
    module = folder / f"{NAME}.so"
    if not module.exists():
        for old in shared.glob(f"{NAME}-*"):
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        unfinished = temporary.mktemp(NAME)
        build(unfinished, unfinished / module.name)
        with contextlib.suppress(OSError):  # another run was faster
            unfinished.rename(folder)
    loader = importlib.machinery.ExtensionFileLoader(NAME, str(module))
    spec = importlib.util.spec_from_file_location(NAME, module, loader=loader)
    assert spec is not None
    loaded = importlib.util.module_from_spec(spec)
    loader.exec_module(loaded)
    return loaded


def fingerprint() -> str:
    """Of everything that the module is made of."""
    found = hashlib.sha256(repr((compiler(), sysconfig.get_python_version(), FLAGS, SANITIZED)).encode())
    for path in sorted([*NATIVE.glob("*.*"), *NATIVE.glob("cuda/*"), *STAND_IN.glob("*"), Path(__file__)]):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


def build(folder: Path, module: Path) -> None:
    """Compile every source; link a library of all kernels, and the Python module beside it."""
    listed = re.findall(r"cuda/\w+\.cu\b", (NATIVE / "CMakeLists.txt").read_text())
    kernels = [*(NATIVE / name for name in listed), STAND_IN / "faults.cpp"]
    bindings = [NATIVE / "cuda_bindings.cpp", NATIVE / "cuda_memory_bindings.cpp", STAND_IN / "module.cpp"]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda source: compile_one(source, folder), [*bindings, *kernels]))
    library = folder / f"lib{NAME}_kernels.so"  # a name of its own: the loader takes what it has of a name
    link(objects[len(bindings) :], library)
    link([*objects[: len(bindings)], str(library), "-Wl,-rpath,$ORIGIN"], module)


def link(objects: list[str], target: Path) -> None:
    sanitizers = SANITIZERS if SANITIZED else []
    run([str(compiler()), "-shared", *sanitizers, *objects, f"-Wl,-soname,{target.name}", "-o", str(target)])


def compile_one(source: Path, folder: Path) -> str:
    import pybind11

    target = folder / f"{source.stem}.o"
    includes = [NATIVE, NATIVE / "cuda", STAND_IN, pybind11.get_include(), sysconfig.get_path("include")]
    optimize = "-O1" if source.suffix == ".cu" else "-O0"  # bindings only hand over
    command = [str(compiler()), "-c", *FLAGS, optimize, *(SANITIZERS if SANITIZED else []), "-DPROTO_ENGINE_CUDA_HOST"]
    run([*command, *(f"-I{include}" for include in includes), "-x", "c++", str(source), "-o", str(target)])
    return str(target)


def run(command: list[str]) -> None:
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # nobody watches the compiler
    outcome = subprocess.run(command, capture_output=True, text=True, env=plain)
    assert outcome.returncode == 0, outcome.stderr
