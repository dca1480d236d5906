"""Sigmoid: the logistic function."""

from __future__ import annotations

from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch


@register_layer("Sigmoid")
class SigmoidLayer(NeuronLayer):
    """y = 1 / (1 + exp(-x)), which the original writes as 0.5 * tanh(0.5 * x) + 0.5 in double (sigmoid_layer.cpp).

    bottom, top: any shape.
    """

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        # Not the tanh form: in float32 it cancels for x < -10, which the original's double does not.
        return [torch.sigmoid(bottom[0])]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("Sigmoid", bottom[0])]
