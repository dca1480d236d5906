"""Scale: multiplication by a learned or given blob, and a bias."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.layers._base import Layer
from pycaffe.layers._broadcast import broadcast, lower_broadcast, operand_axis, operand_shape
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor

__all__ = ["ScaleLayer"]


@register_layer("Scale")
class ScaleLayer(Layer):
    """Multiplies the bottom by a blob that is broadcast from `axis` on: y = x * scale + bias.

    bottom: (N, C, H, W) or any shape; a second bottom is the scale, otherwise it is learned.
    top: as bottom[0].
    blobs: with one bottom the scale, with the shape of `num_axes` axes of the bottom from `axis` on, here (C,); with
        `bias_term` a bias of the same shape.

    Parameters (scale_param): axis (1), num_axes (1; -1: to the end, 0: a scalar; not used with two bottoms), filler
    (1), bias_term (false), bias_filler (0). As in scale_layer.cpp, but for a scale as large as its bottom: there it
    overwrites its diff, here it adds to it, as all layers do.

    Raises:
        LayerError: axes that the bottom does not have.  ShapeError: scale and bottom do not fit.
    """

    min_bottom_blobs = 1
    max_bottom_blobs = 2
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.scale_param
        num_axes = param.num_axes
        if len(bottom) == 1:
            filler = type(param.filler)()
            filler.CopyFrom(param.filler)
            if not param.HasField("filler"):
                filler.value = 1.0
            self.add_blob(operand_shape(bottom[0], param.axis, num_axes, "scale"), filler)
        else:
            num_axes = len(bottom[1])
        if param.bias_term:
            self.add_blob(operand_shape(bottom[0], param.axis, num_axes, "bias"), param.bias_filler)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        axis = self.layer_param.scale_param.axis
        self.operand = bottom[1] if len(bottom) > 1 else self.blobs[0].shape
        self.start = operand_axis(bottom[0], self.operand, axis, "scale")
        if self.layer_param.scale_param.bias_term:
            operand_axis(bottom[0], self.blobs[-1].shape, axis, "bias")
        return [bottom[0]]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x, *scale = bottom
        operands = [broadcast(operand, x.dim(), self.start) for operand in (*scale, *params)]
        y = x * operands[0]
        return [y + operands[1] if len(operands) > 1 else y]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        x, *scale = bottom
        axes, of = len(self.operand), len(self.bottom_shapes[0])
        operands = [lower_broadcast(g, operand, axes, of, self.start) for operand in (*scale, *params)]
        y = g.op("Mul", x, operands[0])
        return [g.op("Add", y, operands[1]) if len(operands) > 1 else y]
