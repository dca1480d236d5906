"""Reduction: the trailing axes become one number."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.layers._base import Layer, canonical_axis
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor

SUM, ASUM, SUMSQ, MEAN = 1, 2, 3, 4  # ReductionParameter.ReductionOp


@register_layer("Reduction")
class ReductionLayer(Layer):
    """Reduces all axes from `axis` on: y = coeff * sum x (SUM), sum |x| (ASUM), sum x^2 (SUMSQ), or the mean (MEAN).

    bottom: any shape with the axis.
    top: the bottom's shape before the axis; a scalar for axis 0.
    `reduction_param { operation: SUM axis: 0 coeff: 1 }` (reduction_layer.cpp).

    Raises:
        LayerError: the axis is out of range.
    """

    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        self.axis = canonical_axis(self.layer_param.reduction_param.axis, len(bottom[0]))
        return [bottom[0][: self.axis]]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        param = self.layer_param.reduction_param
        x = bottom[0].flatten(self.axis)
        if param.operation == ASUM:
            x = x.abs()
        elif param.operation == SUMSQ:
            x = x * x
        y = x.mean(-1) if param.operation == MEAN else x.sum(-1)
        return [y if param.coeff == 1 else y * param.coeff]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        param = self.layer_param.reduction_param
        axes = list(range(self.axis, len(self.bottom_shapes[0])))
        if param.operation in (SUM, ASUM):  # ReduceSum took its axes as an input before the others did
            x = bottom[0] if param.operation == SUM else g.op("Abs", bottom[0])  # OpenVINO loses the axes of ReduceL1
            y = g.op("ReduceSum", x, g.shape(axes), keepdims=0)
        else:
            op = {SUMSQ: "ReduceSumSquare", MEAN: "ReduceMean"}[param.operation]
            y = g.op(op, bottom[0], axes=axes, keepdims=0)
        return [y if param.coeff == 1 else g.op("Mul", y, g.constant(param.coeff))]
