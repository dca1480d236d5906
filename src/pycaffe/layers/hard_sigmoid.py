"""HardSigmoid: a sigmoid of three straight pieces."""

from __future__ import annotations

from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor

__all__ = ["HardSigmoidLayer"]


@register_layer("HardSigmoid")
class HardSigmoidLayer(NeuronLayer):
    """y = min(max(alpha * x + beta, 0), 1).

    bottom, top: any shape. `hardsigmoid_param { alpha: 0.2 beta: 0.5 }`.

    backward: as in hard_sigmoid_layer.cpp of MobileNet-YOLO, dx = alpha * dy everywhere, also where y is 0 or 1: it
    asks whether y, not x, lies within -2.5 ... 2.5.
    """

    origin = "MobileNet"
    checked_by = "MobileNet-YOLO"

    def setup(self, bottom: list[tuple[int, ...]]) -> None:
        param = self.layer_param.hardsigmoid_param
        self.alpha: float = param.alpha
        self.beta: float = param.beta

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [(bottom[0] * self.alpha + self.beta).clamp(0, 1)]

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        return [top_diff[0] * self.alpha], []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("HardSigmoid", bottom[0], alpha=self.alpha, beta=self.beta)]
