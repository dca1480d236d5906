"""Axpy: scale and add, channel by channel."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor

__all__ = ["AxpyLayer"]


@register_layer("Axpy")
class AxpyLayer(Layer):
    """out[n, c, i] = a[n, c] * x[n, c, i] + y[n, c, i] (Hu et al. 2017, SENet).

    bottom: a (N, C) or (N, C, 1, 1), x (N, C, ...), y of x's shape. All get gradients.
    top: of x's shape. No parameters. As in axpy_layer.cpp.

    Raises:
        ShapeError: the shapes do not fit.
    """

    origin = "SENet"
    checked_by = "MobileNet-YOLO"
    exact_num_bottom_blobs = 3
    exact_num_top_blobs = 1

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        a, x, y = bottom
        if len(a) < 2 or len(x) < 2 or a[:2] != x[:2] or any(extent != 1 for extent in a[2:]):
            raise ShapeError(
                "Check failed: bottom[0]->shape(0) == bottom[1]->shape(0), bottom[0]->shape(1) == bottom[1]->shape(1). "
                f"The scale has shape (N, C) or (N, C, 1, 1). Got {a!r} for {x!r}."
            )
        if x != y:
            raise ShapeError(f"Check failed: bottom[1]->shape() == bottom[2]->shape(). Got {x!r} and {y!r}.")
        return [x]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        a, x, y = bottom
        return [a.reshape(*x.shape[:2], *(1,) * (x.dim() - 2)) * x + y]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        (a, x, y), (a_shape, x_shape, _) = bottom, self.bottom_shapes
        if len(a_shape) != len(x_shape):
            a = g.reshape(a, (-1, x_shape[1], *(1,) * (len(x_shape) - 2)))
        return [g.op("Add", g.op("Mul", a, x), y)]
