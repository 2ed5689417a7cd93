"""The CuPy backend's compiler: NVRTC takes every kernel; what it made is kept; the sources are in the package."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from proto_engine.backends import cupy_compiler, cupy_programs
from proto_engine.backends.cupy_compiler import Image, Program, architecture, compiled, source_folder
from proto_engine.backends.cupy_score_launches import Variant, fold_program
from proto_engine.errors import BackendUnavailable

ROOT = Path(__file__).parent.parent
needs_nvrtc = pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")

PLAIN = [cupy_programs.common_program(), *map(cupy_programs.element_program, range(4))]
TILES = [
    cupy_programs.tile_program(loop, epilogue)
    for loop in cupy_programs.LOOPS.values()
    for epilogue in cupy_programs.PARAMETERS
]
FOLDS = [fold_program(element) for element in ("Float16", "BFloat16", "float")]
SCORES = [
    Variant(dtype, tensor, classes, sigma).program
    for dtype, tensor, classes, sigma in itertools.product(range(4), (False, True), (16, 32), (False, True))
    if dtype < 2 or not tensor
]


@functools.cache
def ptx(program: Program) -> Image:
    return compiled(program, "compute_80")


def name_of(program: Program) -> str:
    return program.kernels[0]


# ---- the compiler ----------------------------------------------------------------------------------------


@needs_nvrtc
@pytest.mark.parametrize("program", [*PLAIN, *TILES, *FOLDS, *SCORES], ids=name_of)
def test_nvrtc_takes_every_kernel(program):
    """All claims about sizes and constants hold, too."""
    image = ptx(program)
    assert set(image.names) == set(program.kernels)
    for symbol in image.names.values():
        assert f".entry {symbol}(" in image.code.decode()


@needs_nvrtc
@pytest.mark.parametrize("program", [*PLAIN[:2], *TILES[:2], *TILES[5:7], FOLDS[0], SCORES[2]], ids=name_of)
def test_nvrtc_makes_machine_code_for_hopper(program):
    image = compiled(program, "sm_90")
    assert image.code.startswith(b"\x7fELF") and all(name.encode() in image.code for name in image.names.values())


@needs_nvrtc
def test_nvrtc_compiles_the_plain_loop_for_turing():
    program = TILES[0]
    assert program.least_capability == (7, 5) and "SimtLoop" in name_of(program)
    assert ".target sm_75" in compiled(program, "compute_75").code.decode()
    assert all(p.least_capability == (8, 0) for p in TILES if "MmaLoop" in name_of(p))


@needs_nvrtc
def test_denormal_numbers_are_kept():
    """Of float32, in conversions and arithmetic: the reference does not take them for zero."""
    for program in (*PLAIN, *TILES[:2]):
        assert ".ftz" not in ptx(program).code.decode()


@needs_nvrtc
def test_false_claim_is_an_error_that_says_what_nvrtc_said():
    program = Program(("state.cuh",), (), ("kBins == 1",))
    with pytest.raises(
        BackendUnavailable, match=r"NVRTC \d+\.\d+ cannot compile .* compute_80 .*relied upon by Python"
    ):
        compiled(program, "compute_80")


def test_architecture_is_the_gpu_or_the_newest_before_it():
    assert architecture((9, 0), (75, 80, 90)) == "sm_90"
    assert architecture((12, 1), (75, 80, 90, 120)) == "compute_120"
    assert architecture((8, 7), (75, 80, 90)) == "compute_80"


def test_image_survives_packing_and_damage_is_noticed():
    image = Image(b"\x7fELF\ncode\n", {"kernel<float>": "_Z1k"})
    packed = image.packed()
    assert Image.unpacked(packed) == image
    assert Image.unpacked(packed[:-1]) is None
    assert Image.unpacked(b"") is None and Image.unpacked(b"[]\ncode") is None


@needs_nvrtc
def test_compiled_program_comes_from_disk_the_second_time(tmp_path, monkeypatch):
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "kernels"))
    first = cupy_compiler._cached(FOLDS[2], "compute_80")
    (kept,) = (tmp_path / "kernels").iterdir()
    monkeypatch.setattr(cupy_compiler, "compiled", lambda *_: pytest.fail("compiled again"))
    assert cupy_compiler._cached(FOLDS[2], "compute_80") == first
    kept.write_bytes(kept.read_bytes()[:-1])
    monkeypatch.setattr(cupy_compiler, "compiled", lambda *_: first)
    assert cupy_compiler._cached(FOLDS[2], "compute_80") == first
    assert Image.unpacked(kept.read_bytes()) == first


@needs_nvrtc
def test_folder_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "file" / "kernels"))
    assert set(cupy_compiler._cached(FOLDS[2], "compute_80").names) == set(FOLDS[2].kernels)


# ---- the sources in an installed package -----------------------------------------------------------------


def test_build_puts_the_sources_into_the_package(tmp_path):
    """Without a C++ compiler: it is then that CuPy is needed."""
    environment = {**os.environ, "PATH": str(tmp_path)}
    environment.pop("CXX", None)
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "lib")]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    built = tmp_path / "lib" / "proto_engine" / "cuda_source"
    assert {path.name for path in built.iterdir()} == {path.name for path in (ROOT / "csrc" / "cuda").glob("*.cuh")}
    program = "from proto_engine.backends.cupy_compiler import source_folder; print(source_folder())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "lib")}
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == str(built)


def test_sources_of_the_repository_are_found():
    assert source_folder() == ROOT / "csrc" / "cuda"
