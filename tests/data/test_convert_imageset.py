from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from pycaffe import rng
from pycaffe.data import datum_to_array, listed_records, open_database, parse_datum
from pycaffe.data.convert_imageset import ImageFormat, convert_imageset
from pycaffe.data.open_database import LEVELDB, LMDB
from pycaffe.errors import DataError
from tests.data.sources import enter_sources


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter_sources(tmp_path, monkeypatch)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="pycaffe")
    return caplog


def read(path: str, backend: int = LMDB) -> dict[bytes, bytes]:
    return dict(open_database(path, backend).once())


@pytest.mark.parametrize(("backend", "number"), [("lmdb", LMDB), ("leveldb", LEVELDB)])
def test_pixels_are_stored_as_the_originals_tool_stores_them(backend: str, number: int) -> None:
    """sized_* were written by it with --resize_height=32 --resize_width=30."""
    assert convert_imageset("", "list.txt", "own", ImageFormat(32, 30), backend=backend) == 7
    want, got = read(f"sized_{backend}", number), read("own", number)
    assert list(got) == list(want)
    for key in want:
        if key.endswith(b".png"):  # a JPEG may decode a level or two apart
            assert got[key] == want[key]
        assert len(got[key]) == len(want[key])


def test_encoded_grey_images_are_those_of_the_originals_tool() -> None:
    want = read("gray_encoded_lmdb")
    shapes = {key: datum_to_array(parse_datum(value, "r"), "r").shape for key, value in want.items()}
    ((_, height, width),) = set(shapes.values())
    convert_imageset("", "list.txt", "own", ImageFormat(height, width, gray=True, encoded=True, encode_type="png"))
    got = read("own")
    assert list(got) == list(want)
    for key in want:
        mine, theirs = parse_datum(got[key], "r"), parse_datum(want[key], "r")
        assert (mine.label, mine.encoded, mine.HasField("channels")) == (theirs.label, True, False)
        np.testing.assert_allclose(
            datum_to_array(mine, "r").astype(int), datum_to_array(theirs, "r"), atol=0 if key.endswith(b"png") else 2
        )


def test_files_that_need_no_change_are_stored_as_they_are(lines: pytest.LogCaptureFixture) -> None:
    Path("sub").mkdir()
    Path("sub/a.JPEG").write_bytes(Path("images/6.jpg").read_bytes())
    Path("own.txt").write_text("a.JPEG 3\n")
    for path, image_format in (("guessed", ImageFormat(encoded=True)), ("named", ImageFormat(encode_type="jpg"))):
        convert_imageset("sub/", "own.txt", path, image_format)
        (record,) = read(path).items()
        datum = parse_datum(record[1], "r")
        assert (record[0], datum.label, datum.data) == (b"00000000_a.JPEG", 3, Path("images/6.jpg").read_bytes())
    assert "encode_type specified, assuming encoded=true." in lines.text
    convert_imageset("sub/", "own.txt", "png", ImageFormat(encode_type="png"))
    (value,) = read("png").values()
    assert parse_datum(value, "r").data.startswith(b"\x89PNG")


def test_an_image_that_cannot_be_read_is_logged_and_left_out(lines: pytest.LogCaptureFixture) -> None:
    Path("images/2.png").write_bytes(b"no image")
    Path("images/4.png").unlink()
    assert convert_imageset("", "list.txt", "own") == 5
    assert [int(key[:8]) for key in read("own")] == [0, 1, 3, 5, 6]
    errors = [record.getMessage() for record in lines.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert all(error.startswith(f"Could not open or find file images/{i}.png.") for i, error in zip((2, 4), errors))


def test_progress_and_shuffle(lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed_records, "PROGRESS", 3)
    rng.seed(1)
    convert_imageset("", "list.txt", "own", shuffle=True)
    assert [record.getMessage() for record in lines.records] == [
        "Shuffling data", "A total of 7 images.", "Processed 3 files.", "Processed 6 files.", "Processed 7 files.",
    ]  # fmt: skip
    names = [key[9:] for key in read("own")]
    listed = [line.split()[0].encode() for line in Path("list.txt").read_text().splitlines()]
    assert sorted(names) == sorted(listed)
    assert names != listed


@pytest.mark.parametrize("encoded", [False, True])
def test_images_of_two_sizes(encoded: bool) -> None:
    cv2.imwrite("a.png", np.zeros((4, 5, 3), np.uint8))
    cv2.imwrite("b.png", np.zeros((5, 4, 3), np.uint8))
    Path("own.txt").write_text("a.png 0\nb.png 1\n")
    assert convert_imageset("", "own.txt", "any", ImageFormat(encoded=encoded)) == 2
    message = r"Incorrect data field size 60. Image 'b.png' has the shape \(5, 4, 3\), the first one \(4, 5, 3\)"
    with pytest.raises(DataError, match=message):
        convert_imageset("", "own.txt", "same", ImageFormat(encoded=encoded), check_size=True)
    assert not os.path.exists("same")


def test_bad_input(lines: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DataError, match="OpenCV cannot write images of type 'nothing'"):
        convert_imageset("", "list.txt", "own", ImageFormat(encode_type="nothing"))
    with pytest.raises(DataError, match=r"could not open the image list: nowhere\.txt"):
        convert_imageset("", "nowhere.txt", "own")
    with pytest.raises(DataError, match=r"None of the 7 images that 'list\.txt' names could be read"):
        convert_imageset("elsewhere/", "list.txt", "own")
    Path("bad.txt").write_text("images/0.png cat\n")
    with pytest.raises(DataError, match=r"bad\.txt:1: 'cat' is no label"):
        convert_imageset("", "bad.txt", "own")
    assert not os.path.exists("own")


def test_a_file_without_an_ending_is_stored_as_it_is_or_not_at_all(lines: pytest.LogCaptureFixture) -> None:
    Path("noend").write_bytes(Path("images/0.png").read_bytes())
    Path("own.txt").write_text("noend 1\n")
    convert_imageset("", "own.txt", "own", ImageFormat(encoded=True))
    (value,) = read("own").values()
    assert parse_datum(value, "r").data == Path("noend").read_bytes()
    assert "Failed to guess the encoding of 'noend'" in lines.text
    with pytest.raises(DataError, match="OpenCV cannot write images of type ''"):
        convert_imageset("", "own.txt", "other", ImageFormat(4, 5, encoded=True))
