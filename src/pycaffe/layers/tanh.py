"""TanH: the hyperbolic tangent."""

from __future__ import annotations

from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch


@register_layer("TanH")
class TanHLayer(NeuronLayer):
    """y = tanh(x).

    bottom, top: any shape (tanh_layer.cpp).
    """

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [torch.tanh(bottom[0])]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("Tanh", bottom[0])]
