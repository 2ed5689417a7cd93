"""These tests run under sanitizers too, so they import neither torch nor numba."""

import os

import pytest

pytest.importorskip("proto_engine._core", reason="the native module was not built")


def pytest_report_header() -> str:
    from proto_engine import _core

    return f"native core: {_core.__file__}, sanitized: {os.environ.get('PROTO_ENGINE_SANITIZED', '0')}"
