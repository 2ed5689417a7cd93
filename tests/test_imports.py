"""The house: imports go one way, and the engine loads without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import proto_engine as pe

ROOT = Path(__file__).parents[1]
# Each room may import from the rooms before it (and its own); never from one after it.
LAYERS = [
    {"errors", "_core", "files"},
    {"bank_formats", "bank_parquet", "array_kinds", "bank"},
    {"arrays", "device_arrays", "moments", "transform"},
    {"labels", "label_text", "figures", "notebook", "exports", "corrections", "prototypes"},
    {"image_files", "decisions", "label_tree"},
    {"backends"},
    {"ops"},
    {"sampling", "selectors", "peaks", "contrast", "evidence", "core_shares"},
    {"selection_checks", "picked_classes", "selection", "policy"},
    {"scoring"},
    {"class_names", "versions"},
    {"report"},
    {"__init__"},
    {"corrector"},
    {"cli_streams", "cli_paths", "cli_report", "cli_options", "cli_apply", "cli_page", "cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def imported_rooms(path: Path) -> set[str]:
    """Rooms of proto_engine that a module imports, in functions too."""
    package = ["proto_engine", *path.relative_to(ROOT / "proto_engine").parts[:-1]]
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [stem] if node.module else [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("proto_engine.")}
        rooms |= {"__init__" for name in names if name == "proto_engine"}
    return rooms


@pytest.mark.parametrize("path", sorted((ROOT / "proto_engine").rglob("*.py")), ids=lambda p: p.name)
def test_imports_go_one_way(path):
    room = path.relative_to(ROOT / "proto_engine").parts[0].removesuffix(".py")
    for other in imported_rooms(path) - {room}:
        # the package face is used only by what sits on top of it; names it loads lazily are no back edge
        if (room, other) == ("__init__", "corrector"):
            continue
        assert LEVEL[other] <= LEVEL[room], f"{room} imports {other}"


@pytest.mark.parametrize("folder", ["python", "benchmarks", "examples"])
def test_callers_use_the_engine_and_never_the_other_way(folder):
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for path in (ROOT / "proto_engine").rglob("*.py"):
        assert "proto_trainer" not in path.read_text()
    if folder == "python":  # only public names
        for path in files:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "proto_engine":
                    assert node.module == "proto_engine", path
                    assert {alias.name for alias in node.names} <= set(pe.__all__), path


def test_engine_loads_without_torch_numba_sklearn_or_faiss():
    code = (
        "import sys, numpy as np, proto_engine as pe\n"
        "x = np.random.default_rng(0).random((50, 4), dtype='f4'); y = np.arange(50) % 2\n"
        "pe.correct_labels(x, y, pe.select_prototypes(x, y, backend='cpu'), backend='cpu')\n"
        "loaded = {'torch', 'numba', 'sklearn', 'faiss', 'cupy', 'pandas'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_public_names_exist():
    for name in pe.__all__:
        assert getattr(pe, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pe.nothing


def test_show_versions_names_every_backend(capsys):
    pe.show_versions()
    out = capsys.readouterr().out
    for name in pe.backends():
        assert f"backend {name}" in out
    assert "numpy" in out
