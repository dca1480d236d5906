"""Images: reading files, resizing, and turning a photograph into a net's input."""

from __future__ import annotations

from pycaffe.images.decode import decode, decode_unchanged
from pycaffe.images.preprocess import ImagePreprocess
from pycaffe.images.resize import resize_corners, resize_linear, resize_nearest, resize_shorter_side

__all__ = [
    "ImagePreprocess",
    "decode",
    "decode_unchanged",
    "resize_corners",
    "resize_linear",
    "resize_nearest",
    "resize_shorter_side",
]
