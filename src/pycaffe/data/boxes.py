"""Sizes, overlaps and moves of boxes (util/bbox_util.cpp of SSD).

Boxes are arrays (n, 4) of xmin, ymin, xmax, ymax, in units of the image's width and height.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "box_coverages", "box_sizes", "clip_boxes", "jaccard_overlaps", "project_boxes"]

Array = npt.NDArray[Any]


def box_sizes(boxes: Array) -> Array:
    """Area of each box; 0 where it is inverted."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    sizes: Array = np.where((width < 0) | (height < 0), 0, width * height).astype(boxes.dtype)
    return sizes


def clip_boxes(boxes: Array) -> Array:
    """Each coordinate limited to 0 ... 1."""
    return np.clip(boxes, 0, 1)


def _common_sizes(a: Array, b: Array) -> Array:
    width, height = (
        np.minimum(a[:, None, axis + 2], b[None, :, axis + 2]) - np.maximum(a[:, None, axis], b[None, :, axis])
        for axis in (0, 1)
    )
    common: Array = np.where((width > 0) & (height > 0), width * height, 0)
    return common


def jaccard_overlaps(a: Array, b: Array) -> Array:
    """Intersection over union of each of `a` with each of `b`: (len(a), len(b)); 0 where they do not meet."""
    common = _common_sizes(a, b)
    union = box_sizes(a)[:, None] + box_sizes(b)[None, :] - common
    overlaps: Array = np.divide(common, union, out=np.zeros_like(common), where=common > 0)
    return overlaps


def box_coverages(a: Array, b: Array) -> Array:
    """How much of each of `a` lies in each of `b`: (len(a), len(b))."""
    common = _common_sizes(a, b)
    coverages: Array = np.divide(common, box_sizes(a)[:, None], out=np.zeros_like(common), where=common > 0)
    return coverages


def project_boxes(boxes: Array, source: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The boxes in units of the box `source` (4,), clipped to it, and which of them have a part in it."""
    low, extent = np.tile(source[:2], 2), np.tile(source[2:] - source[:2], 2)
    projected = clip_boxes((boxes - low) / extent)
    meets = np.all((boxes[:, :2] < source[2:]) & (boxes[:, 2:] > source[:2]), axis=1)
    return projected, meets & (box_sizes(projected) > 0)
