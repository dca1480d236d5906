"""ReLU: the rectified linear unit, leaky with a negative slope."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch


@register_layer("ReLU")
class ReLULayer(NeuronLayer):
    """y = max(x, 0) + negative_slope * min(x, 0).

    bottom, top: any shape. `relu_param { negative_slope: 0 }`. The gradient at 0 is that of the left side
    (relu_layer.cpp).
    """

    computes_tops = True

    def setup(self, bottom: list[Shape]) -> None:
        self.slope = float(self.layer_param.relu_param.negative_slope)

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [torch.nn.functional.leaky_relu(bottom[0], self.slope) if self.slope else torch.relu(bottom[0])]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("LeakyRelu", bottom[0], alpha=self.slope) if self.slope else g.op("Relu", bottom[0])]
