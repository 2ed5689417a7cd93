"""The report in a real browser, from disk and with the network off: clicks, keys, sorting, the download."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from report_house import HOSTILE, corrections, needs_browser, open_browser, open_page, picture, random_corrections

from proto_engine.cli import main
from proto_engine.report import write_report

pytestmark = needs_browser

NAMES = ["ant", HOSTILE, 'with "quotes", commas\nand lines']
GIVEN = np.array([0, 1, 2, 0, 1, 2, 0, 1])
SUGGESTED = np.array([0, 2, 2, 1, 1, 0, 0, 0])
ISSUE = [0.05, 0.9, 0.1, 0.8, 0.2, 0.7, 0.15, 0.95]
PATHS = [f"{'abc'[g]}/im{k}.png" for k, g in enumerate(GIVEN)]


class Pictures(list):
    paths = PATHS


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("playwright.sync_api").expect.set_options(timeout=20_000)
    with open_browser() as started:
        yield started


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Eight rows; by suspicion 7 1 3 5 4 6 2 0. Row 3 has no picture."""
    found = corrections(GIVEN, SUGGESTED, issue=ISSUE, probability=np.full(8, 0.75))
    images = Pictures([picture() if k != 3 else None for k in range(8)])
    graph = {0: (np.arange(20) - 9, np.linspace(1, 0, 20), np.arange(20) > 17)}
    path = tmp_path / "report.html"
    write_report(path, found, class_names=NAMES, images=images, decision_graph=graph, title=HOSTILE)
    return path


def soon(found: Any) -> Any:
    """Playwright's waiting assertions; its `wait_for_function` needs `eval`, which the page forbids itself."""
    from playwright.sync_api import expect

    return expect(found)


def shown(page: Any, column: str) -> list[str]:
    """Texts of a column of the list, from top to bottom."""
    keys = page.eval_on_selector_all("#grid-head > *", "cells => cells.map(cell => cell.dataset.key || '')")
    place = keys.index(column)
    rows = page.eval_on_selector_all(
        ".row:not([hidden])",
        "(rows, place) => rows.map(row => [Number(row.dataset.place), row.children[place].textContent])",
        place,
    )
    return [text for _, text in sorted(rows)]


def rows_of(page: Any) -> list[int]:
    return [int(text) for text in shown(page, "row")]


def test_report_shows_hostile_names_as_text(browser: Any, small: Path) -> None:
    with open_page(browser, small) as page:
        assert page.title() == HOSTILE
        assert page.inner_text("h1") == HOSTILE
        assert page.locator("img[onerror]").count() == 0
        assert HOSTILE in page.locator("#class-table tbody").inner_text()
        assert page.locator("#filter-given option").all_inner_texts()[2] == HOSTILE


def test_report_sorts_filters_and_searches(browser: Any, small: Path) -> None:
    with open_page(browser, small) as page:
        assert rows_of(page) == [7, 1, 3, 5, 4, 6, 2, 0]
        page.click("#grid-head [data-key=row] button")
        assert rows_of(page) == list(range(8))
        assert page.get_attribute("#grid-head [data-key=row]", "aria-sort") == "ascending"
        page.click("#grid-head [data-key=margin] button")
        assert rows_of(page) == list(range(7, -1, -1))
        assert page.get_attribute("#grid-head [data-key=margin]", "aria-sort") == "descending"
        assert page.get_attribute("#grid-head [data-key=row]", "aria-sort") == "none"
        page.check("#filter-changed")
        assert rows_of(page) == [7, 5, 3, 1]
        page.select_option("#filter-given", "1")
        assert rows_of(page) == [7, 1]
        assert page.inner_text("#matching") == "2 of 8 rows"
        page.fill("#filter-low", "0.92")
        assert rows_of(page) == [7]
        page.click("#filters button[type=reset]")
        soon(page.locator("#matching")).to_have_text("8 of 8 rows")
        page.fill("#filter-text", "IM3")
        assert rows_of(page) == [3]
        page.fill("#filter-text", "5")  # a row number
        assert 5 in rows_of(page)
        page.fill("#filter-text", "no such row")
        assert rows_of(page) == []
        page.keyboard.press("Escape")
        page.click("#filters button[type=reset]")
        soon(page.locator("#matching")).to_have_text("8 of 8 rows")
        page.click("#suspect-order")
        assert rows_of(page) == [7, 1, 3, 5, 4, 6, 2, 0]
        page.locator("#before rect[data-given='1'][data-suggested='2']").click()
        assert rows_of(page) == [1]
        page.locator("#class-table button[data-class='2']").click()
        assert rows_of(page) == [5, 2]


def test_report_sorts_the_table_of_classes(browser: Any, small: Path) -> None:
    with open_page(browser, small) as page:

        def sizes() -> list[str]:
            return page.eval_on_selector_all(
                "#class-table tbody tr", "rows => rows.map(row => row.cells[1].textContent)"
            )

        head = page.locator("#class-table thead th").nth(1)
        assert sizes() == ["3", "3", "2"]
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        head.locator("button").click()
        assert (sizes(), head.get_attribute("aria-sort")) == (["2", "3", "3"], "ascending")


def test_report_decisions_by_key_and_click_reach_the_labels(
    browser: Any, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_page(browser, small) as page:
        assert page.is_disabled("#download")
        page.keyboard.press("a")  # row 7, accepted; the next row is selected
        page.keyboard.press("r")  # row 1, rejected
        page.keyboard.press("a")  # row 3 ...
        page.keyboard.press("u")  # ... not
        assert page.inner_text("#detail-title") == "Row 3"
        assert not page.is_visible("#detail-image")
        page.keyboard.press("j")
        page.keyboard.press("k")
        page.keyboard.press("j")
        page.click("#accept")  # row 5
        page.select_option("#relabel", "2")  # row 4, to another label
        assert page.inner_text("#progress") == "2 accepted \u00b7 1 rejected \u00b7 1 relabeled"
        page.focus("#filter-text")
        page.keyboard.type("a")  # text, no decision
        assert page.inner_text("#progress").startswith("2 accepted")
        page.fill("#filter-text", "")
        page.focus("#grid")
        page.keyboard.press("End")
        assert page.inner_text("#detail-title") == "Row 0"
        page.keyboard.press("ArrowUp")
        assert page.inner_text("#detail-title") == "Row 2"
        page.uncheck("#keys-on")
        page.keyboard.press("a")
        assert page.inner_text("#progress").startswith("2 accepted")
        page.select_option("#filter-decision", "accept")
        assert rows_of(page) == [7, 5]
        soon(page.locator("#after-changed")).to_have_text("3")
        with page.expect_download() as download:
            page.click("#download")
        download.value.save_as(tmp_path / "decisions.csv")
        # Kept in the browser: the page opened again knows them, and can take the last one back.
        page.reload()
        assert page.inner_text("#progress") == "2 accepted \u00b7 1 rejected \u00b7 1 relabeled"
        page.click("#undo")
        assert page.inner_text("#progress") == "2 accepted \u00b7 1 rejected"
    with open(tmp_path / "decisions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["index"], row["decision"], row["path"]) for row in rows] == [
        ("1", "reject", PATHS[1]), ("4", "relabel", PATHS[4]), ("5", "accept", PATHS[5]), ("7", "accept", PATHS[7]),
    ]  # fmt: skip
    given = np.array(NAMES)[GIVEN]
    pd.DataFrame({"label": given}).to_csv(tmp_path / "labels.csv", index=False)
    arguments = ["apply", tmp_path / "labels.csv", tmp_path / "decisions.csv", "-o", tmp_path / "new.csv"]
    assert main([str(argument) for argument in arguments]) == 0
    assert "4 decisions applied, 3 of 8 labels changed" in capsys.readouterr().out
    wanted = given.copy()
    wanted[[4, 5, 7]] = [NAMES[2], NAMES[0], NAMES[0]]
    assert pd.read_csv(tmp_path / "new.csv")["label"].tolist() == wanted.tolist()


def test_report_matrix_follows_decisions(browser: Any, small: Path) -> None:
    with open_page(browser, small) as page:

        def shows(*counts: int) -> None:
            """Painted in the next frame; no number where there is none."""
            soon(page.locator("#after text.value")).to_have_text([str(count or "") for count in counts])

        page.check("input[value=counts]")
        shows(2, 1, 0, 1, 1, 1, 1, 0, 1)
        page.keyboard.press("a")  # row 7: 1 -> 0
        shows(3, 1, 0, 0, 1, 1, 1, 0, 1)
        page.select_option("#undecided", "suggested")
        shows(4, 0, 0, 0, 2, 0, 0, 0, 2)
        page.focus("#grid")
        page.keyboard.press("r")  # row 1 stays 1, suggested 2
        shows(4, 0, 0, 0, 2, 1, 0, 0, 1)
        assert page.inner_text("#after-changed") == "3"
        page.keyboard.press("u")
        shows(4, 0, 0, 0, 2, 0, 0, 0, 2)


@pytest.mark.parametrize("width", [1280, 400])
def test_report_pictures_and_graph_fit_the_window(browser: Any, small: Path, width: int) -> None:
    size = {"width": width, "height": 900}
    with open_page(browser, small, viewport=size) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("#gallery img").count() == 7
        assert page.evaluate("[...document.querySelectorAll('#gallery img')].every(i => i.naturalWidth > 0)")
        assert page.locator("#graph-plot path.dots").count() == 2
        page.locator("#gallery button[data-row='5']").click()
        assert page.inner_text("#detail-title") == "Row 5"
        assert page.evaluate("document.activeElement.id") == "grid"


def test_report_colors_follow_the_system(browser: Any, small: Path) -> None:
    with open_page(browser, small, color_scheme="dark") as page:
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.emulate_media(color_scheme="light")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


def test_report_without_storage_still_works(browser: Any, small: Path) -> None:
    with open_page(browser, small) as page:
        page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('off'); } })")
        page.reload()
        page.keyboard.press("a")
        assert page.inner_text("#progress").startswith("1 accepted")
        soon(page.locator("#kept")).to_contain_text("keeps no data")


def test_report_of_50000_rows_stays_fluid(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "large.html"
    write_report(path, random_corrections(50_000, 20))
    assert path.stat().st_size < 10e6
    measure = """([id, value]) => {
      const input = document.getElementById(id), start = performance.now();
      if (input.type === "checkbox") input.checked = value; else input.value = value;
      input.dispatchEvent(new Event("input", { bubbles: true }));
      document.getElementById("grid").getBoundingClientRect();  // layout too
      return performance.now() - start;
    }"""
    steps = [
        ("filter-given", "3", ""),
        ("filter-changed", True, False),
        ("filter-low", "0.5", ""),
        ("filter-text", "77", ""),
    ]
    with open_page(browser, path) as page:
        assert page.inner_text("#matching") == "50,000 of 50,000 rows"
        assert page.locator(".row").count() < 100
        for name, on, off in steps:
            taken = [page.evaluate(measure, [name, value]) for _ in range(4) for value in (on, off)]
            assert min(taken[::2]) < 100, name  # the machine may be busy with other work
            assert min(taken[1::2]) < 100, name
        page.evaluate("document.getElementById('grid-view').scrollTop = 25000 * 30")
        soon(page.locator(".row[data-place='25000']:not([hidden])")).to_have_count(1)
        page.focus("#grid")
        page.keyboard.press("End")
        soon(page.locator(".row[data-place='49999'][aria-selected=true]")).to_have_count(1)
        assert page.locator(".row").count() < 100
