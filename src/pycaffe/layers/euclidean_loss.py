"""EuclideanLoss: half the mean squared distance."""

from __future__ import annotations

import math

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import LossLayer
from pycaffe.layers._loss import check_first_dimension
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor

__all__ = ["EuclideanLossLayer"]


@register_layer("EuclideanLoss")
class EuclideanLossLayer(LossLayer):
    """loss = 1/(2N) * sum((a - b)^2).

    bottom: a (N, ...) and b (N, ...) with as many elements an item, in any shape. Both get gradients.
    top: a scalar.

    As in euclidean_loss_layer.cpp, but blobs may have more than 4 axes.
    """

    exact_num_top_blobs = 1

    def allow_force_backward(self, bottom_index: int) -> bool:
        return True

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        check_first_dimension(bottom)
        counts = [math.prod(shape[1:]) for shape in bottom]
        if counts[0] != counts[1]:
            raise ShapeError(
                f"Check failed: bottom[0]->count(1) == bottom[1]->count(1) ({counts[0]} vs. {counts[1]}) Inputs must "
                f"have the same dimension. Got shapes {bottom[0]!r} and {bottom[1]!r}."
            )
        return [()]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        difference = bottom[0] - bottom[1].reshape(bottom[0].shape)
        return [(difference * difference).sum() / (2 * bottom[0].shape[0])]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        shape, other = self.bottom_shapes
        second = bottom[1] if shape == other else g.reshape(bottom[1], (-1, *shape[1:]))
        difference = g.op("Sub", bottom[0], second)
        # the mean of all elements times the elements an item: the batch size stays out of the graph
        mean = g.op("ReduceMean", g.op("Mul", difference, difference), keepdims=0)
        return [g.op("Mul", mean, g.constant(math.prod(shape[1:]) / 2))]
