"""ShuffleChannel."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor

__all__ = ["ShuffleChannelLayer"]


@register_layer("ShuffleChannel")
class ShuffleChannelLayer(Layer):
    """Deals the channels out: one from each group, then the next from each (Zhang et al. 2017, ShuffleNet).

    y[n, j * group + i] = x[n, i * C / group + j].

    bottom, top: (N, C, ...). `shuffle_channel_param { group: 1 }`; group divides C.

    Raises:
        LayerError: group is 0.  ShapeError: no channel axis, or group does not divide it.
    """

    origin = "ShuffleNet"
    checked_by = "NumPy loop"
    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        self.group: int = self.layer_param.shuffle_channel_param.group
        if self.group <= 0:
            raise self.error(f"group must be greater than 0. Got group {self.group!r}.")

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        shape = bottom[0]
        if len(shape) < 2 or shape[1] % self.group:
            raise ShapeError(f"Wrong group size. Got group {self.group!r} and shape {shape!r}: group divides axis 1.")
        return [shape]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x = bottom[0]
        groups = x.reshape(x.shape[0], self.group, x.shape[1] // self.group, -1)
        return [groups.transpose(1, 2).reshape(x.shape)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        _, channels, *spatial = self.bottom_shapes[0]
        groups = g.reshape(bottom[0], (0, self.group, channels // self.group, *spatial))
        dealt = g.op("Transpose", groups, perm=[0, 2, 1, *range(3, 3 + len(spatial))])
        return [g.reshape(dealt, (-1, channels, *spatial))]
