"""Swish: the bottom gated by its own sigmoid."""

from __future__ import annotations

from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch


@register_layer("Swish")
class SwishLayer(NeuronLayer):
    """y = x * sigmoid(beta * x) (Ramachandran, Zoph and Le 2017).

    bottom, top: any shape. `swish_param { beta: 1 }` (swish_layer.cpp).
    """

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x = bottom[0]
        return [x * torch.sigmoid(x * self.layer_param.swish_param.beta)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        beta = self.layer_param.swish_param.beta
        x = bottom[0]
        return [g.op("Mul", x, g.op("Sigmoid", x if beta == 1 else g.op("Mul", x, g.constant(beta))))]
