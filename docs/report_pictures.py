"""The pictures of docs/report.md: its own example, opened in Chromium.

    python docs/report_pictures.py

Needs what the tests of the report need.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from report_house import open_browser, open_page  # noqa: E402

from proto_engine.cli import main  # noqa: E402

# name, width and height of the window, color scheme, part of the page
PICTURES = (
    ("report_overview_light", 1280, 1190, "light", None),
    ("report_rows_dark", 1280, 900, "dark", "#rows"),
    ("report_narrow_light", 400, 900, "light", None),
    ("report_narrow_dark", 400, 900, "dark", "#rows"),
)
KEYS = "ajajarj"  # accept, go on, accept, go on, accept, reject, go on


def example(folder: Path) -> Path:
    """The page of the example, made in an empty folder."""
    (code,) = re.findall(r"```python\n(from pathlib import Path\n.*?)```", (DOCS / "report.md").read_text(), re.DOTALL)
    before = Path.cwd()
    os.chdir(folder)
    try:
        exec(code, {})
        if main(["report", "features.npy", "labels.csv", "-o", "report.html", "--images", "digits"]):
            raise SystemExit("the example failed")
    finally:
        os.chdir(before)
    return folder / "report.html"


def picture(browser: Any, page_file: Path, name: str, width: int, height: int, scheme: str, part: str | None) -> None:
    """Decide on a few rows, go to the part, and keep what the window shows."""
    size = {"width": width, "height": height}
    with open_page(browser, page_file, viewport=size, color_scheme=scheme) as page:
        page.focus("#grid")
        for key in KEYS:
            page.keyboard.press(key)
        page.evaluate("document.activeElement.blur()")
        page.evaluate("part => part ? document.querySelector(part).scrollIntoView() : scrollTo(0, 0)", part)
        page.wait_for_timeout(500)  # pictures decoded, scrolling over
        page.screenshot(path=DOCS / "images" / f"{name}.png")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        page_file = example(Path(folder))
        for settings in PICTURES:
            picture(browser, page_file, *settings)
