"""Normalize: L2 normalization with a learned scale."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch
from pycaffe.proto.schema import FillerParameter


@register_layer("Normalize")
class NormalizeLayer(Layer):
    """Divides by the L2 norm and multiplies by a learned scale: y = scale * x / sqrt(sum of x^2 + eps).

    bottom, top: (N, C, H, W), where H and W may be missing. With `across_spatial` the sum goes over a whole item
    (C, H, W), without over the channels of each pixel.
    blob: scale, a scalar, or with `channel_shared: false` (C,).

    `norm_param { across_spatial: true  scale_filler { type: "constant" value: 1 }  channel_shared: true  eps: 1e-10 }`,
    as in normalize_layer.cpp of SSD.

    backward: as in the fork, the bottom's diff is scale * (dy - y' * sum of y' * dy) / norm with y' = x / norm. With
    one scale that is the derivative; with one for each channel it is not, because the scale belongs into the sum. The
    scale's diff is the sum of y' * dy. (The fork takes y * dy / scale, which is NaN for a scale of 0.)

    Raises:
        ShapeError: not 2 to 4 axes, or another number of channels than at first.
    """

    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1
    origin = "SSD"

    def setup(self, bottom: list[Shape]) -> None:
        self._check_axes(bottom[0])
        param = self.layer_param.norm_param
        self.across_spatial, self.eps = param.across_spatial, param.eps
        self.per_channel = not param.channel_shared
        filler = param.scale_filler if param.HasField("scale_filler") else FillerParameter(type="constant", value=1)
        self.add_blob((bottom[0][1],) if self.per_channel else (), filler)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        self._check_axes(bottom[0])
        if self.per_channel and self.blobs[0].shape != bottom[0][1:2]:
            raise ShapeError(
                "Scale size is inconsistent with prototxt config. "
                f"It has shape {self.blobs[0].shape!r}, the bottom {bottom[0]!r}."
            )
        return [bottom[0]]

    def _check_axes(self, shape: Shape) -> None:
        if not 2 <= len(shape) <= 4:
            raise ShapeError(f"Number of axes of bottom blob must be >=2, and at most 4. Got shape {shape!r}.")

    @property
    def _axes(self) -> list[int]:
        """The axes that are summed over."""
        return list(range(1, len(self.bottom_shapes[0]))) if self.across_spatial else [1]

    @property
    def _scale_shape(self) -> list[int]:
        """The scale's shape such that it broadcasts."""
        return [-1] + [1] * (len(self.bottom_shapes[0]) - 2) if self.per_channel else []

    def _norm(self, x: Tensor) -> Tensor:
        return torch.sqrt((x * x).sum(self._axes, keepdim=True) + self.eps)

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [bottom[0] / self._norm(bottom[0]) * params[0].reshape(self._scale_shape)]

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        norm = self._norm(bottom[0])
        unit = bottom[0] / norm
        product = unit * top_diff[0]
        outside = [axis for axis in range(product.dim()) if axis != 1 or not self.per_channel]
        scale_diff = product.sum(outside)
        if not propagate_down[0]:
            return [None], [scale_diff]
        across = top_diff[0] - unit * product.sum(self._axes, keepdim=True)
        return [across * params[0].reshape(self._scale_shape) / norm], [scale_diff]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        x = bottom[0]
        energy = g.op("ReduceSumSquare", x, axes=self._axes, keepdims=1)
        norm = g.op("Sqrt", g.op("Add", energy, g.constant(self.eps)))
        scale = g.reshape(params[0], self._scale_shape) if self.per_channel else params[0]
        return [g.op("Mul", g.op("Div", x, norm), scale)]
