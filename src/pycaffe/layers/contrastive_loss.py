"""ContrastiveLoss: draws similar pairs together and pushes dissimilar ones a margin apart."""

from __future__ import annotations

import math

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import LossLayer
from pycaffe.layers._loss import ONNX_INT64, check_first_dimension, legacy_extents
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["ContrastiveLossLayer"]


@register_layer("ContrastiveLoss")
class ContrastiveLossLayer(LossLayer):
    """loss = 1/(2N) * sum over pairs of y * d^2 + (1 - y) * max(margin - d, 0)^2, d = |a - b|.

    With `legacy_version: true` a dissimilar pair costs max(margin - d^2, 0) instead.

    bottom: a and b (N, C) or (N, C, 1, 1); y (N), similar where its integer part is not 0.
    top: a scalar.

    `contrastive_loss_param`: margin (1), legacy_version (false). backward divides by d + 1e-4 where the derivative
    divides by d. As in contrastive_loss_layer.cpp.
    """

    exact_num_bottom_blobs = 3
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.contrastive_loss_param
        self.margin = float(param.margin)
        self.legacy = bool(param.legacy_version)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        check_first_dimension(bottom)
        (_, channels, *plane), (_, others, *other_plane), pair = (legacy_extents(shape) for shape in bottom)
        extents = [("bottom[1]->channels()", others, channels)]
        extents += [(f"bottom[0]->{name}()", extent, 1) for name, extent in zip(("height", "width"), plane)]
        extents += [(f"bottom[1]->{name}()", extent, 1) for name, extent in zip(("height", "width"), other_plane)]
        extents += [(f"bottom[2]->{name}()", e, 1) for name, e in zip(("channels", "height", "width"), pair[1:])]
        for name, extent, expected in extents:
            if extent != expected:
                raise ShapeError(
                    f"Check failed: {name} == {expected} ({extent} vs. {expected}). Expected (N, C), (N, C) and (N), "
                    f"got shapes {bottom[0]!r}, {bottom[1]!r} and {bottom[2]!r}."
                )
        if math.prod(bottom[2]) != bottom[0][0]:
            raise ShapeError(f"Expected {bottom[0][0]} similarity labels, got shape {bottom[2]!r}.")
        return [()]

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 2

    @staticmethod
    def _pairs(bottom: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Differences (N, C), squared distances (N, 1) and whether pairs are similar (N, 1)."""
        num = bottom[0].shape[0]
        difference = bottom[0].reshape(num, -1) - bottom[1].reshape(num, -1)
        return difference, (difference * difference).sum(1, keepdim=True), bottom[2].reshape(num, 1).trunc() != 0

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        difference, squared, similar = self._pairs(bottom)
        if self.legacy:
            apart = torch.relu(self.margin - squared)
        else:  # the square root of 0 has no derivative
            apart = torch.relu(self.margin - squared.clamp(min=1e-30).sqrt()) ** 2
        return [torch.where(similar, squared, apart).sum() / (2 * difference.shape[0])]

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """As the original, which adds 1e-4 to the distance that it divides by; similarity labels get no diff."""
        difference, squared, similar = self._pairs(bottom)
        if self.legacy:
            slope = torch.where(self.margin - squared > 0, -torch.ones_like(squared), torch.zeros_like(squared))
        else:
            distance = squared.sqrt()
            slope = -torch.relu(self.margin - distance) / (distance + 1e-4)
        slope = torch.where(similar, torch.ones_like(slope), slope)
        diff = slope * difference * (top_diff[0] / difference.shape[0])
        diffs = [diff.reshape(bottom[0].shape), -diff.reshape(bottom[1].shape)]
        return [*(diff if wanted else None for diff, wanted in zip(diffs, propagate_down)), None], []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        channels = math.prod(self.bottom_shapes[0][1:])
        first, second = (g.reshape(value, (-1, channels)) for value in bottom[:2])
        difference = g.op("Sub", first, second)
        squared = g.op("ReduceSum", g.op("Mul", difference, difference), g.shape((1,)), keepdims=0)
        margin = g.constant(self.margin)
        if self.legacy:
            apart = g.op("Relu", g.op("Sub", margin, squared))
        else:
            short = g.op("Relu", g.op("Sub", margin, g.op("Sqrt", squared)))
            apart = g.op("Mul", short, short)
        label = g.op("Cast", g.reshape(bottom[2], (-1,)), to=ONNX_INT64)
        dissimilar = g.op("Equal", label, g.constant(0, np.int64))
        mean = g.op("ReduceMean", g.op("Where", dissimilar, apart, squared), keepdims=0)
        return [g.op("Mul", mean, g.constant(0.5))]
