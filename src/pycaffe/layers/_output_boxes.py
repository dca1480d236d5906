"""Boxes in units of a net's input → boxes in pixels of the image that it was made of (OutputBBox of bbox_util.cpp)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycaffe.data.image_list import read_lines
from pycaffe.errors import DataError, LayerError
from pycaffe.layers._boxes import Array, box_sizes, clip_boxes

__all__ = ["output_boxes", "pixel_overlaps", "read_image_sizes"]

FIT_SMALL_SIZE, FIT_LARGE_SIZE_AND_PAD = 2, 3  # ResizeParameter.Resize_mode; WARP is 1


def read_image_sizes(path: str) -> list[tuple[str, int, int]]:
    """(name, height, width) by line of a name_size_file.

    Raises:
        DataError: it cannot be read, or a line is another.
    """
    sizes = []
    for number, line in enumerate(read_lines(path, "Failed to open name size file"), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or not (words[1].isdecimal() and words[2].isdecimal()):
            raise DataError(f"{path}:{number}: {line!r} is not `name height width`.")
        sizes.append((words[0], int(words[1]), int(words[2])))
    return sizes


def output_boxes(boxes: Array, size: tuple[int, int], resize: Any) -> tuple[Array, Array]:
    """The boxes (n, 4) in pixels of an image of that (height, width), and their sizes (n,) as the fork counts them.

    Args:
        boxes: in units of the net's input.
        size: of the image.
        resize: the ResizeParameter by which the image became the net's input, or None for a plain resize.

    Raises:
        LayerError: the ResizeParameter has no height or width.
    """
    height, width = size
    if resize is not None:
        if resize.height == 0 or resize.width == 0:
            raise LayerError(f"Check failed: resize_height > 0 and resize_width > 0. Got {resize!r}.")
        if resize.resize_mode == FIT_SMALL_SIZE and resize.height_scale and resize.width_scale:
            scaled = boxes * _sides(resize.height_scale, resize.width_scale)
            scaled = np.clip(scaled, 0, _sides(height, width))
            return scaled, box_sizes(scaled)
        if resize.resize_mode == FIT_LARGE_SIZE_AND_PAD:
            boxes = _without_padding(boxes, width / height, resize)
    scaled = clip_boxes(boxes) * _sides(height, width)
    return scaled, box_sizes(scaled) if max(size) <= 1 else _pixel_sizes(scaled)


def _sides(height: float, width: float) -> Array:
    return np.array([width, height, width, height], np.float32)


def _without_padding(boxes: Array, aspect: float, resize: Any) -> Array:
    """In units of the part of the input that the image fills; those that miss it stay as they are, as in the fork."""
    padding = np.zeros(2, np.float32)  # left and right, above and below, in units of the input
    if aspect > resize.width / resize.height:
        padding[1] = (resize.height - resize.width / aspect) / 2 / resize.height
    else:
        padding[0] = (resize.width - resize.height * aspect) / 2 / resize.width
    low, extent = padding, 1 - 2 * padding
    meets = np.all((boxes[:, :2] < low + extent) & (boxes[:, 2:] > low), axis=1, keepdims=True)
    return np.where(meets, (boxes - np.tile(low, 2)) / np.tile(extent, 2), boxes)


def _pixel_sizes(boxes: Array) -> Array:
    """Areas where the last pixel counts, too."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return np.where((width < 0) | (height < 0), 0, (width + 1) * (height + 1)).astype(boxes.dtype)


def pixel_overlaps(a: Array, a_sizes: Array, b: Array, b_sizes: Array) -> Array:
    """Intersection over union (len(a), len(b)) of boxes in pixels; those apart share one pixel, as in the fork."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    meet = (high >= low).all(axis=2, keepdims=True)
    extent = np.maximum(np.where(meet, high - low, 0) + 1, 0)
    common = extent[..., 0] * extent[..., 1]
    union = a_sizes[:, None] + b_sizes[None, :] - common
    overlaps: Array = np.divide(common, union, out=np.zeros_like(common), where=union != 0)
    return overlaps
