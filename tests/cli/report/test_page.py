"""The page is read by Python's parser, which is strict here: every element closes where it should."""

from __future__ import annotations

import base64
import html.parser
import pathlib
import re

import cv2
import numpy as np

from pycaffe.cli._report import TILES, Caption, Report
from tests.cli.case import write_png

VOID = {"meta", "img", "input", "br"}
SVG = {"svg", "rect", "line", "text", "title"}
EVIL = '<script>alert("1")</script>&amp;\n\udcff.png'


class Page(html.parser.HTMLParser):
    """Elements in order as (tag, attributes), and the text of each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SVG
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            self.texts.append((self._open[-1], data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def report(folder: pathlib.Path, captions: bool = True) -> tuple[Report, Clock]:
    clock = Clock()
    made = Report(str(folder / "report.html"), clock)
    for index in range(8):
        clock.now += 0.5
        path = write_png(folder / f"{index}.png", (index, 0, 0), (300, 150))
        made.add(path, 0.01 * (index + 1), None, Caption(f"class {index}", index / 10) if captions else None)
    return made, clock


def written(made: Report) -> Page:
    made.write("caffe classify", [("images", "8"), ("model", EVIL)])
    return Page(pathlib.Path(made.name).read_text(encoding="utf-8"))


def test_figures_charts_errors_and_thumbnails(tmp_path: pathlib.Path) -> None:
    made, clock = report(tmp_path)
    clock.now += 1
    for index in range(7):
        made.add(f"bad{index}.png", 0.001, ValueError(f"Could not decode 'bad{index}.png'"), None)
    page = written(made)
    assert page.text("h1") == ["caffe classify"]
    assert page.text("th")[:3] == ["images", "model", "an image, median"]
    assert page.text("summary") == ["ValueError: Could not decode …: 7"]
    assert page.text("li")[:2] == ["bad0.png", "Could not decode 'bad0.png'"]
    assert len(page.all("li")) == 6
    assert len(page.all("svg")) == 2
    assert "0:05: 28.0 images/s" in page.text("title")
    assert any(text.endswith(": 2") for text in page.text("title")), "70 and 80 ms are in one bin"
    figures = page.all("figure")
    assert [figure["data-label"] for figure in figures] == [f"class {index}" for index in range(8)]
    assert [figure["data-score"] for figure in figures] == ["0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"]
    assert [option["value"] for option in page.all("option")] == ["path", "label", "score", "seconds"]
    pictures = [image["src"] or "" for image in page.all("img")]
    assert len(pictures) == 8
    data = base64.b64decode(pictures[7].removeprefix("data:image/jpeg;base64,"))
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (128, 64, 3)


def test_nothing_is_fetched(tmp_path: pathlib.Path) -> None:
    text = pathlib.Path(report(tmp_path)[0].name)
    page = written(report(tmp_path)[0])
    links = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")]
    assert all((link or "").startswith("data:") for link in links)
    assert re.search(r"(https?:|//|url\(|@import)", re.sub(r"base64,[^\"]*", "", text.read_text("utf-8"))) is None
    assert any("default-src 'none'" in (meta.get("content") or "") for meta in page.all("meta"))


def test_what_comes_from_outside_is_text(tmp_path: pathlib.Path) -> None:
    made = Report(str(tmp_path / "report.html"))
    made.add(EVIL, 0.1, None, Caption(EVIL, float("nan")))
    made.add(EVIL, 0.1, ValueError(EVIL), None)
    page = written(made)
    assert len(page.all("script")) == 1
    shown = '<script>alert("1")</script>&amp;\\n\\udcff.png'
    (figure,) = page.all("figure")
    assert (figure["data-path"], figure["data-label"], figure["title"]) == (shown, shown, shown)
    assert page.text("li") == [shown, shown]
    assert page.text("div") == ["no picture"], "there is no such file"


def test_features_have_no_labels_to_sort_by(tmp_path: pathlib.Path) -> None:
    page = written(report(tmp_path, captions=False)[0])
    assert [option["value"] for option in page.all("option")] == ["path", "seconds"]
    assert set(page.all("figure")[0]) == {"data-path", "data-seconds", "title"}


def test_a_job_without_images(tmp_path: pathlib.Path) -> None:
    page = written(Report(str(tmp_path / "report.html")))
    assert page.text("p") == ["None.", "None.", "None."]
    assert page.text("th") == ["images", "model"]


def test_of_many_images_some_are_shown(tmp_path: pathlib.Path) -> None:
    made = Report(str(tmp_path / "report.html"))
    for index in range(3000):
        made.add(str(tmp_path / f"{index}.png"), 0.1, None, None)
    page = written(made)
    assert len(page.all("figure")) == TILES
    assert page.text("p")[1].startswith("240 of 3000, chosen at random.")
    paths = [int(pathlib.Path(figure["data-path"] or "").stem) for figure in page.all("figure")]
    assert 1200 < float(np.mean(paths)) < 1800


def test_huge_and_broken_images_have_no_thumbnail(tmp_path: pathlib.Path) -> None:
    made = Report(str(tmp_path / "report.html"))
    (tmp_path / "broken.png").write_bytes(b"nothing")
    huge = pathlib.Path(write_png(tmp_path / "huge.png"))
    data = bytearray(huge.read_bytes())
    data[16:24] = (10_000).to_bytes(4, "big") * 2  # the header only
    huge.write_bytes(data)
    for name in ("broken.png", "huge.png"):
        made.add(str(tmp_path / name), 0.1, None, None)
    assert written(made).all("img") == []
