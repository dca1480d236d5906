"""ContinuationIndicator: where sequences begin."""

from __future__ import annotations

import numpy as np

from pycaffe.blob import FloatArray, Shape
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["ContinuationIndicatorLayer"]


@register_layer("ContinuationIndicator")
class ContinuationIndicatorLayer(Layer):
    """The second bottom of an LSTM whose sequences all begin at the first step: 0 at step 0, else 1.

    No bottom.  top: (T, N). `continuation_indicator_param { time_step: T batch_size: N }`, both needed.
    As in continuation_indicator_layer.cpp of caffe_ocr.

    Raises:
        LayerError: T or N is 0.
    """

    origin = "caffe_ocr"
    checked_by = "NumPy loop"
    exact_num_bottom_blobs = 0
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.continuation_indicator_param
        self.shape: Shape = (param.time_step, param.batch_size)
        if param.batch_size <= 0:
            raise self.error(f"The batch size should be greater than 0. Got batch_size {param.batch_size!r}.")
        if param.time_step <= 0:
            raise self.error(f"The time step should be greater than 0. Got time_step {param.time_step!r}.")

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        return [self.shape]

    def _values(self) -> FloatArray:
        values = np.ones(self.shape, np.float32)
        values[0] = 0
        return values

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [torch.from_numpy(self._values())]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("Identity", g.constant(self._values()))]
