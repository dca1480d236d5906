"""ReLU6: the rectified linear unit that ends at 6."""

from __future__ import annotations

from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["ReLU6Layer"]

LIMIT = 6.0


@register_layer("ReLU6")
class ReLU6Layer(NeuronLayer):
    """y = min(max(x, 0) + negative_slope * min(x, 0), 6).

    bottom, top: any shape. `relu6_param { negative_slope: 0 }`. No gradient passes from x = 6 on; at 0 it is that of
    the left side (relu6_layer.cpp of MobileNet-YOLO).
    """

    origin = "MobileNet"
    checked_by = "MobileNet-YOLO"

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        slope = self.layer_param.relu6_param.negative_slope
        if not slope:
            return [torch.nn.functional.relu6(bottom[0])]
        x = bottom[0]
        y = torch.nn.functional.leaky_relu(x, slope)
        return [torch.where(x >= LIMIT, LIMIT, y).clamp(max=LIMIT)]  # a slope below 0 reaches the limit on the left

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        slope = self.layer_param.relu6_param.negative_slope
        if not slope:
            return [g.op("Clip", bottom[0], g.constant(0.0), g.constant(LIMIT))]
        return [g.op("Min", g.op("LeakyRelu", bottom[0], alpha=slope), g.constant(LIMIT))]
