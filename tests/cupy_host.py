"""The kernels of the CuPy backend compiled for the host, launched as CuPy launches them: a grid, and an array
without dimensions for each argument, whose bytes are the parameter."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cuda_host_library
import numpy as np

from proto_engine.backends import cupy_programs as programs
from proto_engine.backends import device as mirror
from proto_engine.backends.cupy import CupyBackend
from proto_engine.backends.cupy_compiler import Program
from proto_engine.backends.cupy_score_launches import PARAMS, AllLaunches, Variant, fold_program

LOOPS = {"simt": "SimtLoop<float>", "mma": "MmaLoop<Float16>"}
PROGRAMS = [
    programs.common_program(),
    *(programs.element_program(dtype) for dtype in (0, 2)),
    *(programs.tile_program(loop, epilogue) for loop in LOOPS.values() for epilogue in programs.PARAMETERS),
    *(Variant(dtype, dtype == 0, 16, sigma).program for dtype in (0, 2) for sigma in (False, True)),
    *(fold_program(element) for element in ("Float16", "float")),
]
RECORDS = {
    "ClassState": mirror.CLASS_STATE,
    "Entry": mirror.ENTRY,
    "Picked": mirror.PICKED,
    "Work": programs.WORK,
    "Operand": programs.OPERAND,
    "Extremes": programs.EXTREMES,
    "StoredRows<float>": programs.ROWS,
    "ScoreParams": PARAMS,
    **{f"{name}Epilogue<SimtLoop<float>>::Params": record for name, record in programs.PARAMETERS.items()},
}

_LAUNCH = """
template <class... P, size_t... I>
void call(void (*kernel)(P...), void* const* arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_cv_t<P>*>(arguments[I])...);
}
template <class... P>
void launch(void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared, size_t count, void* const* arguments,
            const size_t* sizes) {
  const size_t wanted[] = {sizeof(P)...};
  if (count != sizeof...(P) || !std::equal(sizes, sizes + count, wanted))
    throw std::runtime_error("arguments of other sizes than the parameters");
  cuda_host::run_grid(grid, dim3(threads), shared, 0,
                      [&] { call(kernel, arguments, std::index_sequence_for<P...>{}); });
}
std::string message;

extern "C" double host_score_reach(int32_t dtype, int64_t dim) { return score_reach(dtype <= 1, dtype == 1, dim); }

extern "C" const char* host_launch(const char* name, unsigned x, unsigned y, unsigned threads, size_t shared,
                                   size_t count, void* const* arguments, const size_t* sizes) {
  const std::string wanted = name;
  try {
    LAUNCHES throw std::runtime_error("there is no such kernel");
  } catch (const std::exception& error) {
    message = wanted + ": " + error.what();
    return message.c_str();
  }
}
"""


def source() -> str:
    """One C++ file with all kernels, and what Python relies on."""
    headers = dict.fromkeys(header for program in PROGRAMS for header in program.headers)
    kernels = [name for program in PROGRAMS for name in program.kernels]
    claims = [claim for program in PROGRAMS for claim in program.claims]
    for name, record in RECORDS.items():
        assert record.fields is not None
        claims += [f"offsetof({name}, {field}) == {offset}" for field, (_, offset, *_) in record.fields.items()]
    one = 'if (wanted == "{0}") return launch({0}, dim3(x, y), threads, shared, count, arguments, sizes), nullptr;\n'
    return "\n".join(
        [
            *(f"#include <{header}>" for header in ("cstddef", "stdexcept", "string", "utility")),
            '#include "cuda_runtime.h"',
            *(f'#include "{header}"' for header in headers),
            "using namespace proto_engine;",
            *(f'static_assert({claim}, "");' for claim in dict.fromkeys(claims)),
            _LAUNCH.replace("LAUNCHES", "".join(one.format(name) for name in kernels)),
        ]
    )


class HostKernels:
    """`find` of `Launches`: kernels that run on the host, one call at a time, on a GPU of two processors."""

    def __init__(self, folder: Path) -> None:
        path = folder / "kernels.cu"
        path.write_text(source())
        library = folder / "libcupy_host_kernels.so"
        cuda_host_library.link([cuda_host_library.compile_one(path, folder)], library)
        loaded = ctypes.CDLL(str(library))
        self.launch, self.score_reach = loaded.host_launch, loaded.host_score_reach
        self.launch.restype, self.score_reach.restype = ctypes.c_char_p, ctypes.c_double
        self.score_reach.argtypes = [ctypes.c_int32, ctypes.c_int64]

    def __call__(self, program: Program, name: str) -> HostKernel:
        assert name in program.kernels
        return HostKernel(self.launch, name)


class HostKernel:
    """`Kernel` of cupy_compiler."""

    processors = 2

    def __init__(self, function: Any, name: str) -> None:
        self._function, self._name = function, name

    def launch(
        self, grid: tuple[int, ...], threads: int, shared: int, stream: Any, arguments: Sequence[np.ndarray]
    ) -> None:
        assert all(argument.shape == () for argument in arguments)
        count = len(arguments)
        data = (ctypes.c_void_p * count)(*(argument.ctypes.data for argument in arguments))
        sizes = (ctypes.c_size_t * count)(*(argument.itemsize for argument in arguments))
        size = ctypes.c_size_t
        x, y = (*grid, 1)[:2]
        message = self._function(self._name.encode(), x, y, threads, size(shared), size(count), data, sizes)
        if message is not None:
            raise RuntimeError(message.decode())

    def most_blocks(self, threads: int, shared: int) -> int:
        return self.processors


class HostMemory:
    """Aligned as cudaMalloc's."""

    def __init__(self, num_bytes: int) -> None:
        self._bytes = np.full(num_bytes + 256, 0xFF, dtype=np.uint8)
        self.pointer = -(-self._bytes.ctypes.data // 256) * 256


class HostGpu:
    """`Gpu` whose memory is the host's."""

    device = stream = 0

    def __init__(self, kernels: HostKernels) -> None:
        self._launches = AllLaunches(kernels, None)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        yield

    def empty(self, num_bytes: int) -> HostMemory:
        return HostMemory(num_bytes)

    def upload(self, array: np.ndarray, to: int) -> None:
        ctypes.memmove(to, array.ctypes.data, array.nbytes)

    def download(self, address: int, array: np.ndarray) -> None:
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def fill(self, address: int, byte: int, num_bytes: int) -> None:
        ctypes.memset(address, byte, num_bytes)

    def free_bytes(self) -> int:
        return 2**30

    def launch(self, name: str, *arguments: Any) -> None:
        getattr(self._launches, name)(*arguments)


class HostCupyBackend(CupyBackend):
    """The backend as it is, but for its GPU."""

    def __init__(self, loop: str, kernels: HostKernels) -> None:
        super().__init__(loop)
        self._kernels = kernels

    def gpu(self, device: int, stream: int) -> Any:
        return HostGpu(self._kernels)

    def compute_capability(self, device: int) -> tuple[int, int]:
        return 8, 0

    def loop(self, device: int) -> str:
        assert self._loop is not None
        return self._loop
