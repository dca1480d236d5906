"""Clip: limits values to a range."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor


@register_layer("Clip")
class ClipLayer(NeuronLayer):
    """y = max(min, min(x, max)).

    bottom, top: any shape. `clip_param { min max }`, both required. The gradient passes for min <= x <= max, the bounds
    included (clip_layer.cpp); with min > max every y is min.

    Raises:
        LayerError: min or max is missing.
    """

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.clip_param
        if not (param.HasField("min") and param.HasField("max")):
            raise self.error(f"clip_param needs min and max. Got {str(param).split()!r}.")
        self.low: float = param.min
        self.high: float = param.max

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        # Two steps: clamp(min, max) would give max where min > max.
        return [bottom[0].clamp(max=self.high).clamp(min=self.low)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        if self.low > self.high:
            return [g.op("Max", g.op("Min", bottom[0], g.constant(self.high)), g.constant(self.low))]
        return [g.op("Clip", bottom[0], g.constant(self.low), g.constant(self.high))]
