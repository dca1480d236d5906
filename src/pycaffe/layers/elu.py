"""ELU: the exponential linear unit."""

from __future__ import annotations

from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch


@register_layer("ELU")
class ELULayer(NeuronLayer):
    """y = x for x > 0, else alpha * (exp(x) - 1).

    bottom, top: any shape. `elu_param { alpha: 1 }`. The gradient at 0 is that of the left side, alpha (elu_layer.cpp).
    """

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [torch.nn.functional.elu(bottom[0], alpha=self.layer_param.elu_param.alpha)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("Elu", bottom[0], alpha=self.layer_param.elu_param.alpha)]
