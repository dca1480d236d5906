"""Softmax: scores become probabilities."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.layers._base import Layer, canonical_axis
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch


@register_layer("Softmax")
class SoftmaxLayer(Layer):
    """y = exp(x) / sum exp(x), summed along an axis; the maximum is subtracted first, so that nothing overflows.

    bottom, top: any shape with the axis. `softmax_param { axis: 1 }` (softmax_layer.cpp).

    Raises:
        LayerError: the axis is out of range.
    """

    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        self.axis = canonical_axis(self.layer_param.softmax_param.axis, len(bottom[0]))
        return [bottom[0]]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [torch.softmax(bottom[0], self.axis)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("Softmax", bottom[0], axis=self.axis)]
