"""Exp: base to the power of a linear function."""

from __future__ import annotations

import math

from pycaffe.blob import Shape
from pycaffe.errors import LayerError
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["ExpLayer", "log_of_base"]


@register_layer("Exp")
class ExpLayer(NeuronLayer):
    """y = base ^ (shift + scale * x), computed as exp(log(base) * scale * x) * base ^ shift.

    bottom, top: any shape. `exp_param { base: -1 scale: 1 shift: 0 }`; base -1 stands for e (exp_layer.cpp).

    Raises:
        LayerError: base is neither -1 nor a finite positive number.
    """

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.exp_param
        log_base = log_of_base(param.base)
        self.inner_scale: float = log_base * param.scale
        exponent = log_base * param.shift
        try:
            self.outer_scale = math.exp(exponent)
        except OverflowError:
            self.outer_scale = math.inf

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x = bottom[0] if self.inner_scale == 1 else bottom[0] * self.inner_scale
        y = torch.exp(x)
        return [y if self.outer_scale == 1 else y * self.outer_scale]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        x = bottom[0] if self.inner_scale == 1 else g.op("Mul", bottom[0], g.constant(self.inner_scale))
        y = g.op("Exp", x)
        return [y if self.outer_scale == 1 else g.op("Mul", y, g.constant(self.outer_scale))]


def log_of_base(base: float) -> float:
    """log(base), and exactly 1 for the default base -1, which stands for e. Exp and Log share it.

    Raises:
        LayerError: base is neither -1 nor a finite positive number.
    """
    if base == -1:
        return 1.0
    if not base > 0:
        raise LayerError(f"base must be strictly positive. Got {base!r}; -1 stands for e.")
    if math.isinf(base):
        raise LayerError(f"Inf result: log(base) = log({base!r}) = inf. Give a finite base.")
    return math.log(base)
