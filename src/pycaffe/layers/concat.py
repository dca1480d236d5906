"""Concat: joins blobs along an axis."""

from __future__ import annotations

from typing import Any

from pycaffe.blob import Shape
from pycaffe.errors import LayerError, ShapeError
from pycaffe.layers._base import Layer, canonical_axis
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["ConcatLayer", "axis_or_legacy_dim"]


@register_layer("Concat")
class ConcatLayer(Layer):
    """Joins its bottoms along an axis, in their order.

    bottom: one or more blobs whose shapes differ at most along the axis.
    top: their shape, with the sum of their extents along the axis.
    `concat_param { axis: 1 }`, or the older `concat_dim`, which may not be negative (concat_layer.cpp).

    Raises:
        LayerError: axis and concat_dim are both given, or the axis is out of range.
        ShapeError: the bottoms do not fit each other.
    """

    min_bottom_blobs = 1
    exact_num_top_blobs = 1

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        first = bottom[0]
        self.axis = axis_or_legacy_dim(self.layer_param.concat_param, "concat_dim", len(first))
        for shape in bottom[1:]:
            if len(shape) != len(first):
                raise ShapeError(f"All inputs must have the same #axes. Got shapes {bottom!r}.")
            if any(a != b for i, (a, b) in enumerate(zip(first, shape)) if i != self.axis):
                raise ShapeError(
                    f"All inputs must have the same shape, except at concat_axis. concat_axis is {self.axis!r}; got "
                    f"shapes {bottom!r}."
                )
        joined = sum(shape[self.axis] for shape in bottom)
        return [(*first[: self.axis], joined, *first[self.axis + 1 :])]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [torch.cat(bottom, dim=self.axis)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("Concat", *bottom, axis=self.axis)]


def axis_or_legacy_dim(param: Any, dim_field: str, num_axes: int) -> int:
    """The axis that Concat and Slice work along: `axis`, or the older field, an unsigned number.

    Raises:
        LayerError: both are given, or the one given is out of range.
    """
    if not param.HasField(dim_field):
        return canonical_axis(param.axis, num_axes)
    dim = int(getattr(param, dim_field))
    if param.HasField("axis"):
        raise LayerError(
            f"Either axis or {dim_field} should be specified; not both. Got axis {param.axis!r}, {dim_field} {dim!r}."
        )
    if dim >= 2**31:  # a negative number, written by a program
        raise LayerError(
            f"casting {dim_field} from uint32 to int32 produced negative result; {dim_field} must satisfy "
            f"0 <= {dim_field} < 32. Got {dim!r}; use axis for negative numbers."
        )
    if dim >= num_axes:
        raise LayerError(f"{dim_field} out of range. Got {dim!r} for a {num_axes}-D Blob.")
    return dim
