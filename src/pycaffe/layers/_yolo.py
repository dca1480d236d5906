"""Boxes of YOLO's layers: overlaps, non-maximum suppression, detections, ground truth (MobileNet-YOLO, darknet).

Boxes are NumPy arrays (..., 4) of centre x, centre y, width, height, in units of the image's width and height.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.blob import Shape
from pycaffe.errors import InputError, LayerError, ShapeError

__all__ = [
    "Array",
    "anchors",
    "cells",
    "check_cells",
    "check_labels",
    "corners",
    "detections",
    "intersection_over_union",
    "sigmoid",
    "surrogate_loss",
    "truths",
]

Array = npt.NDArray[Any]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    with np.errstate(over="ignore"):
        y: Array = 1 / (1 + np.exp(-x))
    return y


def anchors(biases: Any, needed: int, what: str = "biases") -> Array:
    """The anchors (n, 2), width and height, of a repeated field.

    Raises:
        LayerError: there are fewer than needed.
    """
    values = np.array(list(biases), np.float32)
    if len(values) < 2 * needed or len(values) % 2:
        raise LayerError(
            f"{what} holds a width and a height for each anchor. Expected at least {2 * needed} numbers, "
            f"got {len(values)}."
        )
    return values.reshape(-1, 2)


def check_cells(layer: str, shape: Shape, boxes: int, values: int) -> None:
    """Raises ShapeError unless the shape is (N, boxes * L, H, W) with L at least `values`."""
    if len(shape) != 4 or boxes < 1 or shape[1] % boxes or shape[1] // boxes < values:
        raise ShapeError(
            f"{layer}: the channels hold {values!r} values for each of {boxes!r} boxes. "
            f"Expected shape (N, {boxes * values}, H, W), got {shape!r}."
        )


def cells(x: Array, boxes: int) -> Array:
    """The predictions x (N, boxes * L, H, W) as (N, H, W, boxes, L): as the forks go through them."""
    num, channels, height, width = x.shape
    by_cell: Array = x.reshape(num, boxes, channels // boxes, height, width).transpose(0, 3, 4, 1, 2)
    return by_cell


def corners(boxes: Array) -> Array:
    """(..., 4) of left, top, right, bottom."""
    half = boxes[..., 2:] / 2
    return np.concatenate((boxes[..., :2] - half, boxes[..., :2] + half), -1)


def intersection_over_union(a: Array, b: Array) -> Array:
    """Of boxes that broadcast against each other; NaN for two boxes without area."""
    with np.errstate(all="ignore"):
        first, second = corners(a), corners(b)
        common = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
        width, height = common[..., 0], common[..., 1]
        area = np.where((width < 0) | (height < 0), 0, width * height)
        whole: Array = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - area
        overlaps: Array = area / whole
    return overlaps


def _suppress(boxes: Array, threshold: float) -> list[int]:
    """The boxes, best first, that no better kept one overlaps by the threshold or more, whatever their class."""
    kept = []
    alive = np.ones(len(boxes), np.bool_)
    for index in range(len(boxes)):
        if alive[index]:
            kept.append(index)
            overlaps = intersection_over_union(boxes[index], boxes[index + 1 :])
            alive[index + 1 :] &= ~(overlaps >= threshold)
    return kept


def detections(boxes: Array, labels: Array, scores: Array, threshold: float, images: int) -> Array:
    """The top of YOLO's output layers: (1, 1, M, 7) of image 0, label + 1, score, left, top, right, bottom.

    Best score first; equal ones keep their order. As in the fork all images of a batch are one, number 0. Without any
    box there is one row [image, -1, -1, -1, -1, -1, -1] an image.
    """
    if not len(boxes):
        empty = np.full((1, 1, images, 7), -1, np.float32)
        empty[0, 0, :, 0] = np.arange(images)
        return empty
    order = np.argsort(-scores, kind="stable")
    order = order[_suppress(boxes[order], threshold)]
    rows = np.zeros((1, 1, len(order), 7), np.float32)
    rows[0, 0, :, 1], rows[0, 0, :, 2], rows[0, 0, :, 3:] = labels[order] + 1, scores[order], corners(boxes[order])
    return rows


def truths(labels: Array, image: int, classes: int) -> tuple[Array, Array]:
    """The ground truth of one image: rows of class, x, y, width, height, of which the first with zeros is the end.

    Returns:
        The boxes up to the first with x = 0, and the rows up to the first with width 0: the fork's two loops end so.

    Raises:
        InputError: a number that is not finite, a centre outside the image, a box without area, no such class.
    """
    rows = labels[image].reshape(-1, 5)
    ends = [int(np.append(rows[:, column] == 0, True).argmax()) for column in (1, 3)]
    good = np.isfinite(rows).all(1) & (rows[:, 0] >= 0) & (rows[:, 0] < classes) & (rows[:, 3:] > 0).all(1)
    good &= ((rows[:, 1:3] >= 0) & (rows[:, 1:3] <= 1)).all(1)
    if not good[: max(ends)].all():
        wrong = int(good.argmin())
        raise InputError(
            f"A label holds class, centre x, centre y, width, height, with a class below {classes} and a box in units "
            f"of the image. Got {rows[wrong].tolist()!r}, label {wrong} of image {image}."
        )
    return rows[: ends[0], 1:], rows[: ends[1]]


def surrogate_loss(x: Any, loss: float, gradient: Array) -> Any:
    """A tensor of the value `loss` whose derivative by x is `gradient`, which need not be that of the loss."""
    value = x.new_tensor(loss)
    if not x.requires_grad:
        return value
    return value + ((x - x.detach()) * x.new_tensor(gradient)).sum()


def check_labels(predictions: Shape, labels: Shape) -> None:
    """Raises ShapeError unless there are rows of 5 numbers for each image."""
    count = math.prod(labels[1:])
    if not predictions[0] or labels[:1] != predictions[:1] or count % 5 or not count:
        raise ShapeError(
            "The labels hold rows of class, x, y, width, height for each image. "
            f"Got shape {labels!r} for predictions {predictions!r}."
        )
