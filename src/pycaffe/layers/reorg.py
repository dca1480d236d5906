"""Reorg: darknet's exchange of space for channels."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import refuse_in_place
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor

__all__ = ["ReorgLayer"]


@register_layer("Reorg")
class ReorgLayer(Layer):
    """Gives each pixel its neighbours' values as channels, as darknet does, or with `reverse` takes them back.

    reverse: y[n, c, h * s + i, w * s + j] = x[n, (i * s + j) * C / s^2 + c, h, w].
    Without: the inverse of that, with the numbers read as if they lay in a blob of shape (N, C / s^2, H * s, W * s).
    That is no regrouping of pixels of the bottom as it stands, but it is what trained nets have learned with.

    bottom: (N, C, H, W).  top: (N, C * s^2, H / s, W / s); with `reverse` (N, C / s^2, H * s, W * s).

    Parameters (reorg_param): stride s, required; reverse (false). As in reorg_layer.cpp of MobileNet-YOLO, whose
    backward hands on zeros; here it is the derivative.

    Raises:
        LayerError: no stride, or the top is the bottom.
        ShapeError: not 4 axes, or s^2 does not divide C, or without `reverse` s does not divide H and W.
    """

    origin = "YOLOv2"
    checked_by = "MobileNet-YOLO"
    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        refuse_in_place(self)
        param = self.layer_param.reorg_param
        if not param.stride:
            raise self.error(f"Reorg Layer needs stride param. Got stride {param.stride!r}.")
        self.stride: int = param.stride
        self.reverse: bool = param.reverse

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        shape, s = bottom[0], self.stride
        if len(shape) != 4:
            raise ShapeError(f"Reorg's bottom has 4 axes (N, C, H, W). Got shape {shape!r}.")
        num, channels, height, width = shape
        if channels % (s * s):
            raise ShapeError(f"Reorg: the stride's square divides the channels. Got stride {s!r} and shape {shape!r}.")
        if self.reverse:
            return [(num, channels // (s * s), height * s, width * s)]
        if height % s or width % s:
            raise ShapeError(f"Reorg: the stride divides height and width. Got stride {s!r} and shape {shape!r}.")
        return [(num, channels * s * s, height // s, width // s)]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        _, c, h, w = self.bottom_shapes[0]
        x, s, few = bottom[0], self.stride, c // self.stride**2
        if self.reverse:
            y = x.reshape(-1, s, s, few, h, w).permute(0, 3, 4, 1, 5, 2)
        else:
            y = x.reshape(-1, few, h, s, w, s).permute(0, 3, 5, 1, 2, 4)
        return [y.reshape(-1, *self.top_shapes[0][1:])]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        _, c, h, w = self.bottom_shapes[0]
        s = self.stride
        if self.reverse:
            return [g.op("DepthToSpace", bottom[0], blocksize=s, mode="DCR")]
        pieces = g.op("SpaceToDepth", g.reshape(bottom[0], (0, c // (s * s), h * s, w * s)), blocksize=s)
        return [g.reshape(pieces, (0, *self.top_shapes[0][1:]))]
