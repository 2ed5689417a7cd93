"""Shared by all tests: what was skipped for want of a GPU is counted at the end of the run."""

from __future__ import annotations

import pytest
from problems import has_gpu


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not has_gpu():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    gpu = sum("needs an NVIDIA GPU" in str(report.longrepr) for report in skipped)
    terminalreporter.write_line(f"skipped for want of a GPU: {gpu} tests")
