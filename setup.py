"""Builds proto_engine._core with CMake. Everything else about the package is in pyproject.toml.

Environment: PROTO_ENGINE_CUDA=auto|0|1 (compile the CUDA sources: when nvcc 12.1 or later is found, never,
or fail without it), PROTO_ENGINE_CUDA_ARCHS (a CMAKE_CUDA_ARCHITECTURES list), PROTO_ENGINE_SANITIZE (such as
"address,undefined"). No GPU is needed to build. Without a C++ compiler the package installs without its
native module and the numba backend takes over.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
LEAST_NVCC = (12, 1)  # the first that knows all instructions of the kernels for Hopper


def wants_cuda() -> bool:
    wanted = os.environ.get("PROTO_ENGINE_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        sys.exit(f"PROTO_ENGINE_CUDA: wanted auto, 0 or 1, got {wanted!r}")
    if wanted == "0":
        return False
    reason = why_not_nvcc()
    if reason is None:
        return True
    if wanted == "1":
        sys.exit(f"PROTO_ENGINE_CUDA=1, but {reason}")
    print(f"proto_engine: {reason}, installing without the native CUDA backend", file=sys.stderr)
    return False


def why_not_nvcc() -> str | None:
    if shutil.which("nvcc") is None:
        return "nvcc is not on the PATH"
    told = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+)\.(\d+)", told)
    if release is not None and tuple(map(int, release.groups())) < LEAST_NVCC:
        return f"nvcc is of CUDA {release[1]}.{release[2]}, and {'.'.join(map(str, LEAST_NVCC))} or later is wanted"
    return None


def has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", "c++").split()[0], "c++", "g++", "clang++"))


class CMakeBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        import pybind11

        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        arguments = [
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target.parent}",
            "-DCMAKE_BUILD_TYPE=Release",
            "-DPYBIND11_FINDPYTHON=ON",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DPROTO_ENGINE_CUDA={'ON' if wants_cuda() else 'OFF'}",
            f"-DPROTO_ENGINE_SANITIZE={os.environ.get('PROTO_ENGINE_SANITIZE', '')}",
        ]
        if archs := os.environ.get("PROTO_ENGINE_CUDA_ARCHS"):
            arguments.append(f"-DPROTO_ENGINE_CUDA_ARCHS={archs}")
        if shutil.which("ninja"):
            arguments.append("-GNinja")
        subprocess.run(["cmake", "-S", str(ROOT / "csrc"), "-B", str(build), *arguments], check=True)
        subprocess.run(["cmake", "--build", str(build), "--parallel", str(os.cpu_count() or 1)], check=True)
        if not target.exists():
            sys.exit(f"CMake built no {target.name}")


class BuildPython(build_py):
    """Puts the kernels' sources into the package, where CuPy compiles them; an editable install has csrc/."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "proto_engine", "cuda_source")
            target.mkdir(parents=True, exist_ok=True)
            for source in (ROOT / "csrc" / "cuda").glob("*.cuh"):
                shutil.copy(source, target)


if has_compiler():
    extensions = [Extension("proto_engine._core", sources=[])]
else:
    extensions = []
    print("proto_engine: no C++ compiler found, installing without the native CPU backend", file=sys.stderr)

setup(ext_modules=extensions, cmdclass={"build_ext": CMakeBuild, "build_py": BuildPython})
