"""Each format: what readers see, and what is left of a file that ends anywhere."""

from __future__ import annotations

import csv
import json
import math
import os
import pathlib
import shutil
from typing import Any

import click
import numpy as np
import pyarrow.parquet
import pytest

from pycaffe.cli._sinks import FORMATS, SeenPaths, Sink, format_of, open_sink
from pycaffe.cli._sinks.rows import Column, Row
from pycaffe.cli.classify import Classes
from pycaffe.cli.extract import Features
from pycaffe.errors import DataError

FEATURES = Features({"fc": (2, 3), "scalar": ()})
CLASSES = Classes("prob", 2, ["cat", 'a "dog", wet\nor é', "hare"])
STRANGE = 'b/"x",\n\r\udcff é.png'


def row(index: int, path: str | None = None) -> Row:
    values = np.arange(7, dtype=np.float32) * np.float32(0.1) + index
    return Row(path or f"{index}.png", {"fc": values[:6].reshape(2, 3), "scalar": values[6].reshape(())})


def failure(path: str) -> Row:
    return Row(path, None, f"InputError: Could not decode {path!r}", 1)


def write(name: pathlib.Path, rows: list[Row], complete: bool = True, table: Any = FEATURES) -> None:
    sink = open_sink(str(name), format_of(str(name), None), table)
    for each in rows:
        sink.write(each)
    sink.close(complete)


def resumed(name: pathlib.Path) -> tuple[Sink, SeenPaths, int]:
    sink = open_sink(str(name), format_of(str(name), None), FEATURES)
    seen = SeenPaths()
    return sink, seen, sink.resume(seen)


def read(name: pathlib.Path) -> dict[str, Any]:
    """Path → the error, or the seven numbers, as readers of the format see them. Every path is there once."""
    found: list[tuple[str, Any]] = []
    if name.suffix == ".jsonl":
        for line in name.read_text(encoding="ascii").splitlines():
            record = json.loads(line)
            blobs = record.get("blobs")
            numbers = blobs and [*np.ravel(blobs["fc"]), blobs["scalar"]]
            found.append((record["path"], record.get("error") or numbers))
    elif name.suffix == ".csv":
        with open(name, encoding="utf-8", newline="") as file:
            for fields in csv.DictReader(file):
                numbers = [float(fields[key]) for key in fields if key not in ("path", "error") and fields[key]]
                found.append((fields["path"], fields["error"] or numbers))
    elif name.suffix == ".parquet":
        for record in pyarrow.parquet.read_table(name).to_pylist():
            numbers = None if record["error"] else [*record["fc"], record["scalar"]]
            found.append((record["path"], record["error"] or numbers))
    else:
        with np.load(name) as arrays:
            assert arrays["fc"].shape[1:] == (2, 3)
            for path, fc, scalar in zip(arrays["path"], arrays["fc"], arrays["scalar"]):
                found.append((str(path), [*np.ravel(fc), scalar]))
            found += [(str(path), str(error)) for path, error in zip(arrays["failed"], arrays["error"])]
    result = {path: value if isinstance(value, str) else np.float32(value).tolist() for path, value in found}
    assert len(result) == len(found)
    return result


def expected(rows: list[Row]) -> dict[str, Any]:
    return {
        each.path: each.error
        if each.values is None
        else [*np.ravel(each.values["fc"]).tolist(), each.values["scalar"].tolist()]
        for each in rows
    }


@pytest.fixture(params=[format for format in FORMATS if format != "coco"])  # which is for detections
def name(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / f"out.{request.param}"


def log_of(name: pathlib.Path) -> pathlib.Path:
    return name if name.suffix in (".jsonl", ".csv") else name.with_name(f"{name.name}.partial")


def test_readers_see_the_same_numbers(name: pathlib.Path) -> None:
    rows = [row(0), failure("bad.png"), row(1), *(row(index) for index in range(2, 700))]
    write(name, rows)
    assert read(name) == expected(rows)
    assert os.listdir(name.parent) == [name.name]


def test_strange_paths(name: pathlib.Path) -> None:
    write(name, [row(0, STRANGE)])
    escaped = STRANGE.replace("\udcff", "\\udcff")
    (path,) = read(name)
    assert path == (STRANGE if name.suffix in (".jsonl", ".npz") else escaped)
    sink, seen, held = resumed(name)
    assert held == 1
    assert not seen.add(STRANGE)
    sink.close(True)
    assert list(read(name)) == [path]


def test_a_file_that_was_cut_anywhere_resumes(name: pathlib.Path) -> None:
    """Every length that a SIGKILL in the middle of a write can leave."""
    rows = [row(0), failure("bad\n.png"), row(1, 'q"\n,.png'), row(2)]
    ends, log = [], log_of(name)
    sink = open_sink(str(name), format_of(str(name), None), FEATURES)
    for each in rows:
        sink.write(each)
        ends.append(log.stat().st_size)
    sink.close(False)
    whole = log.read_bytes()
    for size in range(len(whole) + 1):
        name.unlink(missing_ok=True)
        log.write_bytes(whole[:size])
        sink, seen, held = resumed(name)
        assert held == sum(end <= size for end, each in zip(ends, rows) if each.values is not None)
        for each in rows:
            if seen.add(each.path):
                sink.write(each)
        sink.close(True)
        assert read(name) == expected(rows), size


def test_failed_images_run_again_and_others_do_not(name: pathlib.Path) -> None:
    """Complete, and before it was."""
    rows = [failure("0.png"), row(1), failure("2.png"), row(3), failure("4.png")]
    for complete in (True, False):
        name.unlink(missing_ok=True)
        write(name, rows, complete)
        sink, seen, held = resumed(name)
        assert held == 2
        assert [seen.add(f"{index}.png") for index in range(5)] == [True, False, True, False, True]
        sink.write(row(0))
        sink.write(failure("4.png"))
        sink.close(True)
        assert read(name) == expected([row(0), row(1), row(3), failure("4.png")])


def test_a_complete_file_that_nothing_is_added_to_stays_as_it_is(name: pathlib.Path) -> None:
    write(name, [row(0), row(1)])
    before = name.stat().st_ino, name.read_bytes()
    sink, _, held = resumed(name)
    sink.close(True)
    assert held == 2
    assert (name.stat().st_ino, name.read_bytes()) == before
    assert os.listdir(name.parent) == [name.name]


@pytest.mark.parametrize("suffix", ["parquet", "npz"])
def test_a_kill_between_the_file_and_the_end_of_its_journal(tmp_path: pathlib.Path, suffix: str) -> None:
    name = tmp_path / f"out.{suffix}"
    write(name, [row(0), failure("bad.png"), row(1)], complete=False)
    journal = log_of(name)
    assert not name.exists()
    saved = tmp_path / "saved"
    shutil.copy(journal, saved)
    sink, _, held = resumed(name)
    assert held == 2
    sink.close(True)
    assert not journal.exists()
    shutil.copy(saved, journal)
    sink, _, held = resumed(name)
    assert held == 2
    sink.write(row(2))
    sink.close(True)
    assert read(name) == expected([row(0), row(1), row(2)])


def test_an_empty_job(name: pathlib.Path) -> None:
    write(name, [])
    assert read(name) == {} if name.suffix != ".jsonl" else name.read_bytes() == b""
    sink, _, held = resumed(name)
    assert held == 0
    sink.write(row(5))
    sink.close(True)
    assert read(name) == expected([row(5)])


@pytest.mark.parametrize(
    ("suffix", "data", "message"),
    [
        ("jsonl", b'{"path": "a"}\nhello\n', r"line 2, is not a record of this command: b'hello"),
        ("jsonl", b'{"name": "a"}\n', "line 1, is not a record"),
        ("csv", b"a,b\n1,2\n", "is not a file of this job: it begins with b'a,b"),
        ("csv", b'"path",@"error"\n"a",1,""\n', "line 2, has 3 fields. Expected 9"),
        ("csv", b'"path",@"error"\n"a"x,""\n"b"\n', "line 2, is not a record"),
        ("parquet", b"PAR1 no more", "is no Parquet file that can be read"),
        ("npz", b"PK no more", "is no .npz file that can be read"),
    ],
)
def test_files_of_another_kind_are_left_alone(tmp_path: pathlib.Path, suffix: str, data: bytes, message: str) -> None:
    header = b"".join(b'"fc_%d",' % index for index in range(6)) + b'"scalar",'
    name = tmp_path / f"out.{suffix}"
    name.write_bytes(data.replace(b"@", header))
    sink = open_sink(str(name), suffix, FEATURES)
    assert sink.holds_records()
    with pytest.raises(DataError, match=message):
        sink.resume(SeenPaths())
    sink.close(False)
    assert name.read_bytes() == data.replace(b"@", header)


@pytest.mark.parametrize("suffix", ["parquet", "npz"])
def test_a_complete_file_with_other_columns(tmp_path: pathlib.Path, suffix: str) -> None:
    name = tmp_path / f"out.{suffix}"
    write(name, [Row("a.png", {"x": np.float32([1, 2])})], table=Features({"x": (2,)}))
    sink = open_sink(str(name), suffix, FEATURES)
    with pytest.raises(DataError, match=r"has other (columns|arrays)"):
        sink.resume(SeenPaths())
    sink.close(False)


def test_classes_with_labels(name: pathlib.Path) -> None:
    rows = [
        Row(f"{index}.png", CLASSES.values({"prob": np.roll(np.float32([0.5, 0.3, math.nan]), index)}))
        for index in range(3)
    ]
    write(name, rows[:2], table=CLASSES)
    sink = open_sink(str(name), format_of(str(name), None), CLASSES)
    assert sink.resume(SeenPaths()) == 2
    sink.write(rows[2])
    sink.close(True)
    label = 'a "dog", wet\nor é'
    if name.suffix == ".npz":
        with np.load(name) as arrays:
            assert arrays["index"].tolist() == [[0, 1], [1, 2], [2, 0]]
            assert arrays["label"].tolist() == [["cat", label], [label, "hare"], ["hare", "cat"]]
            np.testing.assert_array_equal(arrays["score"], np.float32([[0.5, 0.3]] * 3))
    elif name.suffix == ".parquet":
        (first, *_) = pyarrow.parquet.read_table(name).to_pylist()
        assert first == {
            "path": "0.png",
            "index": [0, 1],
            "label": ["cat", label],
            "score": pytest.approx([0.5, 0.3]),
            "error": None,
        }
    elif name.suffix == ".csv":
        with open(name, encoding="utf-8", newline="") as file:
            first = next(csv.DictReader(file))
        assert (first["label_1"], first["index_1"], float(first["score_1"])) == (label, "1", pytest.approx(0.3))
    else:
        first = json.loads(name.read_text(encoding="ascii").splitlines()[0])
        assert first["top"] == [
            {"index": 0, "label": "cat", "score": 0.5},
            {"index": 1, "label": label, "score": pytest.approx(0.3)},
        ]


def test_numbers_that_json_has_no_word_for(tmp_path: pathlib.Path) -> None:
    values = np.float32([[math.nan, math.inf, -math.inf], [1e-38, 3.4e38, 16777217]])
    write(tmp_path / "a.jsonl", [Row("a", {"fc": values, "scalar": np.float32(math.nan).reshape(())})])
    blobs = json.loads((tmp_path / "a.jsonl").read_text(encoding="ascii"))["blobs"]
    assert blobs["fc"][0] == [None, None, None]
    assert blobs["scalar"] is None
    assert np.float32(blobs["fc"][1]).tolist() == values[1].tolist()
    write(tmp_path / "a.csv", [Row("a", {"fc": values, "scalar": np.float32(0.1).reshape(())})])
    fields = next(csv.reader([(tmp_path / "a.csv").read_text(encoding="ascii").splitlines()[1]]))
    assert np.isnan(float(fields[1]))
    assert np.float32(list(map(float, fields[2:8]))).tolist() == [*values.ravel()[1:].tolist(), np.float32(0.1)]


def test_the_format_follows_from_the_suffix(tmp_path: pathlib.Path) -> None:
    names = ["a.jsonl", "a.NDJSON", "b.csv", "c.pq", "c.parquet", "d.npz", "-", os.devnull]
    assert [format_of(name, None) for name in names] == [
        "jsonl", "jsonl", "csv", "parquet", "parquet", "npz", "jsonl", "jsonl",
    ]  # fmt: skip
    assert format_of("a.txt", "csv") == "csv"
    with pytest.raises(click.UsageError, match=r"Unknown suffix '.txt' of 'a.txt'. Known: .jsonl, .ndjson"):
        format_of("a.txt", None)


def test_a_folder_is_no_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(click.UsageError, match=r"Could not write .*a.csv': Is a directory"):
        open_sink(str(tmp_path / "a.csv"), "csv", FEATURES)


def test_columns_count_their_values() -> None:
    assert Column("x", "float32", (2, 3, 4)).size == 24
    assert Column("x", "float32", ()).size == 1
