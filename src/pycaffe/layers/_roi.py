"""Regions of interest, as ROIPooling, ROIAlign and PSROIPooling read them: rows of image, x1, y1, x2, y2.

Values that the forks leave to undefined behaviour have a meaning here, the same on both engines: a row with a value
that is not finite is a region outside the image; coordinates are cut at a limit far outside it, which keeps integers
and the number of samples bounded. An image that is not in the batch is an error.
"""

from __future__ import annotations

import math

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import InputError, LayerError, ShapeError
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._torch import Tensor, torch

__all__ = [
    "LIMIT",
    "check_pooled",
    "check_rois",
    "lower_rois",
    "lower_round",
    "read_rois",
    "round_away",
]

LIMIT = 1e9  # of coordinates: sums of two stay below 2^31, onnxruntime counts in int32
ONNX_FLOAT, ONNX_INT64 = 1, 7  # TensorProto.DataType


def check_pooled(pooled_h: int, pooled_w: int) -> tuple[int, int]:
    """The extents of the top; LayerError where one is 0."""
    for name, value in (("pooled_h", pooled_h), ("pooled_w", pooled_w)):
        if value < 1:
            raise LayerError(f"Check failed: {name} > 0 ({value} vs. 0) {name} must be > 0. Got {value!r}.")
    return pooled_h, pooled_w


def check_rois(bottom: list[Shape]) -> int:
    """How many regions there are; ShapeError unless the bottoms are (N, C, H, W) and (R, 5), or (R, 5, 1, 1)."""
    features, rois = bottom
    if len(features) != 4:
        raise ShapeError(
            f"Input must have 4 axes, corresponding to (num, channels, height, width). Got shape {features!r}."
        )
    if not rois or math.prod(rois[1:]) != 5:
        raise ShapeError(
            "Check failed: bottom[1]->count(1) == 5. Regions are rows of image, x1, y1, x2, y2: expected shape "
            f"(R, 5), got {rois!r}."
        )
    return rois[0]


# -- torch


def round_away(x: Tensor) -> Tensor:
    """C's round: halves go away from zero."""
    whole = x.trunc()
    return torch.where((x - whole).abs() >= 0.5, whole + x.sign(), whole)


def read_rois(rois: Tensor, images: int) -> tuple[Tensor, Tensor]:
    """The image of each region, (R), int64, and its corners x1, y1, x2, y2, (R, 4).

    Raises:
        InputError: an image is outside 0 .. images - 1.
    """
    rows = rois.detach().reshape(-1, 5)
    finite = torch.isfinite(rows).all(1, keepdim=True)
    rows = torch.where(finite, rows, torch.tensor([0.0] + [-LIMIT] * 4).to(rows))
    image = rows[:, 0].clamp(-LIMIT, LIMIT).to(torch.int64)
    wrong = (image < 0) | (image >= images)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        value = int(image[row])
        check = (
            f"roi_batch_ind >= 0 ({value} vs. 0)" if value < 0 else f"roi_batch_ind < batch_size ({value} vs. {images})"
        )
        raise InputError(f"Check failed: {check}. Region {row} lies in image {value!r}; the batch has {images!r}.")
    return image, rows[:, 1:].clamp(-LIMIT, LIMIT)


# -- ONNX


def lower_round(g: Lowering, x: str) -> str:
    """`round_away` in ONNX, whose Round sends halves to even numbers."""
    whole = g.op("Cast", g.op("Cast", x, to=ONNX_INT64), to=ONNX_FLOAT)
    half = g.op("GreaterOrEqual", g.op("Abs", g.op("Sub", x, whole)), g.constant(0.5))
    return g.op("Add", whole, g.op("Where", half, g.op("Sign", x), g.constant(0.0)))


def lower_rois(g: Lowering, rois: str, images: int) -> tuple[str, str]:
    """`read_rois` in ONNX: images (R, 1), int64, and corners (R, 4). An image outside the batch indexes beyond it."""
    rows = g.reshape(rois, (-1, 5))
    # 0 * x is NaN for infinities, too, and a NaN spreads through the sum of a row
    strange = g.op("IsNaN", g.op("ReduceSum", g.op("Mul", rows, g.constant(0.0)), g.shape((1,)), keepdims=1))
    rows = g.op("Where", strange, g.constant([[0.0] + [-LIMIT] * 4]), rows)
    first, corners = g.ops("Split", rows, g.shape((1, 4)), outputs=2, axis=1)
    first, corners = (g.op("Clip", value, g.constant(-LIMIT), g.constant(LIMIT)) for value in (first, corners))
    image = g.op("Cast", first, to=ONNX_INT64)
    negative = g.op("Less", image, g.constant(0, np.int64))
    return g.op("Where", negative, g.constant(images, np.int64), image), corners
