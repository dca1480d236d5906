"""What the bytes of an image file say before they are decoded: format, size, and whether the file is whole.

A decoder finds out too late (a header may ask for 100 gigabytes) or keeps silent (OpenCV 4 turns the missing half of a
JPEG grey). Bytes after the end marker are allowed: cameras and chat programs put them there.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple

import numpy as np

__all__ = ["Header", "read_header", "without_colour_profile"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNM_SIZE = re.compile(rb"P[1-6](?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)")
# Bytes that make a marker after 0xFF within coded data: all but stuffing, restarts and fill.
_JPEG_IS_MARKER = np.ones(256, dtype=bool)
_JPEG_IS_MARKER[[0x00, 0xFF, *range(0xD0, 0xD8)]] = False
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TIFF_TAGS = {256: "width", 257: "height", 258: "bits", 277: "channels", 284: "planar"}
_TRUNCATED = "it is truncated"


class Header(NamedTuple):
    """What a file says of itself: `size` is (height, width) where known, `damage` a clause where it is not whole."""

    format: str
    size: tuple[int, int] | None = None
    damage: str | None = None


def read_header(data: bytes) -> Header | None:
    """The header of `data`, or None where no known image format begins like that."""
    for signature, name, read in _READERS:
        if data.startswith(signature) and (name != "WebP" or data[8:12] == b"WEBP"):
            try:
                return read(data)
            except struct.error:
                return Header(name, None, _TRUNCATED)
    return None


def _png(data: bytes) -> Header:
    size = _within(data, ">II", 16)
    position = len(_PNG_SIGNATURE)
    view = memoryview(data)
    while True:
        if position + 12 > len(data):
            return Header("PNG", (size[1], size[0]), f"{_TRUNCATED} (its IEND chunk is missing)")
        (length,) = struct.unpack_from(">I", data, position)
        name = data[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(data):
            return Header("PNG", (size[1], size[0]), f"{_TRUNCATED} (in its chunk {name!r})")
        critical = not name[0] & 0x20
        if critical and zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return Header("PNG", (size[1], size[0]), f"it is damaged (checksum of its chunk {name!r})")
        if name == b"IEND":
            return Header("PNG", (size[1], size[0]))
        position = end


def _jpeg(data: bytes) -> Header:
    """Walks the segments: a preview inside one holds end markers of its own, and so may a table."""
    octets = np.frombuffer(data, np.uint8)
    prefixes = np.flatnonzero(octets[:-1] == 0xFF)
    marks = prefixes[_JPEG_IS_MARKER[octets[prefixes + 1]]]
    size: tuple[int, int] | None = None
    position = 2
    while True:
        index = int(np.searchsorted(marks, position))
        if index == len(marks):
            return Header("JPEG", size, f"{_TRUNCATED} (its end marker is missing)")
        start = int(marks[index]) + 2
        marker = data[start - 1]
        if marker == 0xD9:
            return Header("JPEG", size, None if size else "it has no picture")
        if marker < 0xC0 or marker == 0xD8:
            return Header("JPEG", size, f"it is damaged (marker 0x{marker:02X} at byte {start - 2})")
        (length,) = _within(data, ">H", start)
        if marker in _JPEG_FRAMES and size is None:
            height, width = _within(data, ">HH", start + 3)
            size = (height, width)
        position = start + max(length, 2)


def _gif(data: bytes) -> Header:
    width, height = _within(data, "<HH", 6)
    return Header("GIF", (height, width))


def _bmp(data: bytes) -> Header:
    (header_length,) = _within(data, "<I", 14)
    width, height = _within(data, "<HH", 18) if header_length == 12 else _within(data, "<ii", 18)
    return Header("BMP", (abs(height), abs(width)))


def _webp(data: bytes) -> Header:
    (length,) = _within(data, "<I", 4)
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8L":
        (bits,) = _within(data, "<I", 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in _within(data, "<HH", 26))
    damage = f"{_TRUNCATED} ({len(data)} of {length + 8} bytes)" if len(data) < length + 8 else None
    return Header("WebP", (height, width), damage)


def _tiff(data: bytes) -> Header:
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = _within(data, order + "I", 4)
    (count,) = _within(data, order + "H", directory)
    tags = {}
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, values = _within(data, order + "HHI", entry)
        form = order + ("H" if kind == 3 else "I")
        # More than four bytes of values stand elsewhere; of several (the bits of each channel) the first is enough.
        at = _within(data, order + "I", entry + 8)[0] if kind == 3 and values > 2 else entry + 8
        if tag in _TIFF_TAGS:
            tags[_TIFF_TAGS[tag]] = _within(data, form, at)[0]
    size = (tags["height"], tags["width"]) if {"height", "width"} <= tags.keys() else None
    if tags.get("planar") == 2 and tags.get("channels", 1) > 1 and tags.get("bits", 1) > 8:
        # OpenCV 5 returns memory that it never wrote.
        return Header(
            "TIFF", size, f"it stores its channels of {tags['bits']} bits one after the other, not interleaved"
        )
    return Header("TIFF", size)


def _jpeg2000(data: bytes) -> Header:
    at = data.find(b"ihdr", 0, 1024)
    if at < 0:
        return Header("JPEG 2000")
    height, width = _within(data, ">II", at + 4)
    return Header("JPEG 2000", (height, width))


def _pnm(data: bytes) -> Header:
    match = _PNM_SIZE.match(data, 0, 4096)
    return Header("PNM", (int(match[2]), int(match[1])) if match else None)


def _within(data: bytes, form: str, offset: int) -> tuple[int, ...]:
    return struct.unpack_from(form, data, offset)


_READERS = (
    (_PNG_SIGNATURE, "PNG", _png),
    (b"\xff\xd8\xff", "JPEG", _jpeg),
    (b"RIFF", "WebP", _webp),
    (b"GIF8", "GIF", _gif),
    (b"BM", "BMP", _bmp),
    (b"II*\x00", "TIFF", _tiff),
    (b"MM\x00*", "TIFF", _tiff),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000", _jpeg2000),
    *((b"P%d" % kind, "PNM", _pnm) for kind in range(1, 7)),
)


def without_colour_profile(data: bytes) -> bytes:
    """A whole PNG less its iCCP chunk, which OpenCV never applies, but for which libpng writes warnings to stderr."""
    if b"iCCP" not in data[:4096]:
        return data
    position = len(_PNG_SIGNATURE)
    while data[position + 4 : position + 8] != b"IDAT":
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"iCCP":
            return data[:position] + data[end:]
        if end >= len(data):
            break
        position = end
    return data
