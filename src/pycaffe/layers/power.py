"""Power: a power of a linear function."""

from __future__ import annotations

import numpy as np

from pycaffe.blob import Shape
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch


@register_layer("Power")
class PowerLayer(NeuronLayer):
    """y = (shift + scale * x) ^ power.

    bottom, top: any shape. `power_param { power: 1 scale: 1 shift: 0 }`. With power or scale 0 the bottom is not looked
    at: y is 1 for power 0, else shift ^ power, and the gradient is 0 (power_layer.cpp).

    The original computes the gradient of other powers than 0, 1 and 2 as power * scale * y / (shift + scale * x), which
    is NaN where shift + scale * x is 0; here it is the derivative there, too.
    """

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.power_param
        self.power: float = param.power
        self.scale: float = param.scale
        self.shift: float = param.shift

    @property
    def _constant(self) -> float | None:
        """The value of every element where it does not depend on the bottom."""
        if self.power != 0 and self.scale != 0:
            return None
        with np.errstate(all="ignore"):  # 0 ^ -1 is inf and (-1) ^ 0.5 is NaN, as with C's pow
            return float(np.power(np.float64(self.shift), self.power))

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        value = self._constant
        if value is not None:
            return [torch.full_like(bottom[0], value)]
        y = bottom[0] if self.scale == 1 else bottom[0] * self.scale
        if self.shift != 0:
            y = y + self.shift
        if self.power != 1:
            y = y**self.power
        return [y.view_as(y)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        value = self._constant
        if value is not None:
            return [g.op("Expand", g.constant(value), g.op("Shape", bottom[0]))]
        y = bottom[0] if self.scale == 1 else g.op("Mul", bottom[0], g.constant(self.scale))
        if self.shift != 0:
            y = g.op("Add", y, g.constant(self.shift))
        if self.power != 1:
            y = g.op("Pow", y, g.constant(self.power))
        return [y if y != bottom[0] else g.op("Identity", y)]
