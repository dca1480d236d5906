"""Log: the logarithm of a linear function."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch
from pycaffe.layers.exp import log_of_base


@register_layer("Log")
class LogLayer(NeuronLayer):
    """y = log(shift + scale * x) / log(base).

    bottom, top: any shape. `log_param { base: -1 scale: 1 shift: 0 }`; base -1 stands for e (log_layer.cpp).

    Raises:
        LayerError: base is neither -1 nor a finite positive number, or it is 1.
    """

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.log_param
        log_base = log_of_base(param.base)
        if log_base == 0:
            raise self.error(f"Inf result: 1/log(base) = 1/log({param.base!r}) = inf. Give a base other than 1.")
        self.base_scale = 1 / log_base
        self.scale: float = param.scale
        self.shift: float = param.shift

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x = bottom[0] if self.scale == 1 else bottom[0] * self.scale
        y = torch.log(x if self.shift == 0 else x + self.shift)
        return [y if self.base_scale == 1 else y * self.base_scale]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        x = bottom[0] if self.scale == 1 else g.op("Mul", bottom[0], g.constant(self.scale))
        y = g.op("Log", x if self.shift == 0 else g.op("Add", x, g.constant(self.shift)))
        return [y if self.base_scale == 1 else g.op("Mul", y, g.constant(self.base_scale))]
