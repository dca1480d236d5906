"""HardSwish: the bottom gated by a sigmoid of three straight pieces."""

from __future__ import annotations

from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["HardSwishLayer"]


@register_layer("HardSwish")
class HardSwishLayer(NeuronLayer):
    """y = x * min(max(x / 6 + 1/2, 0), 1) (Howard et al. 2019, MobileNetV3).

    bottom, top: any shape. No parameters.
    """

    origin = "MobileNetV3"
    checked_by = "NumPy loop"

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [torch.nn.functional.hardswish(bottom[0])]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("HardSwish", bottom[0])]
