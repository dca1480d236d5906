"""What losses and Accuracy share: integer labels, the class axis, `ignore_label` and normalisation.

Caffe reads a label as `static_cast<int>(float)`, towards zero, and indexes with it unchecked. Here a label outside the
classes is an InputError on torch; in ONNX it indexes out of bounds, which onnxruntime refuses to run (negative
ones, which ONNX would count from the end, are sent out of bounds for that).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import InputError, LayerError, ShapeError
from pycaffe.layers._base import Layer, canonical_axis
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._torch import Tensor, torch

__all__ = [
    "Folded",
    "Normalization",
    "check_first_dimension",
    "fold",
    "fold_with_labels",
    "ignored_label",
    "integer_labels",
    "legacy_extents",
    "lower_labels",
    "lower_total",
    "refuse_label_gradient",
]

FULL, VALID, BATCH_SIZE, NONE, PRE_FIXED = range(5)  # LossParameter.NormalizationMode
ONNX_FLOAT, ONNX_INT64 = 1, 7  # TensorProto.DataType


class Folded(NamedTuple):
    """A shape seen as (outer, classes, inner) around its class axis."""

    outer: int
    classes: int
    inner: int


def fold(shape: Shape, axis: int) -> Folded:
    """The extents before, at and after `axis` (which may be negative)."""
    axis = canonical_axis(axis, len(shape))
    return Folded(math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))


def fold_with_labels(shape: Shape, label: Shape, axis: int, axis_name: str) -> Folded:
    """`fold`, with the check that there is one label for each prediction.

    Raises:
        ShapeError: the number of labels is another.
    """
    folded = fold(shape, axis)
    if folded.outer * folded.inner != math.prod(label):
        raise ShapeError(
            f"Check failed: outer_num_ * inner_num_ == bottom[1]->count() ({folded.outer * folded.inner} vs. "
            f"{math.prod(label)}) Number of labels must match number of predictions; e.g., if {axis_name} axis == 1 "
            "and prediction shape is (N, C, H, W), label count (number of labels) must be N*H*W, with integer "
            f"values in {{0, 1, ..., C-1}}. Got shapes {shape!r} and {label!r}, axis {axis!r}."
        )
    return folded


def check_first_dimension(bottom: list[Shape]) -> None:
    """Raises ShapeError unless data and label agree in their first axis (loss_layer.cpp)."""
    for shape in bottom[:2]:
        canonical_axis(0, len(shape))
    if bottom[0][0] != bottom[1][0]:
        raise ShapeError(
            f"Check failed: bottom[0]->shape(0) == bottom[1]->shape(0) ({bottom[0][0]} vs. {bottom[1][0]}) The data "
            f"and label should have the same first dimension. Got shapes {bottom[0]!r} and {bottom[1]!r}."
        )


def legacy_extents(shape: Shape) -> tuple[int, int, int, int]:
    """num, channels, height and width; missing axes count 1 (blob.hpp, LegacyShape)."""
    if len(shape) > 4:
        raise ShapeError(f"Cannot use legacy accessors on Blobs with > 4 axes. Got shape {shape!r}.")
    num, channels, height, width = (*shape, 1, 1, 1, 1)[:4]
    return num, channels, height, width


def ignored_label(param: Any) -> int | None:
    """`ignore_label` of a LossParameter or AccuracyParameter where it was given."""
    return int(param.ignore_label) if param.HasField("ignore_label") else None


def integer_labels(labels: Tensor, classes: int, ignore: int | None) -> tuple[Tensor, Tensor | None]:
    """Labels as int64 indices of the same shape, and which of them count (None: all). Ignored ones index class 0.

    Raises:
        InputError: a label that is not ignored is outside 0 .. classes - 1.
    """
    index = labels.detach().to(torch.int64)
    valid = None
    if ignore is not None:
        valid = index != ignore
        index = torch.where(valid, index, torch.zeros_like(index))
    lowest, highest = (int(end) for end in torch.aminmax(index)) if index.numel() else (0, 0)
    if lowest < 0 or highest >= classes:
        value = int(index[(index < 0) | (index >= classes)][0])
        check = (
            f"label_value >= 0 ({value} vs. 0)" if value < 0 else f"label_value < num_labels ({value} vs. {classes})"
        )
        also = "" if ignore is None else f", or be the ignore_label {ignore!r}"
        raise InputError(
            f"Check failed: {check}. Label {value!r} is out of range: labels must be in 0 .. {classes - 1}{also}."
        )
    return index, valid


def refuse_label_gradient(layer: Layer, propagate_down: list[bool]) -> None:
    """Raises LayerError where the net asks for the gradient of the labels (bottom 1)."""
    if propagate_down[1]:
        raise LayerError(
            f"{layer.type} Layer cannot backpropagate to label inputs. These labels are computed by layers that learn; "
            "`propagate_down: true propagate_down: false` in the loss layer stops that."
        )


class Normalization:
    """What a loss is divided by: LossParameter's modes, at least 1 (`get_normalizer` of softmax_loss_layer.cpp)."""

    def __init__(self, param: Any, default: int, legacy: bool = True) -> None:
        """`legacy`: the layer obeys the old flag `normalize` (true: VALID, false: BATCH_SIZE)."""
        if param.HasField("normalization"):
            self.mode = int(param.normalization)
        elif legacy and param.HasField("normalize"):
            self.mode = VALID if param.normalize else BATCH_SIZE
        else:
            self.mode = default
        if self.mode == PRE_FIXED:
            raise LayerError("Unknown normalization mode: PRE_FIXED. Only R-FCN's SmoothL1Loss knows it.")

    def divisor(self, outer: int, inner: int, valid: Tensor | None) -> Tensor | float:
        """The divisor for outer x inner terms of which `valid` count (None: all)."""
        if self.mode == VALID and valid is not None:
            return valid.sum().clamp(min=1)
        return float(max(1, {FULL: outer * inner, VALID: outer * inner, BATCH_SIZE: outer, NONE: 1}[self.mode]))

    def lower(self, g: Lowering, terms: str, inner: int, valid: str | None) -> str:
        """The divisor as an ONNX scalar. `terms`: a value with one element a term; `valid`: a float mask of them."""
        if self.mode == NONE:
            return g.constant(1.0)
        if self.mode == VALID and valid is not None:
            count = lower_total(g, valid)
        else:
            count = g.op("Cast", g.op("Size", terms), to=ONNX_FLOAT)
        if self.mode == BATCH_SIZE:
            count = g.op("Div", count, g.constant(float(max(inner, 1))))
        return g.op("Max", count, g.constant(1.0))


def lower_total(g: Lowering, value: str) -> str:
    """The sum of all elements, a scalar."""
    return g.op("ReduceSum", value, keepdims=0)


def lower_labels(
    g: Lowering, label: str, dims: tuple[int, ...], classes: int, ignore: int | None
) -> tuple[str, str | None]:
    """`integer_labels` in ONNX, reshaped to `dims`: indices, and a float mask of those that count (None: all)."""
    index = g.op("Cast", g.reshape(label, dims), to=ONNX_INT64)
    zero = g.constant(0, np.int64)
    valid = None
    if ignore is not None:
        ignored = g.op("Equal", index, g.constant(ignore, np.int64))
        index = g.op("Where", ignored, zero, index)
        valid = g.op("Cast", g.op("Not", ignored), to=ONNX_FLOAT)
    return g.op("Where", g.op("Less", index, zero), g.constant(classes, np.int64), index), valid
