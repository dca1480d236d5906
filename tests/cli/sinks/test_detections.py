"""Records with any number of values: CSV's lines, the journal, COCO's JSON."""

from __future__ import annotations

import csv
import json
import os
import pathlib
from typing import Any

import click
import numpy as np
import pytest

from pycaffe.cli._sinks import SeenPaths, format_of, open_sink
from pycaffe.cli._sinks.rows import Row, check_values
from pycaffe.cli.detect import FORMATS, Objects
from pycaffe.detection import Detector
from pycaffe.errors import DataError
from pycaffe.images import ImagePreprocess
from pycaffe.net import Net

NAMES = {1: "cat", 2: 'a "dog", é'}
SIDES = ("left", "top", "right", "bottom")


@pytest.fixture(scope="module")
def table(detector: tuple[str, str]) -> Objects:
    return Objects(Detector(Net(detector[0]), ImagePreprocess(), 0.5), NAMES, {})


@pytest.fixture(params=["csv", "json", "jsonl"])
def name(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / f"out.{request.param}"


def row(path: str, count: int) -> Row:
    """An image with so many detections."""
    numbers = np.arange(1, count + 1)
    values: dict[str, Any] = {
        "width": np.array(640),
        "height": np.array(480),
        "class": numbers % 3 + 1,
        "score": (1 / (numbers + 1)).astype(np.float32),
        **{side: (numbers * (10.25 + i)).astype(np.float32) for i, side in enumerate(SIDES)},
    }
    values["label"] = np.array([NAMES.get(number, f"class {number}") for number in values["class"]], dtype=object)
    return Row(path, values)


FAILURE = Row("bad\n.png", None, "InputError: it is empty", 1)
ROWS = [row("a.png", 2), row("none.png", 0), FAILURE, row('q"\n,\udcff.png', 1), row("b.png", 4)]


def write(name: pathlib.Path, table: Any, rows: list[Row], complete: bool = True) -> None:
    sink = open_sink(str(name), format_of(str(name), None, FORMATS), table)
    for each in rows:
        sink.write(each)
    sink.close(complete)


def read(name: pathlib.Path) -> dict[str, Any]:
    """Path → the error, or class, label, score and box of each detection, as other programs read the format."""
    if name.suffix == ".jsonl":
        records = list(map(json.loads, name.read_text(encoding="ascii").splitlines()))
        assert all("error" in record or (record["width"], record["height"]) == (640, 480) for record in records)
        return {
            record["path"]: record.get("error")
            or [[each["class"], each["label"], each["score"], *each["box"]] for each in record["detections"]]
            for record in records
        }
    found: dict[str, Any] = {}
    if name.suffix == ".csv":
        with open(name, encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                detections = found.setdefault(line["path"], line["error"] or [])
                if line["label"]:
                    assert (line["width"], line["height"]) == ("640", "480")
                    numbers = [float(line[key]) for key in ("score", *SIDES)]
                    detections.append([int(line["class"]), line["label"], *numbers])
        return found
    text = json.loads(name.read_text(encoding="ascii"))
    names = {each["id"]: each["name"] for each in text["categories"]}
    paths = {each["id"]: each["file_name"] for each in text["images"]}
    assert sorted(paths) == list(range(1, len(paths) + 1))
    assert [each["id"] for each in text["annotations"]] == list(range(1, len(text["annotations"]) + 1))
    found = {path: [] for path in paths.values()}
    for each in text["annotations"]:
        x, y, width, height = each["bbox"]
        assert (each["area"], each["iscrowd"]) == (pytest.approx(width * height, abs=0.01), 0)
        kind = each["category_id"]
        label = names[kind] if kind in NAMES else f"class {kind}"
        found[paths[each["image_id"]]].append([kind, label, each["score"], x, y, x + width, y + height])
    return found | {each["file_name"]: each["error"] for each in text["errors"]}


def assert_holds(name: pathlib.Path, rows: list[Row]) -> None:
    found = read(name)
    assert len(found) == len(rows)
    for each in rows:
        path = each.path if name.suffix != ".csv" else each.path.replace("\udcff", "\\udcff")
        if each.values is None:
            assert found[path] == each.error
            continue
        columns = [each.values[key].tolist() for key in ("class", "label", "score", *SIDES)]
        expected = list(map(list, zip(*columns)))
        assert [got[:2] for got in found[path]] == [wanted[:2] for wanted in expected]
        for got, wanted in zip(found[path], expected):
            assert got[2:] == pytest.approx(wanted[2:], rel=1e-6, abs=0.011 if name.suffix == ".json" else 0)


def test_other_programs_see_the_same_detections(name: pathlib.Path, table: Objects) -> None:
    write(name, table, ROWS)
    assert_holds(name, ROWS)
    assert os.listdir(name.parent) == [name.name]


def test_a_file_that_was_cut_anywhere_resumes(name: pathlib.Path, table: Objects, tmp_path: pathlib.Path) -> None:
    log = name if name.suffix != ".json" else name.with_name(f"{name.name}.partial")
    ends = []
    for count in range(1, len(ROWS) + 1):
        write(name, table, ROWS[:count], complete=False)
        ends.append(log.stat().st_size)
        if count < len(ROWS):
            log.unlink()
    whole = log.read_bytes()
    for size in range(0, len(whole) + 1, 7):
        log.write_bytes(whole[:size])
        held = [each for each, end in zip(ROWS, ends) if end <= size and each.values is not None]
        sink = open_sink(str(name), format_of(str(name), None, FORMATS), table)
        seen = SeenPaths()
        assert sink.resume(seen) == len(held)
        for each in ROWS:
            if seen.add(each.path):
                sink.write(each)
        sink.close(True)
        assert_holds(name, ROWS)
        name.unlink()


def test_a_finished_coco_file_goes_on(table: Objects, tmp_path: pathlib.Path) -> None:
    name = tmp_path / "out.json"
    write(name, table, ROWS[:4])
    sink = open_sink(str(name), "coco", table)
    seen = SeenPaths()
    assert sink.resume(seen) == 3
    assert not seen.add(ROWS[0].path)
    sink.write(row(FAILURE.path, 1))
    sink.write(ROWS[4])
    sink.close(True)
    assert_holds(name, [*ROWS[:2], ROWS[3], row(FAILURE.path, 1), ROWS[4]])
    once = name.read_bytes()
    write_again = open_sink(str(name), "coco", table)
    assert write_again.resume(SeenPaths()) == 5
    write_again.write(row("c.png", 1))
    write_again.close(True)
    lines = once.decode("ascii").splitlines()
    assert [line.rstrip(",") for line in name.read_text(encoding="ascii").splitlines()[:4]] == [
        line.rstrip(",") for line in lines[:4]
    ], "what was there is written as it was"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": []}', "is not a file of this command"),
        ('{\n"info": {"description": "caffe detect"},\n"images": [\n{"id"', "is damaged: .* is no JSON object"),
        ('{\n"info": {"description": "caffe detect"},\n"images": [\n', "is damaged: it ends before its 'images' do"),
    ],
)
def test_another_json_file_or_a_damaged_one(table: Objects, tmp_path: pathlib.Path, text: str, message: str) -> None:
    name = tmp_path / "out.json"
    name.write_text(text, encoding="ascii")
    sink = open_sink(str(name), "coco", table)
    with pytest.raises(DataError, match=message):
        sink.resume(SeenPaths())
    sink.close(False)
    assert name.read_text(encoding="ascii") == text


def test_a_damaged_count_in_csv(table: Objects, tmp_path: pathlib.Path) -> None:
    name = tmp_path / "out.csv"
    write(name, table, [row("a.png", 2)])
    name.write_text(name.read_text(encoding="utf-8").replace("480,2,", "480,two,"), encoding="utf-8")
    sink = open_sink(str(name), "csv", table)
    with pytest.raises(DataError, match=r"'two' is no number of values, in the record of 'a\.png'"):
        sink.resume(SeenPaths())
    sink.close(False)


def test_formats_that_detections_do_not_have() -> None:
    with pytest.raises(click.UsageError, match=r"Unknown suffix '\.npz' .* Known: \.jsonl, \.ndjson, \.csv, \.json;"):
        format_of("out.npz", None, FORMATS)


def test_values_of_which_one_is_missing(table: Objects) -> None:
    values = dict(row("a.png", 2).values or {})
    values["score"] = values["score"][:1]
    wrong = check_values(table.columns, values)
    assert wrong == "Blob 'score' has shape (1,) for this image. Expected (2,)"


def test_without_labels_categories_are_numbers(detector: tuple[str, str], tmp_path: pathlib.Path) -> None:
    table = Objects(Detector(Net(detector[0]), ImagePreprocess(), 0.5), {}, {})
    values = {key: value for key, value in (row("a.png", 2).values or {}).items() if key != "label"}
    write(tmp_path / "out.json", table, [Row("a.png", values)])
    text = json.loads((tmp_path / "out.json").read_text(encoding="ascii"))
    assert text["categories"] == [{"id": 2, "name": "2"}, {"id": 3, "name": "3"}]
