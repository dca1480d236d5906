"""Flatten: joins neighbouring axes into one."""

from __future__ import annotations

import math

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer, canonical_axis
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import refuse_in_place
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor


@register_layer("Flatten")
class FlattenLayer(Layer):
    """Joins the axes from `axis` to `end_axis`, both included, into one.

    bottom: any shape with these axes; not in place.
    top: the same values; for (N, C, H, W) and the defaults (N, C * H * W).
    `flatten_param { axis: 1 end_axis: -1 }`. An end_axis one before axis joins nothing and puts an axis of extent 1
    there (flatten_layer.cpp).

    Raises:
        LayerError: the top is the bottom, or an axis is out of range.
        ShapeError: end_axis lies further before axis.
    """

    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1
    shares_data = True

    def setup(self, bottom: list[Shape]) -> None:
        refuse_in_place(self)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        param, shape = self.layer_param.flatten_param, bottom[0]
        self.start = canonical_axis(param.axis, len(shape))
        self.end = canonical_axis(param.end_axis, len(shape), "end_axis") + 1
        if self.start > self.end:
            raise ShapeError(
                f"Check failed: start_axis <= end_axis ({self.start} vs. {self.end}). "
                f"Got axis {param.axis!r}, end_axis {param.end_axis!r} for shape {shape!r}."
            )
        return [(*shape[: self.start], math.prod(shape[self.start : self.end]), *shape[self.end :])]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [bottom[0].reshape(self.top_shapes[0])]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.reshape(bottom[0], [0] * self.start + [-1, *self.bottom_shapes[0][self.end :]])]
