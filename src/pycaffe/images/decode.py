"""Reads an image: path, bytes or file object → array. The only place where OpenCV decodes.

    source ─ read_source ─→ bytes ─ read_header ─→ whole? small enough? ─→ OpenCV, else Pillow ─→ array

Every failure is an InputError that names the file and says why. OpenCV itself returns None, a half-grey picture, or an
assertion.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, Union

import numpy as np
import numpy.typing as npt

from pycaffe.errors import InputError, MissingExtra
from pycaffe.images.header import read_header, without_colour_profile

__all__ = ["ImageSource", "MAX_PIXELS", "decode", "decode_unchanged", "load_cv2", "read_source"]

MAX_PIXELS = 2**28
"""More pixels than this (16384 × 16384) are refused before anything is decoded."""

ImageSource = Union[str, bytes, bytearray, memoryview, "os.PathLike[str]", BinaryIO]
"""A path, the bytes of an image file, or a binary file object."""


def decode(source: ImageSource, *, grey: bool = False) -> npt.NDArray[np.uint8]:
    """Decodes as Caffe does (io.cpp's ReadImageToCVMat): eight bits, BGR, alpha dropped, turned as EXIF says.

    Args:
        source: a path, the bytes of an image file, or a binary file object (read from its start).
        grey: one channel of luminance instead of three.

    Returns:
        (H, W, 3) in the order blue, green, red; (H, W, 1) if `grey`.

    Raises:
        InputError: the file is missing, empty, truncated, damaged, too large, or no image.
        MissingExtra: OpenCV is not installed.
    """
    cv2 = load_cv2("reading images")
    image = _decode(source, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    if image.dtype != np.uint8:
        image = cv2.convertScaleAbs(image)
    if image.ndim == 3 and image.shape[2] == (1 if grey else 3):
        return image
    if grey:
        return image[:, :, None] if image.ndim == 2 else cv2.cvtColor(image[:, :, :3], cv2.COLOR_BGR2GRAY)[:, :, None]
    colour: npt.NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image[:, :, :3]
    return colour


def decode_unchanged(source: ImageSource) -> npt.NDArray[Any]:
    """Decodes to what the file holds: its depth (uint8, uint16, float32 …), its channels, not turned by EXIF.

    Of a file with several pages the first is taken; a palette is looked up.

    Args:
        source: a path, the bytes of an image file, or a binary file object (read from its start).

    Returns:
        (H, W) for grey, else (H, W, 3) in the order blue, green, red, or (H, W, 4) with alpha last.

    Raises:
        InputError: the file is missing, empty, truncated, damaged, too large, or no image.
        MissingExtra: OpenCV is not installed.
    """
    return _decode(source, load_cv2("reading images").IMREAD_UNCHANGED)


def load_cv2(purpose: str) -> Any:
    """The module `cv2`, imported at the first call; `purpose` (a noun phrase) is for the error."""
    try:
        import cv2
    except ImportError as error:
        raise MissingExtra.of("OpenCV (cv2)", "images", purpose) from error
    return cv2


def read_source(source: ImageSource) -> tuple[bytes, str]:
    """All bytes of `source` and a name for messages. Raises InputError where there are none."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, name = bytes(source), "the image bytes"
    elif isinstance(source, (str, os.PathLike)):
        name = repr(os.fspath(source))
        data = _read_file(os.fspath(source))
    elif hasattr(source, "read"):
        name = repr(getattr(source, "name", None) or source)
        if getattr(source, "seekable", lambda: False)():
            source.seek(0)  # writers leave the position at the end, and expect readers to start over
        data = source.read()
        if not isinstance(data, bytes):
            raise InputError(f"Could not read {name}: it gives {type(data).__name__}, not bytes. Open it in mode 'rb'")
    else:
        raise InputError(f"An image is a path, bytes or a binary file, not {type(source).__name__}")
    if not data:
        raise InputError(f"Could not decode {name}: it is empty")
    return data, name


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if path.startswith(("http://", "https://")):
            reason = "URLs are not fetched; download it and pass its bytes"
        raise InputError(f"Could not open or find file {path!r}: {reason}") from error


def _decode(source: ImageSource, flag: int) -> npt.NDArray[Any]:
    cv2 = load_cv2("reading images")
    data, name = read_source(source)
    header = read_header(data)
    if header is not None and header.damage:
        raise InputError(f"Could not decode {name} ({header.format}): {header.damage}")
    if header is not None and header.size is not None:
        _check_pixels(name, *header.size)
    if header is not None and header.format == "PNG":
        data = without_colour_profile(data)
    try:
        with _silenced(cv2):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        raise InputError(f"Could not decode {name}: {str(error).strip()}") from error
    if image is None:
        image = _decode_with_pillow(data)
    if image is None:
        what = f"its {header.format} data is damaged" if header else "it is not an image, or of an unknown format"
        raise InputError(f"Could not decode {name}: {what}")
    _check_pixels(name, *image.shape[:2])
    pixels: npt.NDArray[Any] = image
    return pixels


def _check_pixels(name: str, height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise InputError(f"Could not decode {name}: {height} x {width} pixels are more than the limit of {MAX_PIXELS}")


def _decode_with_pillow(data: bytes) -> npt.NDArray[Any] | None:
    """The second choice, for formats that this OpenCV lacks (GIF before 4.11, some TIFF). None if it fails, too."""
    try:
        from PIL import Image
    except ImportError:
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            if image.mode in ("1", "L"):
                return np.array(image.convert("L"))
            if image.mode in ("I;16", "I;16B", "I;16L"):
                return np.array(image).astype(np.uint16)
            alpha = "A" in image.mode or "transparency" in image.info
            return np.array(image.convert("RGBA" if alpha else "RGB"))[:, :, [2, 1, 0, 3] if alpha else [2, 1, 0]]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


class _Silence:
    """How many decoders are at work. OpenCV has one log level: the first to come saves it, the last restores it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0
        self.level = 0


_silence = _Silence()


def _after_fork() -> None:
    """A fork while another thread decodes would leave the child with a lock that nobody releases."""
    global _silence
    _silence = _Silence()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def _silenced(cv2: Any) -> Iterator[None]:
    """Keeps OpenCV from writing to stderr what becomes our error's text."""
    logging = getattr(getattr(cv2, "utils", None), "logging", None)
    if logging is None:
        yield
        return
    silence = _silence
    with silence.lock:
        if silence.depth == 0:
            silence.level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        silence.depth += 1
    try:
        yield
    finally:
        with silence.lock:
            silence.depth -= 1
            if silence.depth == 0:
                logging.setLogLevel(silence.level)
