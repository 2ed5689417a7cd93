"""The kernels of csrc/cuda compiled at run time, by NVRTC through CuPy: a program at a time, when it is first used.

CuPy's own RawModule would do, but it compiles with ``-ftz=true``, which takes float32 numbers below 2**-126 for
zero: other bits than those of the reference. So NVRTC is called here, and only CuPy's modules and launches are
used. What was compiled is kept on disk, beside CuPy's kernels.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BackendUnavailable
from ..files import atomic_write

_log = logging.getLogger("proto_engine")
_MAX_DYNAMIC_SHARED_BYTES = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_MOST_OF_A_LOG = 1000  # characters; the first error says most
_PACKAGE = Path(__file__).resolve().parent.parent


@cache
def source_folder() -> Path | None:
    """Where the .cuh files are: in the installed package, or in the repository that it is imported from."""
    for folder in (_PACKAGE / "cuda_source", _PACKAGE.parent / "csrc" / "cuda"):
        if (folder / "tile_kernel.cuh").is_file():
            return folder
    return None


@dataclass(frozen=True)
class Program:
    """Kernels that are compiled together.

    Attributes
    ----------
    headers : tuple of str
        What to include of csrc/cuda.
    kernels : tuple of str
        C++ names, template arguments included.
    claims : tuple of str
        Constant expressions in C++ that Python relies on; a false one is an error of compilation.
    least_capability : tuple of int
        Of a GPU that has the instructions that are used.
    """

    headers: tuple[str, ...]
    kernels: tuple[str, ...]
    claims: tuple[str, ...] = ()
    least_capability: tuple[int, int] = (7, 5)

    @property
    def source(self) -> str:
        includes = [f'#include "{header}"' for header in self.headers]
        claims = [f'static_assert({claim}, "relied upon by Python");' for claim in self.claims]
        return "\n".join([*includes, "using namespace proto_engine;", *claims, ""])


def layout_claims(name: str, dtype: np.dtype) -> list[str]:
    """That a C++ type and its members have the sizes of a NumPy record and its fields."""
    claims = [f"sizeof({name}) == {dtype.itemsize}"]
    for field, (member, *_) in (dtype.fields or {}).items():
        claims.append(f"sizeof((({name}*)0)->{field}) == {member.itemsize}")
    return claims


@dataclass(frozen=True)
class Image:
    """A compiled program: what the driver loads, and the name of each kernel in it."""

    code: bytes
    names: dict[str, str]

    def packed(self) -> bytes:
        """A line of JSON, then the code."""
        head = {"names": self.names, "sha256": hashlib.sha256(self.code).hexdigest()}
        return json.dumps(head).encode() + b"\n" + self.code

    @classmethod
    def unpacked(cls, data: bytes) -> Image | None:
        """What `packed` made, or None where it is damaged."""
        head, _, code = data.partition(b"\n")
        try:
            fields = json.loads(head)
            return cls(code, fields["names"]) if fields["sha256"] == hashlib.sha256(code).hexdigest() else None
        except (ValueError, KeyError, TypeError):
            return None


def capability_of(device: Any) -> tuple[int, int]:
    """Of a ``cupy.cuda.Device``."""
    digits = device.compute_capability  # such as "90"
    return int(digits[:-1]), int(digits[-1])


def architecture(capability: tuple[int, int], supported: Sequence[int]) -> str:
    """What NVRTC is to compile for: the GPU itself, or the newest one it knows that came before."""
    number = 10 * capability[0] + capability[1]
    if number in supported:
        return f"sm_{number}"
    return f"compute_{max(known for known in supported if known <= number)}"


def compiled(program: Program, target: str) -> Image:
    """Compile a program for an architecture, such as "sm_90" (machine code) or "compute_90" (PTX).

    Raises
    ------
    BackendUnavailable
        The sources are not there, or NVRTC does not take them; the message has what it said.
    """
    from cupy.cuda import nvrtc

    folder = source_folder()
    if folder is None:
        raise BackendUnavailable("backend 'cupy' is unavailable: the package was installed without its CUDA sources")
    handle = nvrtc.createProgram(program.source, "proto_engine.cu", (), ())
    try:
        for name in program.kernels:
            nvrtc.addNameExpression(handle, name)
        try:
            nvrtc.compileProgram(handle, _options(folder, target))
        except nvrtc.NVRTCError as error:
            raise BackendUnavailable(
                f"backend 'cupy' is unavailable: NVRTC {'.'.join(map(str, nvrtc.getVersion()))} cannot compile its "
                f"kernels for {target} ({error}): {nvrtc.getProgramLog(handle).strip()[:_MOST_OF_A_LOG]}"
            ) from None
        code = nvrtc.getCUBIN(handle) if target.startswith("sm_") else nvrtc.getPTX(handle)
        return Image(code, {name: nvrtc.getLoweredName(handle, name) for name in program.kernels})
    finally:
        nvrtc.destroyProgram(handle)


def _options(folder: Path, target: str) -> tuple[str, ...]:
    return ("-std=c++17", f"-arch={target}", f"-I{folder}")


def _cached(program: Program, target: str) -> Image:
    """`compiled`, unless that is on disk already."""
    path = _cache_folder() / f"proto_engine-{_fingerprint(program, target)}.bin"
    try:
        image = Image.unpacked(path.read_bytes())
    except OSError:
        image = None
    if image is not None and set(image.names) == set(program.kernels):
        return image
    image = compiled(program, target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(image.packed())
    except OSError as error:  # it is compiled again next time
        _log.debug("backend 'cupy': compiled kernels cannot be kept: %s", error)
    return image


def _cache_folder() -> Path:
    """Where CuPy keeps its own."""
    return Path(os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache")


def _fingerprint(program: Program, target: str) -> str:
    """Of everything that a compiled program depends on."""
    from cupy.cuda import nvrtc

    found = hashlib.sha256(repr((nvrtc.getVersion(), target, program.kernels, program.source)).encode())
    for path in sorted(source_folder().glob("*.cuh")) if source_folder() else ():  # type: ignore[union-attr]
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:32]


class Kernel:
    """One kernel, loaded on one device."""

    def __init__(self, function: Any, processors: int) -> None:
        self._function, self.processors = function, processors
        self._resident: dict[tuple[int, int], int] = {}

    def launch(
        self, grid: tuple[int, ...], threads: int, shared: int, stream: Any, arguments: Sequence[np.ndarray]
    ) -> None:
        """Arguments are passed by value: arrays without dimensions, of the type of each parameter."""
        self._function(grid, (threads,), arguments, shared_mem=shared, stream=stream)

    def most_blocks(self, threads: int, shared: int) -> int:
        """How many blocks run at the same time; allows them that much dynamic shared memory."""
        from cupy.cuda import driver

        if (threads, shared) not in self._resident:
            pointer = self._function.ptr
            driver.funcSetAttribute(pointer, _MAX_DYNAMIC_SHARED_BYTES, shared)
            each = driver.occupancyMaxActiveBlocksPerMultiprocessor(pointer, threads, shared)
            if each == 0:
                raise BackendUnavailable("backend 'cupy': a block of its kernels does not fit on this GPU")
            self._resident[threads, shared] = each * self.processors
        return self._resident[threads, shared]


_loaded: dict[tuple[int, Program], dict[str, Kernel]] = {}
_lock = threading.Lock()


def kernel(device: int, program: Program, name: str) -> Kernel:
    """A kernel of a program on a device, compiled and loaded when it is first asked for."""
    with _lock:
        if (device, program) not in _loaded:
            _loaded[device, program] = _load(device, program)
        return _loaded[device, program][name]


def _load(device: int, program: Program) -> dict[str, Kernel]:
    import cupy

    with cupy.cuda.Device(device) as current:
        capability = capability_of(current)
        if capability < program.least_capability:
            wanted, found = (".".join(map(str, pair)) for pair in (program.least_capability, capability))
            raise BackendUnavailable(f"backend 'cupy': wanted compute capability {wanted}, device {device} has {found}")
        target = architecture(capability, cupy.cuda.nvrtc.getSupportedArchs())
        image = _cached(program, target)
        module = cupy.cuda.Module()
        module.load(image.code)
        processors = current.attributes["MultiProcessorCount"]
        return {name: Kernel(module.get_function(symbol), processors) for name, symbol in image.names.items()}
