"""The report's numbers by hand, what it embeds, how it escapes, and what it says about bad input."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from problems import clustered
from report_house import HOSTILE, corrections, picture, random_corrections

import proto_engine as pe
from proto_engine.report import decision_graphs, write_report
from proto_engine.report.page import MAX_ROWS
from proto_engine.report.thumbnails import MAX_SUSPECTS, make_thumbnails

GIVEN, SUGGESTED = [0, 0, 0, 1, 1, 2], [0, 1, 0, 1, 0, 2]
ISSUE, PROBABILITY = [0.1, 0.8, 0.3, 0.0, 0.6, 0.2], [0.9, 0.7, 0.7, 1.0, 0.5, 0.8]


class Parts(HTMLParser):
    """Elements of a page, and the texts of those that matter."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.texts: dict[str, str] = {}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        values = dict(attributes)
        self.tags.append(tag)
        self.links += [values[name] for name in ("src", "href") if values.get(name)]
        self._inside = values.get("id") or tag if tag in ("script", "style", "title", "h1") else ""
        if values.get("http-equiv") == "Content-Security-Policy":
            self.texts["policy"] = values["content"]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[self._inside] = self.texts.get(self._inside, "") + data


def page(tmp_path: Path, *arguments: Any, **options: Any) -> tuple[Parts, dict[str, Any], str]:
    path = tmp_path / "page.html"
    write_report(path, *arguments, **options)
    text = path.read_text(encoding="utf-8")
    parts = Parts(text)
    return parts, json.loads(parts.texts["data"]), text


def unpacked(text: str, dtype: str) -> list[Any]:
    return np.frombuffer(base64.b64decode(text), dtype).tolist()


def test_report_holds_its_rows(tmp_path: Path) -> None:
    found = corrections(GIVEN, SUGGESTED, issue=ISSUE, probability=PROBABILITY)
    _, data, text = page(tmp_path, found, class_names=["a", "b", "c"], title="A title")
    assert unpacked(data["given"], "<u2") == GIVEN
    assert unpacked(data["suggested"], "<u2") == SUGGESTED
    assert unpacked(data["issue"], "<f4") == pytest.approx(ISSUE)
    assert unpacked(data["suspects"], "<u4") == [1, 4, 2, 5, 0, 3]
    assert data["index"] is None and data["changed"] == 2
    assert data["digest"] == hashlib.sha256(b"a\na\na\nb\nb\nc\n").hexdigest()
    assert data["matrix"] == {"classes": [0, 1, 2], "counts": [2, 1, 0, 1, 1, 0, 0, 0, 1]}
    assert "A title" in text
    assert page(tmp_path, found, class_names=["a", "b", "c"])[1]["id"] == data["id"]
    other = corrections(GIVEN, GIVEN, issue=ISSUE)  # decisions on other suggestions are not shown with these
    assert page(tmp_path, other, class_names=["a", "b", "c"])[1]["id"] != data["id"]


def test_report_without_optional_columns(tmp_path: Path) -> None:
    _, data, text = page(tmp_path, corrections(GIVEN, SUGGESTED))
    assert data["issue"] is None and data["probability"] is None and data["paths"] is None
    assert "expected right" not in text
    assert 'id="graph" aria-labelledby="graph-title" hidden' in text
    assert 'id="images" aria-labelledby="images-title" hidden' in text


def test_report_is_self_contained_and_its_policy_names_its_own_code(tmp_path: Path) -> None:
    parts, _, text = page(tmp_path, random_corrections(200, 4))
    policy = parts.texts["policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for kind, element in (("script-src", "script"), ("style-src", "style")):
        digest = base64.b64encode(hashlib.sha256(parts.texts[element].encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert all(link.startswith(("#", "data:")) for link in parts.links)
    assert " style=" not in text  # the policy would drop it
    assert not re.search(r"\son\w+=", re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL))


def test_report_escapes_names_paths_and_title(tmp_path: Path) -> None:
    plain, _, _ = page(tmp_path, corrections([0, 1], [1, 1]), images=["a/1.png", "a/2.png"])
    hostile, data, _ = page(
        tmp_path, corrections([0, 1], [1, 1]), class_names=[HOSTILE, "\ud800 & $title"], title=HOSTILE,
        images=[f"a/{HOSTILE.replace('/', '')}.png", "a/--><!--.png"],
    )  # fmt: skip
    assert hostile.tags == plain.tags
    assert data["names"] == [HOSTILE, "\ud800 & $title"]
    assert data["paths"][0] == HOSTILE.replace("/", "") + ".png"
    assert hostile.texts["title"].startswith(HOSTILE)  # figures have titles too
    assert hostile.texts["h1"] == HOSTILE


def test_report_of_no_rows_one_row_and_one_class(tmp_path: Path) -> None:
    assert page(tmp_path, corrections([], []))[1]["names"] == []
    empty = corrections(np.empty(0, int), np.empty(0, int), issue=[], probability=[])
    assert page(tmp_path, empty, class_names=["a"])[1]["suspects"] == ""
    infinite = corrections([0, 0], [0, 0], [np.inf, np.inf])  # a single class has no second best
    _, data, text = page(tmp_path, infinite)
    assert data["matrix"]["counts"] == [2]
    assert "No row has a margin." in text
    assert unpacked(page(tmp_path, corrections([0], [1], [np.nan]))[1]["suspects"], "<u4") == [0]


def test_report_lists_the_most_suspect_of_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_ROWS >= 50_000
    monkeypatch.setattr("proto_engine.report.page.MAX_ROWS", 3)
    _, data, text = page(tmp_path, corrections(GIVEN, SUGGESTED, issue=ISSUE), images=[None] * 6)
    assert unpacked(data["index"], "<u4") == [1, 2, 4]
    assert unpacked(data["suspects"], "<u4") == [0, 2, 1]  # places in that list
    assert sum(data["matrix"]["counts"]) == 6
    assert "the 3 most suspect of 6 rows" in text


def test_report_reads_tensors_and_names(tmp_path: Path) -> None:
    import torch

    found = corrections(GIVEN, SUGGESTED)
    tensors = pe.Corrections(
        *(torch.tensor(getattr(found, name)) for name in ("labels", "given", "score", "margin", "changed"))
    )
    assert unpacked(page(tmp_path, tensors)[1]["given"], "<u2") == GIVEN
    words = corrections(np.array(["x", "y"])[[0, 1]], np.array(["x", "y"])[[1, 1]])
    assert page(tmp_path, words)[1]["names"] == ["x", "y"]


def test_report_embeds_pictures_of_suspects_and_prototypes(tmp_path: Path) -> None:
    found = random_corrections(900, 3)
    order = np.argsort(-found.issue_score, kind="stable")
    images: list[Any] = [picture((k % 256, 0, 0)) for k in range(900)]
    images[order[0]] = None
    images[order[1]] = tmp_path / "missing.png"
    images[order[2]] = b"no image"
    first = [int(np.flatnonzero(found.given == c)[0]) for c in range(3)]
    core = SimpleNamespace(
        num_classes=3, indices=np.array(first)[:, None], counts=np.ones(3, int), filtered=np.zeros(3),
        consistent=np.zeros(3, int),
    )  # fmt: skip
    _, data, text = page(tmp_path, found, images=images, prototypes=core)
    wanted = order[:MAX_SUSPECTS].tolist()
    assert data["gallery"] == wanted[3:]
    assert data["prototypes"] == [[c, [row]] for c, row in enumerate(first)]
    assert {int(row) for row in data["pictures"]} == ({*wanted[3:], *first} - {*wanted[:3]})
    assert "2 without an image." in text and "1 with an image that cannot be decoded." in text
    with Image.open(io.BytesIO(base64.b64decode(data["pictures"][str(wanted[5])]))) as shown:
        assert (shown.format, shown.size) == ("JPEG", (40, 30))


def test_thumbnails_shrink_turn_and_fill(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    turned = io.BytesIO()
    Image.new("RGB", (600, 300), (0, 0, 255)).save(turned, "JPEG", exif=exif)
    deep = io.BytesIO()
    Image.fromarray(np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)).save(deep, "PNG")
    found = make_thumbnails([turned.getvalue(), picture((0, 0, 0, 0)), deep.getvalue(), picture(kind="GIF")], range(4))
    shown = [Image.open(io.BytesIO(base64.b64decode(found.data[row]))) for row in range(4)]
    assert shown[0].size == (56, 112)
    assert shown[1].getpixel((5, 5)) == (255, 255, 255)
    assert shown[2].getextrema()[1] - shown[2].getextrema()[0] > 200
    assert abs(shown[3].convert("RGB").getpixel((5, 5))[0] - 200) < 10


def test_thumbnails_stop_at_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(base64.b64decode(make_thumbnails([picture()], [0]).data[0]))
    monkeypatch.setattr("proto_engine.report.thumbnails._MAX_BYTES", 2 * size)
    found = make_thumbnails([picture()] * 4, [3, 1, 0, 2])
    assert sorted(found.data) == [1, 3]
    assert found.over_budget == 2


@pytest.mark.parametrize("tag", [0x100, 0x11A], ids=["struct.error", "TypeError"])
def test_picture_whose_exif_cannot_be_written_again_counts_as_unreadable(tag: int) -> None:
    """It is turned upright, and Pillow then fails on text where a number belongs."""
    entries = struct.pack("<HHL4s", tag, 2, 4, b"abc\0") + struct.pack("<HHL4s", 0x112, 3, 1, b"\6\0\0\0")
    out = io.BytesIO()
    exif = b"Exif\0\0II*\0\x08\0\0\0\2\0" + entries + bytes(4)
    Image.new("RGB", (40, 30)).save(out, "JPEG", exif=exif)
    found = make_thumbnails([out.getvalue(), picture()], [0, 1])
    assert sorted(found.data) == [1] and found.unreadable == 1


def test_thumbnails_leave_running_out_of_memory_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Any) -> bytes:
        raise MemoryError

    monkeypatch.setattr("proto_engine.report.thumbnails._small", full)
    with pytest.raises(MemoryError):
        make_thumbnails([picture()], [0])


def test_pictures_take_8_mb_of_the_page_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proto_engine.report.thumbnails._small", lambda source: bytes(10_000))
    found = make_thumbnails([b"x"] * 800, range(800))
    assert found.over_budget > 0
    assert 7.8e6 < len(json.dumps(found.data)) <= 8e6


def test_report_refuses_what_does_not_fit(tmp_path: Path) -> None:
    path, found = tmp_path / "page.html", corrections(GIVEN, SUGGESTED)
    for error, message, options in (
        (ValueError, "images: wanted one for each of 6 rows, got 2", {"images": ["a", "b"]}),
        (TypeError, "images: wanted paths or bytes, row 0 is int", {"images": [1] * 6}),
        (ValueError, "decision_graph: wanted classes 0 to 2, got 7", {"decision_graph": {7: ([1], [1])}}),
        (ValueError, "decision_graph: wanted arrays of one length", {"decision_graph": {1: ([1, 2], [1])}}),
    ):
        with pytest.raises(error, match=message):
            write_report(path, found, **options)
    with pytest.raises(ValueError, match=r"\.html"):
        write_report(tmp_path / "page.pdf", found)
    with pytest.raises(ValueError, match=r"issue_score: wanted 0 to 1, row 1 is 1.5"):
        write_report(path, corrections([0, 1], [0, 1], issue=[0.1, 1.5]))
    with pytest.raises(ValueError, match=r"issue_score: wanted shape \[2\], got \[1\]"):
        write_report(path, corrections([0, 1], [0, 1], issue=[0.1]))
    with pytest.raises(TypeError, match="margin: wanted numbers"):
        write_report(path, SimpleNamespace(given=[0], labels=[0], margin=["x"]))
    shifted = corrections([1, 2, 3], [1, 2, 2])  # numbered from 1: class 1 is not row 1 of the prototypes
    with pytest.raises(ValueError, match="prototypes: wanted labels that are the numbers of their 3 classes, got 4"):
        write_report(path, shifted, prototypes=SimpleNamespace(num_classes=3))
    assert not path.exists()


def test_report_draws_prototypes_with_or_without_marks(tmp_path: Path) -> None:
    x, y = clustered(120, 8, 3, seed=1)
    prototypes = pe.select_prototypes(x, y, prototypes_per_class=4, backend="cpu")
    found = pe.correct_labels(x, y, prototypes, backend="cpu")
    marked = decision_graphs(x, y, prototypes, backend="cpu")
    bare = {c: arrays[:2] for c, arrays in marked.items()}
    for graphs, others in ((marked, 4), (bare, 0)):
        _, data, _ = page(tmp_path, found, prototypes=prototypes, decision_graph=graphs)
        c, packed = data["graphs"][1]
        assert c == 1
        assert len(unpacked(packed[0], "<f4")) == (y == 1).sum() - others
        assert sorted(unpacked(packed[2], "<f4")) == sorted(prototypes.rho[1].tolist())


@pytest.mark.parametrize(
    ("method", "filtered"),
    [
        ("density-peaks", "turned down as too similar to a denser row."),
        ("density-contrast", "that is denser in another class."),
    ],
)
def test_report_says_what_filtered_means(tmp_path: Path, method: str, filtered: str) -> None:
    x, y = clustered(120, 8, 3, seed=1)
    prototypes = pe.select_prototypes(x, y, method=method, backend="cpu")
    _, _, text = page(tmp_path, corrections(y, y), prototypes=prototypes)
    assert f"Filtered: share of the class {filtered}" in text


def test_package_data_names_every_asset() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["proto_engine.report"]
    named = {path for pattern in patterns for path in (root / "proto_engine/report").glob(pattern)}
    assert named == set((root / "proto_engine/report/assets").iterdir())
    assert "proto_engine.report" in project["tool"]["setuptools"]["packages"]
