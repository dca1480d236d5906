"""BNLL: the binomial normal log likelihood, better known as softplus."""

from __future__ import annotations

from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

_THRESHOLD = 50.0


@register_layer("BNLL")
class BNLLLayer(NeuronLayer):
    """y = log(1 + exp(x)), written so that a large x does not overflow: x + log(1 + exp(-x)) for x > 0.

    bottom, top: any shape. The gradient is exp(x) / (1 + exp(x)) with x cut at 50 (bnll_layer.cpp).
    """

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        # Above the threshold y = x in float32; it is the original's own in backward.
        return [torch.nn.functional.softplus(bottom[0], threshold=_THRESHOLD)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("Softplus", bottom[0])]
