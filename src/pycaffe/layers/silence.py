"""Silence: reads blobs, so that they are no outputs of the net."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch


@register_layer("Silence")
class SilenceLayer(Layer):
    """Does nothing.

    bottom: one or more blobs of any shape; no top. Their gradients are zeros (silence_layer.cpp).
    """

    min_bottom_blobs = 1
    exact_num_top_blobs = 0
    checked_by = "NumPy loop"

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        return []

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return []

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        return [torch.zeros_like(x) if wanted else None for x, wanted in zip(bottom, propagate_down)], []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return []
