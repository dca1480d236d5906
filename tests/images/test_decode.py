from __future__ import annotations

import builtins
import io
import os
import pathlib
import struct
import threading
import zlib
from typing import Any

import cv2
import numpy as np
import pytest

from pycaffe.errors import InputError, MissingExtra
from pycaffe.images.decode import decode, decode_unchanged

PIXELS = np.random.default_rng(3).integers(0, 256, (13, 29, 3), dtype=np.uint8)


def png(pixels: np.ndarray = PIXELS) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def test_paths_bytes_and_files_give_the_same(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    with open(path, "rb") as file:
        file.read(50)
        sources: list[Any] = [path, str(path), png(), bytearray(png()), memoryview(png()), file]
        for source in sources:
            np.testing.assert_array_equal(decode(source), PIXELS)
    at_end = io.BytesIO()
    at_end.write(png())
    np.testing.assert_array_equal(decode(at_end), PIXELS)


def test_a_stream_that_cannot_seek_is_read(tmp_path: pathlib.Path) -> None:
    reading, writing = os.pipe()
    thread = threading.Thread(target=lambda: (os.write(writing, png()), os.close(writing)))
    thread.start()
    with open(reading, "rb") as stream:
        np.testing.assert_array_equal(decode(stream), PIXELS)
    thread.join()


def test_decode_gives_three_channels_of_eight_bits() -> None:
    grey = PIXELS[:, :, 0]
    np.testing.assert_array_equal(decode(png(grey)), np.repeat(grey[:, :, None], 3, axis=2))
    with_alpha = np.dstack([PIXELS, grey])
    np.testing.assert_array_equal(decode(png(with_alpha)), PIXELS)
    deep = PIXELS.astype(np.uint16) * 257
    np.testing.assert_array_equal(decode(png(deep)), PIXELS)


def test_decode_grey_is_luminance_with_one_channel() -> None:
    assert decode(png(PIXELS[:, :, 1]), grey=True).shape == (13, 29, 1)
    blue_green_red = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    bmp = cv2.imencode(".bmp", blue_green_red)[1].tobytes()
    assert decode(bmp, grey=True).ravel().tolist() == [29, 150, 76]


def test_decode_unchanged_keeps_depth_and_alpha() -> None:
    for pixels in (
        PIXELS,
        PIXELS[:, :, 0],
        PIXELS.astype(np.uint16) * 250,
        np.dstack([PIXELS, PIXELS[:, :, 0]]),
    ):
        result = decode_unchanged(png(pixels))
        assert result.dtype == pixels.dtype
        np.testing.assert_array_equal(result, pixels)
    floats = np.random.default_rng(0).random((5, 7, 3), dtype=np.float32)
    np.testing.assert_array_equal(decode_unchanged(cv2.imencode(".tif", floats)[1].tobytes()), floats)


def test_exif_turns_decode_but_not_decode_unchanged() -> None:
    tag = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)  # orientation 6: turn by 90 degrees
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + tag + bytes(4)
    jpeg = cv2.imencode(".jpg", PIXELS)[1].tobytes()
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    assert decode(turned).shape == (29, 13, 3)
    assert decode_unchanged(turned).shape == (13, 29, 3)


def test_a_gif_is_read() -> None:
    palette = bytes([10, 20, 30, 200, 100, 50])
    gif = b"GIF89a" + struct.pack("<HHBBB", 2, 1, 0x80, 0, 0) + palette
    gif += b"," + struct.pack("<HHHHB", 0, 0, 2, 1, 0) + b"\x02\x02\x44\x0a\x00;"
    assert decode(gif).tolist() == [[[30, 20, 10], [50, 100, 200]]]


def test_the_pillow_fallback_reads_what_opencv_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda data, flag: None)
    np.testing.assert_array_equal(decode(png()), PIXELS)
    np.testing.assert_array_equal(decode_unchanged(png(PIXELS[:, :, 0])), PIXELS[:, :, 0])
    with_alpha = np.dstack([PIXELS, PIXELS[:, :, 0]])
    np.testing.assert_array_equal(decode_unchanged(png(with_alpha)), with_alpha)
    deep = PIXELS[:, :, 0].astype(np.uint16) * 250
    np.testing.assert_array_equal(decode_unchanged(png(deep)), deep)
    weights = np.array([0.114, 0.587, 0.299])
    np.testing.assert_allclose(decode(png(), grey=True)[:, :, 0], PIXELS @ weights, atol=0.51)


def refused(source: Any, match: str) -> None:
    for read in (decode, decode_unchanged):
        with pytest.raises(InputError, match=match):
            read(source)


def test_files_that_cannot_be_opened(tmp_path: pathlib.Path) -> None:
    refused(tmp_path / "no.jpg", r"Could not open or find file '.*no\.jpg': No such file or directory")
    refused(tmp_path, "Is a directory")
    refused("a\0b.jpg", "null byte")
    refused("https://example.org/a.jpg", "URLs are not fetched")


def test_things_that_are_no_image(tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a photograph")
    refused(tmp_path / "empty.jpg", r"empty\.jpg': it is empty")
    refused(tmp_path / "text.jpg", r"text\.jpg': it is not an image")
    refused(b"", "the image bytes: it is empty")
    refused(io.StringIO("text"), "gives str, not bytes")
    refused(3, "not int")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_truncated_files_name_the_file(suffix: str, tmp_path: pathlib.Path) -> None:
    data = cv2.imencode(suffix, PIXELS)[1].tobytes()
    path = tmp_path / f"half{suffix}"
    path.write_bytes(data[: len(data) // 2])
    refused(path, rf"half\{suffix}' \(?.*(truncated|damaged)|half\{suffix}': its BMP data is damaged")


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", 40000, 30000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    monkeypatch.setattr(cv2, "imdecode", None)
    refused(bomb, "30000 x 40000 pixels are more than the limit of 268435456")


def test_nothing_is_written_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    profile = b"x\0\0" + zlib.compress(b"nonsense")
    body = struct.pack(">I", len(profile)) + b"iCCP" + profile + struct.pack(">I", zlib.crc32(b"iCCP" + profile))
    np.testing.assert_array_equal(decode(png()[:33] + body + png()[33:]), PIXELS)
    refused(png()[:100], "truncated")
    refused(cv2.imencode(".bmp", PIXELS)[1].tobytes()[:300], "damaged")
    refused(cv2.imencode(".tif", PIXELS)[1].tobytes()[:30], "TIFF")
    assert capfd.readouterr().err == ""


def test_opencvs_log_level_is_left_as_it_was() -> None:
    logging = cv2.utils.logging
    before = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_WARNING)
    try:
        threads = [threading.Thread(target=lambda: [decode(png()) for _ in range(30)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert logging.getLogLevel() == logging.LOG_LEVEL_WARNING
    finally:
        logging.setLogLevel(before)


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_cv2(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "cv2":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_cv2)
    with pytest.raises(MissingExtra, match=r'reading images needs OpenCV.*pip install "pycaffe\[images\]"'):
        decode(png())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif", ".ppm"])
def test_damage_gives_a_picture_or_an_input_error(suffix: str) -> None:
    random = np.random.default_rng(19)
    whole = cv2.imencode(suffix, PIXELS)[1].tobytes()
    for round_ in range(150):
        data = bytearray(whole)
        for _ in range(random.integers(1, 6)):
            at = int(random.integers(0, 60 if round_ % 2 else len(data)))
            data[at : at + int(random.integers(0, 4))] = random.bytes(int(random.integers(0, 4)))
        for read in (decode, decode_unchanged):
            try:
                assert read(bytes(data)).ndim in (2, 3)
            except InputError as error:
                assert "the image bytes" in str(error)
