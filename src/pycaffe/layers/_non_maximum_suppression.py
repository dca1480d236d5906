"""Greedy non-maximum suppression as SSD does it (bbox_util.cpp, ApplyNMSFast), with its adaptive threshold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pycaffe.layers._boxes import Array, box_sizes, jaccard_overlaps

__all__ = ["suppress"]

BLOCK = 48  # boxes that are compared with all others at once
MAX_OVERLAPS = 2**18  # of one block, which bounds the memory whatever the number of boxes
TINY = np.finfo(np.float32).smallest_subnormal


def suppress(boxes: Array, threshold: float, eta: float = 1.0) -> npt.NDArray[np.intp]:
    """Indices of the boxes that stay, in their order.

    From the first to the last, a box stays if it overlaps none that stayed before by more than the threshold. With
    `eta` < 1 the threshold shrinks by that factor with each box that stays, while it is above 0.5.

    Args:
        boxes: (n, 4) float32: xmin, ymin, xmax, ymax; the best one first.
        threshold: the largest overlap (intersection over union) that is allowed.
        eta: above 0, at most 1.
    """
    limit, factor = np.float32(threshold), np.float32(eta)
    finite = bool(np.isfinite(boxes).all())
    columns = np.concatenate([boxes.T, box_sizes(boxes)[np.newaxis]])  # contiguous, for vector instructions
    kept: list[int] = []
    rest = np.arange(len(boxes))
    worst = np.zeros(len(boxes), np.float32)  # the largest overlap with a box that stayed
    while rest.size:
        size = max(1, min(BLOCK, rest.size, MAX_OVERLAPS // rest.size))
        if finite:
            overlaps = _finite_overlaps(columns[:, :size], columns)
        else:
            overlaps = jaccard_overlaps(boxes[rest[:size]], boxes[rest])
        stays = []
        inside = worst[:size]
        for row in range(size):
            if inside[row] <= limit:
                stays.append(row)
                np.maximum(inside, overlaps[row, :size], out=inside)
                if factor < 1 and limit > 0.5:
                    limit = limit * factor
        kept += rest[stays].tolist()
        behind = np.maximum(worst[size:], overlaps[stays, size:].max(axis=0, initial=0))
        alive = np.flatnonzero(behind <= limit)  # the threshold never grows again
        rest, worst, columns = rest[size:][alive], behind[alive], columns[:, size:][:, alive]
    return np.array(kept, np.intp)


def _finite_overlaps(a: Array, b: Array) -> Array:
    """`jaccard_overlaps` of finite boxes as columns xmin, ymin, xmax, ymax, size, with few temporaries.

    This is where suppression spends its time.
    """
    left, top, right, bottom, size = a[:, :, np.newaxis]
    lefts, tops, rights, bottoms, sizes = b
    width = np.minimum(right, rights)
    width -= np.maximum(left, lefts)
    np.maximum(width, 0, out=width)
    height = np.minimum(bottom, bottoms)
    height -= np.maximum(top, tops)
    np.maximum(height, 0, out=height)
    common: Array = np.multiply(width, height, out=width)
    union = np.add(size, sizes, out=height)
    union -= common
    np.maximum(union, TINY, out=union)  # two points have an area of 0 together
    common /= union
    return common
