"""Threshold: which values lie above a bound."""

from __future__ import annotations

from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor


@register_layer("Threshold")
class ThresholdLayer(NeuronLayer):
    """y = 1 where x > threshold, else 0.

    bottom, top: any shape. `threshold_param { threshold: 0 }` (threshold_layer.cpp). It has no backward: as in the
    original, a gradient that should pass through it is an error; but `force_backward`, which is one there, stops here.

    Raises:
        LayerError: backward is asked for.
    """

    def allow_force_backward(self, bottom_index: int) -> bool:
        return False

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [(bottom[0] > self.layer_param.threshold_param.threshold).to(bottom[0].dtype)]

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        if propagate_down[0]:
            raise self.error("Not Implemented Yet: Threshold has no gradient. Set propagate_down: false in this layer.")
        return [None], []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        from onnx import TensorProto

        above = g.op("Greater", bottom[0], g.constant(self.layer_param.threshold_param.threshold))
        return [g.op("Cast", above, to=TensorProto.FLOAT)]
