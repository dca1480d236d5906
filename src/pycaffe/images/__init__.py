"""Images: reading, writing, resizing, drawing boxes, and turning a photograph into a net's input."""

from __future__ import annotations

from pycaffe.images.decode import decode, decode_unchanged
from pycaffe.images.draw_boxes import colour_of, draw_boxes
from pycaffe.images.encode import encode, write_image
from pycaffe.images.preprocess import ImagePreprocess
from pycaffe.images.resize import resize_corners, resize_linear, resize_nearest, resize_shorter_side

__all__ = [
    "ImagePreprocess",
    "colour_of",
    "decode",
    "decode_unchanged",
    "draw_boxes",
    "encode",
    "resize_corners",
    "resize_linear",
    "resize_nearest",
    "resize_shorter_side",
    "write_image",
]
