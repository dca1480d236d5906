"""AbsVal: the absolute value."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer, refuse_in_place
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor


@register_layer("AbsVal")
class AbsValLayer(NeuronLayer):
    """y = |x|; the gradient at 0 is 0.

    bottom, top: any shape; not in place (absval_layer.cpp).

    Raises:
        LayerError: the top is the bottom.
    """

    def setup(self, bottom: list[Shape]) -> None:
        refuse_in_place(self)

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [bottom[0].abs()]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("Abs", bottom[0])]
