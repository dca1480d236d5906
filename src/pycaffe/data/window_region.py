"""The part of an image that WindowData warps for a window (window_data_layer.cpp)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pycaffe.data.window_file import Window

__all__ = ["WindowRegion", "window_region"]


class WindowRegion(NamedTuple):
    """A clipped region of an image (corners included), the size it is warped to, and the padding around that."""

    x1: int
    y1: int
    x2: int
    y2: int
    width: int
    height: int
    left: int
    right: int
    top: int


def window_region(
    window: Window, image_height: int, image_width: int, crop: int, context_pad: int, square: bool
) -> WindowRegion:
    """Where a window lies once its context is added; in float32, rounded as C's round does, like the original.

    Args:
        window: the box.
        image_height: the region is clipped to the image.
        image_width: the same.
        crop: the side of the square that it is warped to.
        context_pad: so many pixels of context on each side after warping.
        square: take the tightest square around the window.
    """
    x1, y1, x2, y2 = window[2:]
    if not context_pad and not square:
        return WindowRegion(x1, y1, x2, y2, crop, crop, 0, 0, 0)
    single = np.float32
    context = single(crop) / single(crop - 2 * context_pad)
    half_width, half_height = single(x2 - x1 + 1) / single(2), single(y2 - y1 + 1) / single(2)
    centre_x, centre_y = single(x1) + half_width, single(y1) + half_height
    if square:
        half_width = half_height = max(half_width, half_height)
    x1, x2 = _round(centre_x - half_width * context), _round(centre_x + half_width * context)
    y1, y2 = _round(centre_y - half_height * context), _round(centre_y + half_height * context)
    scale_x, scale_y = single(crop) / single(x2 - x1 + 1), single(crop) / single(y2 - y1 + 1)
    # How far the region leaves the image, on each side; clipped away, and padded once it is warped.
    left, above = max(0, -x1), max(0, -y1)
    right, below = max(0, x2 - image_width + 1), max(0, y2 - image_height + 1)
    x1, y1, x2, y2 = x1 + left, y1 + above, x2 - right, y2 - below
    width, height = _round(single(x2 - x1 + 1) * scale_x), _round(single(y2 - y1 + 1) * scale_y)
    left, right, above = (
        _round(single(left) * scale_x),
        _round(single(right) * scale_x),
        _round(single(above) * scale_y),
    )
    return WindowRegion(x1, y1, x2, y2, width, min(height, crop - above), left, right, above)


def _round(value: np.float32) -> int:
    """To the nearest integer, halves away from zero."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))
