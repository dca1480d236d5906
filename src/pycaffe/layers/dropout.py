"""Dropout: random elements become zero in training."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycaffe.blob import Shape
from pycaffe.layers._base import TRAIN
from pycaffe.layers._lowering import Lowering, NotLowerable
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch
from pycaffe.rng import child_generator, generator_in_state


@register_layer("Dropout")
class DropoutLayer(NeuronLayer):
    """TRAIN: y = x / (1 - dropout_ratio) with probability 1 - dropout_ratio, else 0. TEST: y = x.

    bottom, top: any shape. `dropout_param { dropout_ratio: 0.5 }`. Every forward draws a new mask from a generator that
    the layer takes at set-up; backward uses the mask of the last forward (dropout_layer.cpp).

    Raises:
        LayerError: dropout_ratio is not in [0, 1).
    """

    checked_by = "reference Caffe; TRAIN: distribution"

    def setup(self, bottom: list[Shape]) -> None:
        self.ratio: float = self.layer_param.dropout_param.dropout_ratio
        if not 0 <= self.ratio < 1:
            raise self.error(f"Check failed: threshold_ < 1. dropout_ratio must be in [0, 1); got {self.ratio!r}.")
        if self.phase == TRAIN:
            self.generator = child_generator()

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x = bottom[0]
        if self.phase != TRAIN:
            return [x.view_as(x)]
        # Drawn with NumPy, so that one seed gives one mask on every device.
        kept = self.generator.random(tuple(x.shape), np.float32) >= self.ratio
        return [x * torch.from_numpy(kept).to(device=x.device, dtype=x.dtype) * (1 / (1 - self.ratio))]

    def state(self) -> dict[str, Any]:
        return {"generator": self.generator.bit_generator.state} if self.phase == TRAIN else {}

    def restore(self, state: dict[str, Any]) -> None:
        self.generator = generator_in_state(state["generator"])

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        if self.phase == TRAIN:  # a layer's own `phase` counts more than the net's
            raise NotLowerable("Dropout: draws random numbers in the TRAIN phase")
        return [g.op("Identity", bottom[0])]
