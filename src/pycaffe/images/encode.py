"""Image files from arrays."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from pycaffe.errors import InputError
from pycaffe.images.decode import load_cv2
from pycaffe.proto.replace_file import replacing

__all__ = ["encode", "write_image"]

QUALITY = 95


def encode(image: npt.NDArray[np.uint8], suffix: str, quality: int = QUALITY) -> bytes:
    """The bytes of an image file, of an array (H, W, 3 or 1), blue green red; `quality` is JPEG's, up to 100.

    Raises:
        InputError: OpenCV does not write files of that suffix (".jpg", ".png"), or not of such an array.
    """
    cv2 = load_cv2("writing images")
    try:
        done, data = cv2.imencode(suffix, image, [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else [])
    except cv2.error as error:
        raise InputError(f"Could not write an image as {suffix!r}: {str(error).strip()}") from error
    if not done:
        raise InputError(f"Could not write an image of shape {image.shape!r} as {suffix!r}")
    encoded: bytes = data.tobytes()
    return encoded


def write_image(path: str | os.PathLike[str], image: npt.NDArray[np.uint8]) -> None:
    """Writes an image file, whole or not at all, in the format of its suffix, .jpg or .png.

    Raises:
        InputError: see `encode`.  OSError: it cannot be written.
    """
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    data = encode(image, ".jpg" if suffix in (".jpg", ".jpeg", ".jpe") else suffix)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
