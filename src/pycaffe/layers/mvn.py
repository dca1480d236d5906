"""MVN: mean-variance normalization of each image."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor

__all__ = ["MVNLayer"]


@register_layer("MVN")
class MVNLayer(Layer):
    """Gives each channel of each image, or each image, zero mean and unit variance.

    y = (x - mean) / (sqrt(variance) + eps).

    bottom: (N, C, H, W); missing axes count as 1.
    top: (N, C, H, W), always 4 axes.

    Parameters (mvn_param): normalize_variance (true; false only subtracts the mean), across_channels (false: each (H,
    W) plane by itself; true: each (C, H, W)), eps (1e-9). As in mvn_layer.cpp, whose backward takes eps for zero next
    to the standard deviation: dx = (dy - mean(dy) - y * mean(dy * y)) / (sqrt(variance) + eps).

    Raises:
        ShapeError: more than 4 axes.
    """

    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.mvn_param
        self.normalize, self.eps = param.normalize_variance, param.eps
        self.axes = (1, 2, 3) if param.across_channels else (2, 3)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        shape = bottom[0]
        if len(shape) > 4:
            raise ShapeError(f"Cannot use legacy accessors on Blobs with > 4 axes. Got shape {shape!r}.")
        return [shape + (1,) * (4 - len(shape))]

    def _centred_and_divisor(self, bottom: Tensor) -> tuple[Tensor, Tensor]:
        x = bottom.reshape(self.top_shapes[0])
        centred = x - x.mean(self.axes, keepdim=True)
        if not self.normalize:
            return centred, 1.0
        return centred, (centred * centred).mean(self.axes, keepdim=True).sqrt() + self.eps

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        centred, divisor = self._centred_and_divisor(bottom[0])
        return [centred / divisor]

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        centred, divisor = self._centred_and_divisor(bottom[0])
        dy = top_diff[0]
        dx = dy - dy.mean(self.axes, keepdim=True)
        if self.normalize:
            y = centred / divisor
            dx = (dx - y * (dy * y).mean(self.axes, keepdim=True)) / divisor
        return [dx.reshape(bottom[0].shape)], []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        x, missing = bottom[0], 4 - len(self.bottom_shapes[0])
        if missing:
            x = g.reshape(x, (0,) * (4 - missing) + (1,) * missing)
        centred = g.op("Sub", x, g.op("ReduceMean", x, axes=list(self.axes)))
        if not self.normalize:
            return [centred]
        variance = g.op("ReduceMean", g.op("Mul", centred, centred), axes=list(self.axes))
        return [g.op("Div", centred, g.op("Add", g.op("Sqrt", variance), g.constant(self.eps)))]
