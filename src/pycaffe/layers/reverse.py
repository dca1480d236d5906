"""Reverse: axes backwards."""

from __future__ import annotations

import numpy as np

from pycaffe.blob import Shape
from pycaffe.layers._base import canonical_axis
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer, refuse_in_place
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor

__all__ = ["ReverseLayer"]


@register_layer("Reverse")
class ReverseLayer(NeuronLayer):
    """y[..., i, ...] = x[..., extent - 1 - i, ...] along each given axis; makes an LSTM bidirectional.

    bottom, top: any shape. `reverse_param { axis: 0 }`, once or for several axes. As in reverse_layer.cpp of caffe_ocr.

    Raises:
        LayerError: an axis is out of range or given twice, or the top is the bottom.
    """

    origin = "caffe_ocr"
    checked_by = "NumPy loop"

    def setup(self, bottom: list[Shape]) -> None:
        refuse_in_place(self)
        given = list(self.layer_param.reverse_param.axis) or [0]
        self.axes = [canonical_axis(axis, len(bottom[0])) for axis in given]
        if len(set(self.axes)) < len(self.axes):
            raise self.error(f"Reverse names an axis once. Got axis {given!r} for shape {bottom[0]!r}.")

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [bottom[0].flip(self.axes)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        count, lowest = len(self.axes), int(np.iinfo(np.int64).min)
        starts, ends, steps = g.shape([-1] * count), g.shape([lowest] * count), g.shape([-1] * count)
        return [g.op("Slice", bottom[0], starts, ends, g.shape(self.axes), steps)]
