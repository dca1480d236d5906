from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest

from pycaffe.images.header import read_header, without_colour_profile

PIXELS = np.random.default_rng(7).integers(0, 256, (13, 29, 3), dtype=np.uint8)


def encoded(suffix: str) -> bytes:
    return cv2.imencode(suffix, PIXELS)[1].tobytes()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize(
    ("suffix", "name"),
    [
        (".jpg", "JPEG"),
        (".png", "PNG"),
        (".bmp", "BMP"),
        (".webp", "WebP"),
        (".tif", "TIFF"),
        (".ppm", "PNM"),
    ],
)
def test_format_and_size_are_read(suffix: str, name: str) -> None:
    assert read_header(encoded(suffix)) == (name, (13, 29), None)


def test_size_of_a_lossy_webp() -> None:
    data = cv2.imencode(".webp", PIXELS, [cv2.IMWRITE_WEBP_QUALITY, 40])[1].tobytes()
    assert read_header(data) == ("WebP", (13, 29), None)


def test_size_of_a_gif() -> None:
    assert read_header(b"GIF89a" + struct.pack("<HH", 29, 13) + bytes(10)) == ("GIF", (13, 29), None)


def test_size_of_a_core_header_bmp_and_of_one_stored_upside_down() -> None:
    core = b"BM" + bytes(12) + struct.pack("<IHH", 12, 29, 13)
    flipped = b"BM" + bytes(12) + struct.pack("<Iii", 40, 29, -13)
    assert read_header(core) == read_header(flipped) == ("BMP", (13, 29), None)


def test_size_of_a_jpeg_2000() -> None:
    signature = b"\0\0\0\x0cjP  \r\n\x87\n"
    assert read_header(signature + struct.pack(">I4sII", 22, b"ihdr", 13, 29)) == ("JPEG 2000", (13, 29), None)


def test_what_is_no_image_has_no_header() -> None:
    assert read_header(b"layer { name: 'data' }") is None
    assert read_header(b"RIFF\0\0\0\0WAVEfmt ") is None


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_every_truncation_is_noticed(suffix: str) -> None:
    data = encoded(suffix)
    for length in (len(data) - 1, len(data) - 2, len(data) // 2, 40, 20):
        header = read_header(data[:length])
        assert header is not None
        assert header.damage is not None, length
        assert header.damage.startswith("it is truncated"), length


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_bytes_after_the_end_are_allowed(suffix: str) -> None:
    header = read_header(encoded(suffix) + b"\xff\xd8 and a message" + bytes(100))
    assert header == read_header(encoded(suffix))
    assert header is not None
    assert header.damage is None


def test_the_end_marker_of_a_preview_does_not_count() -> None:
    jpeg = encoded(".jpg")
    with_preview = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(jpeg) + 2) + jpeg + jpeg[2:]
    assert read_header(with_preview) == ("JPEG", (13, 29), None)
    header = read_header(with_preview[:-2])
    assert header is not None
    assert header.damage == "it is truncated (its end marker is missing)"


def test_restart_markers_and_progressive_scans_are_walked_through() -> None:
    for options in ([cv2.IMWRITE_JPEG_RST_INTERVAL, 1], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]):
        data = cv2.imencode(".jpg", PIXELS, options)[1].tobytes()
        assert read_header(data) == ("JPEG", (13, 29), None)


def test_a_marker_that_no_jpeg_has_is_damage() -> None:
    data = bytearray(encoded(".jpg"))
    data[-40:-38] = b"\xff\x42"
    header = read_header(bytes(data))
    assert header is not None
    assert header.damage == f"it is damaged (marker 0x42 at byte {len(data) - 40})"


def test_a_jpeg_without_a_frame() -> None:
    assert read_header(b"\xff\xd8\xff\xd9") == ("JPEG", None, "it has no picture")


def test_a_wrong_checksum_is_damage_only_in_critical_chunks() -> None:
    data = encoded(".png")
    at = data.index(b"IDAT") + 10
    header = read_header(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert header is not None
    assert header.damage == "it is damaged (checksum of its chunk b'IDAT')"
    comment = chunk(b"tEXt", b"Comment\0hello")[:-1] + b"?"
    header = read_header(data[:33] + comment + data[33:])
    assert header is not None
    assert header.damage is None


def test_only_the_colour_profile_is_cut_from_a_png() -> None:
    plain = encoded(".png")
    profile, text = chunk(b"iCCP", b"x\0\0nonsense"), chunk(b"tEXt", b"a\0iCCP")
    assert without_colour_profile(plain[:33] + text + profile + plain[33:]) == plain[:33] + text + plain[33:]
    assert without_colour_profile(plain[:33] + text + plain[33:]) == plain[:33] + text + plain[33:]
    assert without_colour_profile(plain) is plain


def test_separate_planes_of_sixteen_bits_are_refused() -> None:
    tifffile = pytest.importorskip("tifffile")
    for dtype, damage in ((np.uint8, None), (np.uint16, "it stores its channels of 16 bits one after the other")):
        file = io.BytesIO()
        tifffile.imwrite(file, np.zeros((3, 13, 29), dtype), planarconfig="separate", photometric="rgb")
        header = read_header(file.getvalue())
        assert header is not None
        assert header.size == (13, 29)
        assert (header.damage or "").startswith(damage or "")
        assert (header.damage is None) == (damage is None)
