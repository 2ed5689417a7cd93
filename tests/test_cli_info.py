"""What the command line tells about itself: `info`, `--help`, and its page of the documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from cli_house import run

import proto_engine as pe
from proto_engine.cli import main


def test_cli_info_names_versions_and_backends(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "info")
    assert status == 0
    assert f"proto_engine {pe.__version__}" in out
    for name, reason in pe.backends().items():
        (line,) = [line for line in out.splitlines() if line.startswith(f"backend {name} ")]
        assert (reason or "available") in line


def test_cli_help_shows_the_defaults_of_the_functions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["correct", "--help"])
    assert leave.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("default 8)", "default 1280)", "default 0.6)", "default 0.95)", "default density-peaks)"):
        assert part in text


def test_cli_documentation_shows_real_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parent.parent / "docs" / "command_line.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for language, block in re.findall(r"^```(python|console)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        if language == "python":
            exec(block, names)
            shown = "".join(f"{line[2:]}\n" for line in block.splitlines() if line.startswith("# "))
            assert capsys.readouterr().out == shown
        else:
            for part in re.split(r"^\$ proto-engine ", block, flags=re.MULTILINE)[1:]:
                arguments, _, shown = part.partition("\n")
                assert run(capsys, *arguments.split())[:2] == (0, shown)
