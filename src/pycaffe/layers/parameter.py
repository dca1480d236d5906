"""Parameter: a learnable blob as a top."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor


@register_layer("Parameter")
class ParameterLayer(Layer):
    """Its only blob is its top, so that other layers can compute with it.

    no bottom; top and blobs: `parameter_param { shape { dim: D ... } }`, zeros at first (parameter_layer.hpp).

    backward: the blob's diff accumulates the top's. The original shares the two instead, so that there a second
    backward overwrites the first.
    """

    exact_num_bottom_blobs = 0
    exact_num_top_blobs = 1
    checked_by = "NumPy loop"

    def setup(self, bottom: list[Shape]) -> None:
        self.add_blob(tuple(self.layer_param.parameter_param.shape.dim))

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        return [self.blobs[0].shape]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [params[0].view_as(params[0])]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("Identity", params[0])]
