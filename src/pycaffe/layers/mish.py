"""Mish: the bottom gated by the tanh of its softplus."""

from __future__ import annotations

from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["MishLayer"]


@register_layer("Mish")
class MishLayer(NeuronLayer):
    """y = x * tanh(log(1 + exp(x))) (Misra 2019).

    bottom, top: any shape. No parameters.
    """

    origin = "YOLOv4"
    checked_by = "NumPy loop"

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [torch.nn.functional.mish(bottom[0])]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("Mul", bottom[0], g.op("Tanh", g.op("Softplus", bottom[0])))]
