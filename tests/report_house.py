"""What the tests of the report share: corrections of known numbers, small pictures, and a browser."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on this machine")
# Nothing of the browser's own goes to the network, and no profile of the user is touched.
_FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
HOSTILE = '</script><img src=x onerror="document.title=1">'


def corrections(
    given: Any, suggested: Any, margin: Any = None, issue: Any = None, probability: Any = None
) -> SimpleNamespace:
    """What `write_report` reads of a correction."""
    given, suggested = np.asarray(given), np.asarray(suggested)
    margin = np.linspace(0.1, 0.9, len(given)) if margin is None else np.asarray(margin, float)
    found = SimpleNamespace(
        given=given, labels=suggested, margin=margin, score=margin / 2 + 0.4, changed=given != suggested
    )
    if issue is not None:
        found.issue_score = np.asarray(issue, float)
    if probability is not None:
        found.probability = np.asarray(probability, float)
    return found


def random_corrections(num_samples: int, num_classes: int, seed: int = 0) -> SimpleNamespace:
    """A fifth of the labels changed."""
    rng = np.random.default_rng(seed)
    given = rng.integers(0, num_classes, num_samples)
    moved = rng.random(num_samples) < 0.2
    suggested = np.where(moved, (given + 1) % num_classes, given)
    issue = np.clip(np.where(moved, 0.8, 0.1) + 0.1 * rng.standard_normal(num_samples), 0, 1)
    return corrections(given, suggested, rng.random(num_samples), issue, np.where(moved, issue, 1 - issue))


def picture(color: tuple[int, ...] = (200, 30, 30), size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB" if len(color) == 3 else "RGBA", size, color).save(out, kind)
    return out.getvalue()


@contextmanager
def open_browser() -> Iterator[Any]:
    """A browser with a new, empty profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=_FLAGS.split())
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Any, path: str | os.PathLike[str], **options: Any) -> Iterator[Any]:
    """The page from disk with the network off; whatever it says on its console fails the test."""
    wrong: list[str] = []
    context = browser.new_context(offline=True, **{"viewport": {"width": 1280, "height": 900}, **options})
    try:
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: _local(request.url, wrong))
        page.set_default_timeout(20_000)
        page.goto(f"file://{os.path.abspath(path)}")
        yield page
    finally:
        context.close()
    assert not wrong


def _local(url: str, wrong: list[str]) -> None:
    if url.split(":", 1)[0] not in ("file", "data", "blob"):
        wrong.append(f"request of {url}")
