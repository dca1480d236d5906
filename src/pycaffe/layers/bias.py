"""Bias: addition of a learned or given blob."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.layers._base import Layer
from pycaffe.layers._broadcast import broadcast, lower_broadcast, operand_axis, operand_shape
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor

__all__ = ["BiasLayer"]


@register_layer("Bias")
class BiasLayer(Layer):
    """Adds a blob that is broadcast from `axis` on: y = x + bias.

    bottom: (N, C, H, W) or any shape; a second bottom is the bias, otherwise it is learned.
    top: as bottom[0].
    blobs: with one bottom the bias, with the shape of `num_axes` axes of the bottom from `axis` on, here (C,).

    Parameters (bias_param): axis (1), num_axes (1; -1: to the end, 0: a scalar; not used with two bottoms), filler
    (0). As in bias_layer.cpp.

    Raises:
        LayerError: axes that the bottom does not have.  ShapeError: bias and bottom do not fit.
    """

    min_bottom_blobs = 1
    max_bottom_blobs = 2
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.bias_param
        if len(bottom) == 1:
            self.add_blob(operand_shape(bottom[0], param.axis, param.num_axes, "bias"), param.filler)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        self.operand = bottom[1] if len(bottom) > 1 else self.blobs[0].shape
        self.start = operand_axis(bottom[0], self.operand, self.layer_param.bias_param.axis, "bias")
        return [bottom[0]]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        bias = (*bottom, *params)[1]
        return [bottom[0] + broadcast(bias, bottom[0].dim(), self.start)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        bias = (*bottom, *params)[1]
        axes = len(self.operand), len(self.bottom_shapes[0])
        return [g.op("Add", bottom[0], lower_broadcast(g, bias, *axes, self.start))]
