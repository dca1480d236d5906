from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest

from pycaffe.cli import main
from pycaffe.images import colour_of, decode, write_image
from tests.cli.case import records, run
from tests.detection.tiny_detector import LEFT, RIGHT, halves, write_tiny_detector

BLUE, GREEN, BLACK = (204, 0, 0), (0, 255, 0), (0, 0, 0)
LABELS = "background\ncat\ndog\n"
DECODE = """
import os, signal

def found(outputs):
    scores = outputs["conf"].reshape(2, 3)
    return [[kind, scores[half, kind], half / 2, 0, half / 2 + 0.5, 1] for half in range(2) for kind in (1, 2)]

def crooked(outputs):
    return [1, 2, 3]

def deadly(outputs):
    if outputs["conf"].max() > 0.9:
        os.kill(os.getpid(), signal.SIGKILL)
    return found(outputs)

number = 3
"""


def detect(net: tuple[str, str], *words: Any, **arguments: Any) -> subprocess.CompletedProcess[str]:
    return run("detect", net, *words, **arguments)


@pytest.fixture
def photos(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder: both.png has a cat on the left and a dog on the right, deep/one.bmp a dog, none.png nothing."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    write_image(folder / "both.png", halves(BLUE, GREEN, 80, 240))
    cv2.imwrite(str(folder / "deep" / "one.bmp"), halves(GREEN, BLACK, 40, 60))
    write_image(folder / "none.png", halves(BLACK, BLACK))
    return folder


@pytest.fixture(scope="session")
def headless(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The detector without its last layer."""
    return write_tiny_detector(tmp_path_factory.mktemp("headless"), output="")


def pixels(box: tuple[float, ...], height: int, width: int) -> Any:
    return pytest.approx([box[0] * width, box[1] * height, box[2] * width, box[3] * height], abs=1e-3)


def by_name(text: str) -> dict[str, Any]:
    return {os.path.basename(record["path"]): record for record in records(text)}


def test_records_drawings_and_a_report(detector: tuple[str, str], photos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    labels, drawn, report = tmp_path / "labels.txt", tmp_path / "drawn", tmp_path / "report.html"
    labels.write_text(LABELS, encoding="utf-8")
    words = ("--labels", labels, "--draw", drawn, "--report", report, "--workers", 2, photos)
    done = detect(detector, *words, photos / "missing.png")
    assert done.returncode == 1, done.stderr
    found = by_name(done.stdout)
    dog = {"class": 2, "label": "dog", "score": pytest.approx(1, abs=1e-6), "box": pixels(RIGHT, 80, 240)}
    cat = {"class": 1, "label": "cat", "score": pytest.approx(0.8, abs=1e-6), "box": pixels(LEFT, 80, 240)}
    assert found["both.png"] == {
        "path": str(photos / "both.png"), "width": 240, "height": 80, "detections": [dog, cat]
    }  # fmt: skip
    assert found["none.png"]["detections"] == []
    assert found["one.bmp"]["detections"] == [{**dog, "box": pixels(LEFT, 40, 60)}]
    assert "No such file" in found["missing.png"]["error"]

    names = sorted(str(path.relative_to(drawn)) for path in drawn.rglob("*") if path.is_file())
    assert names == ["both.png", "deep/one.bmp.jpg", "none.png"]
    assert np.array_equal(decode(drawn / "none.png"), decode(photos / "none.png"))
    picture = decode(drawn / "both.png")
    assert picture[70, 60].tolist() == list(colour_of(1))
    assert picture[70, 180].tolist() == list(colour_of(2))

    page = report.read_text(encoding="utf-8")
    assert page.count("<img src=") == 3
    assert all(text in page for text in ("dog, cat", ">nothing 0<", ">dog 1<", "InputError"))


def test_every_kind_of_worker_finds_the_same(detector: tuple[str, str], photos: pathlib.Path) -> None:
    found = {}
    for backend in ("process", "thread", "sequential"):
        done = run("detect", detector, photos, "--backend", backend)
        assert done.returncode == 0, done.stderr
        found[backend] = sorted(records(done.stdout), key=lambda record: record["path"])
    assert found["process"] == found["thread"] == found["sequential"]
    assert any(record["detections"] for record in found["process"])


def test_coco_to_a_file_and_csv_to_standard_output(
    detector: tuple[str, str], photos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "found.json"
    done = detect(detector, "--threshold", 0.9, "--out", out, photos)
    assert done.returncode == 0, done.stderr
    coco = json.loads(out.read_text(encoding="ascii"))
    assert [(each["width"], each["height"]) for each in coco["images"]].count((60, 40)) == 1
    assert [each["category_id"] for each in coco["annotations"]] == [2, 2]
    assert {(240, 80), (60, 40)} == {
        (image["width"], image["height"])
        for image in coco["images"]
        for each in coco["annotations"]
        if each["image_id"] == image["id"]
    }
    done = detect(detector, "--format", "csv", photos / "both.png")
    header, first, second = done.stdout.splitlines()
    assert header == '"path","width","height","count","class","score","left","top","right","bottom","error"'
    assert first.split(",")[1:5] == [*second.split(",")[1:4], "2"] == ["240", "80", "2", "2"]


def test_a_job_goes_on_and_another_one_is_refused(
    detector: tuple[str, str], photos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "found.json"
    assert detect(detector, "--out", out, photos / "both.png", photos / "late.png").returncode == 1
    write_image(photos / "late.png", halves(BLUE, BLUE))
    done = detect(detector, "--out", out, "--resume", photos / "both.png", photos / "late.png")
    assert done.returncode == 0, done.stderr
    assert re.search(r"there already +1\nimages +1\n", done.stderr)
    coco = json.loads(out.read_text(encoding="ascii"))
    assert [pathlib.Path(each["file_name"]).name for each in coco["images"]] == ["both.png", "late.png"]
    assert [each["image_id"] for each in coco["annotations"]] == [1, 1, 2, 2]
    assert coco["errors"] == []
    done = detect(detector, "--out", out, "--resume", "--threshold", 0.2, photos)
    assert (done.returncode, "its threshold was 0.5, and is 0.2" in done.stderr) == (2, True)


def test_a_function_in_a_file_or_a_module_decodes(
    headless: tuple[str, str], photos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "my_decoding.py").write_text(DECODE, encoding="utf-8")
    for name in ("my_decoding:found", "my_decoding.py:found"):
        done = detect(headless, "--decode", name, photos / "both.png", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (record,) = records(done.stdout)
        assert [each["class"] for each in record["detections"]] == [2, 1]
        assert record["detections"][0]["box"] == [120, 0, 240, 80]
    done = detect(headless, "--decode", "my_decoding.py:crooked", photos / "both.png", cwd=tmp_path)
    assert done.returncode == 1
    assert "InputError: decode returns rows of class, score" in records(done.stdout)[0]["error"]


def test_an_image_that_kills_its_worker_costs_only_itself(
    headless: tuple[str, str], photos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "my_decoding.py").write_text(DECODE, encoding="utf-8")
    for index in range(8):
        write_image(photos / f"cat{index}.png", halves(BLUE, BLACK))
    done = detect(headless, "--decode", "my_decoding:deadly", "--retries", 0, "--workers", 2, photos, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    found = by_name(done.stdout)
    assert len(found) == 11
    dead = {name for name, record in found.items() if "error" in record}
    assert dead == {"both.png", "one.bmp"}
    assert all(f"died with {signal.SIGKILL.name}" in found[name]["error"] for name in dead)
    assert all(found[f"cat{index}.png"]["detections"][0]["class"] == 1 for index in range(8))


def test_images_that_cannot_be_read(detector: tuple[str, str], photos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    whole = (photos / "both.png").read_bytes()
    for name, data in {"empty.png": b"", "truncated.png": whole[:-20], "text.png": b"hello"}.items():
        (photos / name).write_bytes(data)
    done = detect(detector, "--draw", tmp_path / "drawn", photos)
    assert done.returncode == 1
    found = by_name(done.stdout)
    for name in ("empty.png", "truncated.png", "text.png"):
        assert re.match(rf"InputError: Could not decode '.*{name}'", found[name]["error"])
        assert not (tmp_path / "drawn" / name).exists()
    assert len(found["both.png"]["detections"]) == 2


def test_a_drawing_that_cannot_be_written_is_an_error_of_its_image(
    detector: tuple[str, str], photos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    (drawn / "deep").write_text("in the way", encoding="utf-8")
    done = detect(detector, "--draw", drawn, photos)
    assert done.returncode == 1
    found = by_name(done.stdout)
    assert re.match("(FileExists|NotADirectory)Error: ", found["one.bmp"]["error"])
    assert len(found["both.png"]["detections"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labels", "none.txt"], "Could not read the labels 'none.txt'"),
        (["--labels", "four.txt"], "There are 4 labels, and the net's DetectionOutput has 3 classes"),
        (["--weights", "photos/both.png"], "both.png"),
        (["--weights", "@other"], "nothing was copied"),
        (["--draw", "four.txt"], "Could not write to the folder 'four.txt': File exists"),
        (["--draw", "four.txt/drawn"], "Could not write to the folder 'four.txt/drawn': Not a directory"),
        (["--draw", "photos"], "--draw 'photos' lies where 'photos' finds images"),
        (["--draw", "photos/drawn"], "--draw 'photos/drawn' lies where 'photos' finds images"),
        (["--out", "found.npz"], "Unknown suffix '.npz' of 'found.npz'. Known: .jsonl, .ndjson, .csv, .json;"),
        (["--decode", "found"], "--decode takes MODULE:FUNCTION or FILE.py:FUNCTION, not 'found'"),
        (["--decode", "none.py:found"], "Could not load 'none.py:found': FileNotFoundError"),
        (["--decode", "no_such_module:found"], "Could not load 'no_such_module:found': ModuleNotFoundError"),
        (["--decode", "my_decoding:lost"], "Could not load 'my_decoding:lost': AttributeError"),
        (["--decode", "my_decoding:number"], "'number' is int, not a function"),
        (["--threshold", "high"], "Invalid value for '--threshold'"),
    ],
)
def test_what_cannot_be_carried_out_is_said_before_anything_is_written(
    detector: tuple[str, str],
    net: tuple[str, str],
    photos: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    (tmp_path / "four.txt").write_text("a\nb\nc\nd\n", encoding="utf-8")
    (tmp_path / "my_decoding.py").write_text(DECODE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # --decode adds the folder
    words = [net[1] if word == "@other" else word for word in words]
    with pytest.raises(SystemExit) as end:
        main(["detect", "--model", detector[0], "--weights", detector[1], *words, "photos"])
    said = capsys.readouterr()
    assert message in said.err
    assert (end.value.code, said.out) == (2, "")
    sys.modules.pop("my_decoding", None)


def test_a_net_without_a_detection_layer(net: tuple[str, str], photos: pathlib.Path) -> None:
    done = detect(net, photos)
    assert "no layer of the types DetectionOutput" in done.stderr
    assert "Give --decode." in done.stderr
    assert done.returncode == 2
