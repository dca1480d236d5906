"""The overlaps of two boxes by which Yolov3 trains, and what darknet takes for their derivative.

Boxes are (centre x, centre y, width, height). The derivatives are those of MobileNet-YOLO's yolov3_layer.cpp, which
has them from darknet: they leave a factor 1/2 out of width and height, and DIOU's and CIOU's terms have two signs
reversed. Nets have been trained with them as they are.
"""

from __future__ import annotations

import math

import numpy as np

from pycaffe.layers._yolo import Array, corners, intersection_over_union

__all__ = ["CIOU", "DIOU", "GIOU", "IOU", "MSE", "generalized_overlap", "overlap_gradient"]

IOU, GIOU, MSE, DIOU, CIOU = range(5)  # Yolov3Parameter.IOU_LOSS


def _aspect_terms(box: Array, truth: Array, overlap: Array) -> tuple[Array, Array]:
    """CIOU's term for different aspect ratios, and the share with which it counts."""
    difference = np.arctan(truth[..., 2] / truth[..., 3]) - np.arctan(box[..., 2] / box[..., 3])
    term = 4 / math.pi**2 * difference**2
    return term, term / (1 - overlap + term + 1e-6)


def generalized_overlap(box: Array, truth: Array, kind: int) -> Array:
    """IoU of boxes that broadcast, less what GIOU, DIOU or CIOU takes off for boxes that lie or look apart."""
    overlap = intersection_over_union(box, truth)
    if kind in (IOU, MSE):
        return overlap
    with np.errstate(all="ignore"):
        a, b = corners(box), corners(truth)
        hull = np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])
        if kind == GIOU:
            area = hull[..., 0] * hull[..., 1]
            width, height = np.moveaxis(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), -1, 0)
            common = np.where((width < 0) | (height < 0), 0, width * height)
            union = box[..., 2] * box[..., 3] + truth[..., 2] * truth[..., 3] - common
            less = np.where(area == 0, 0, (area - union) / area)
        else:
            diagonal = np.square(hull).sum(-1)
            apart = np.square(box[..., :2] - truth[..., :2]).sum(-1) / diagonal
            if kind == DIOU:
                less = apart**0.6
            else:
                term, share = _aspect_terms(box, truth, overlap)
                less = apart + share * term
            less = np.where(diagonal == 0, 0, less)
    result: Array = overlap - less
    return result


def overlap_gradient(box: Array, truth: Array, kind: int) -> Array:
    """What darknet adds to one box's (x, y, width, height) to overlap one true box more; by `kind` IOU, GIOU, ..."""
    with np.errstate(all="ignore"):
        a, b = corners(box.astype(np.float64)), corners(truth.astype(np.float64))
        size, size_truth = a[2:] - a[:2], b[2:] - b[:2]
        common = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        meet = common.prod()  # of two negative extents positive, as there
        union = size.prod() + size_truth.prod() - meet
        # By left, top, right, bottom; "other" is the extent along the other axis.
        sign = np.array([-1, -1, 1, 1])
        outward = np.concatenate((a[:2] < b[:2], a[2:] > b[2:]))  # a side of the hull
        inward = np.concatenate((a[:2] > b[:2], a[2:] < b[2:]))  # a side of the intersection
        area_by = sign * np.tile(size[::-1], 2)
        meet_by = sign * inward * np.tile(common[::-1], 2)
        union_by = area_by - meet_by
        by_side = (union * meet_by - meet * union_by) / union**2 if union > 0 else np.zeros(4)
        apart = bool((common <= 0).any())
        if kind == GIOU:
            hull = np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2])
            area, hull_by = hull.prod(), sign * outward * np.tile(hull[::-1], 2)
            term = (area * union_by - union * hull_by) / area**2
            by_side = term if apart else by_side + (term if area > 0 else 0)
        gradient: Array = np.concatenate((by_side[:2] + by_side[2:], by_side[2:] - by_side[:2]))
        if kind in (DIOU, CIOU):
            term = _distance_gradient(box, truth, outward, intersection_over_union(box, truth), kind)
            gradient = term if apart else gradient + term
    return gradient


def _distance_gradient(box: Array, truth: Array, outward: Array, overlap: Array, kind: int) -> Array:
    """The part of DIOU and CIOU that moves centres together and, for CIOU, makes aspect ratios alike."""
    box, truth = box.astype(np.float64), truth.astype(np.float64)
    a, b = corners(box), corners(truth)
    hull = np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2])
    diagonal = np.square(hull).sum()
    if not diagonal > 0:
        return np.zeros(4)
    distance = np.square(box[:2] - truth[:2]).sum()
    low, high = outward[:2].astype(float), outward[2:].astype(float)
    hull_by_centre, hull_by_size = high - low, (high + low) / 2
    centre = 2 * (truth[:2] - box[:2]) * diagonal - 2 * hull * hull_by_centre * distance
    size = 2 * hull * hull_by_size * distance
    gradient: Array = np.concatenate((centre, size)) / diagonal**2
    if kind == CIOU:
        _, share = _aspect_terms(box, truth, overlap)
        difference = np.arctan(truth[2] / truth[3]) - np.arctan(box[2] / box[3])
        gradient[2:] += share * 8 / math.pi**2 * difference * np.array([box[3], -box[2]])
    return gradient
