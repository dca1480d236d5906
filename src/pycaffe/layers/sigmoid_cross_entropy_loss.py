"""SigmoidCrossEntropyLoss: cross-entropy of independent probabilities, from their logits."""

from __future__ import annotations

import math

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import LossLayer
from pycaffe.layers._loss import (
    BATCH_SIZE,
    ONNX_FLOAT,
    ONNX_INT64,
    Normalization,
    check_first_dimension,
    ignored_label,
    lower_total,
    refuse_label_gradient,
)
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["SigmoidCrossEntropyLossLayer"]


@register_layer("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLossLayer(LossLayer):
    """loss = -1/Z * sum(t * log(s) + (1 - t) * log(1 - s)), s = sigmoid(x), computed so that it never overflows.

    bottom: logits x (N, ...); targets t in [0, 1], as many, with first extent N.
    top: a scalar.

    Z by `loss_param.normalization`: FULL counts elements, VALID those whose target, cut to an integer, is not
    `ignore_label`, BATCH_SIZE (default) is N, NONE is 1; never below 1. The old flag `normalize` means VALID or
    BATCH_SIZE.

    backward: (s - t) / Z, 0 where ignored. As in sigmoid_cross_entropy_loss_layer.cpp.
    """

    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        self.ignore = ignored_label(self.layer_param.loss_param)
        self.normalization = Normalization(self.layer_param.loss_param, BATCH_SIZE)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        check_first_dimension(bottom)
        counts = [math.prod(shape) for shape in bottom]
        if counts[0] != counts[1]:
            raise ShapeError(
                f"Check failed: bottom[0]->count() == bottom[1]->count() ({counts[0]} vs. {counts[1]}) "
                "SIGMOID_CROSS_ENTROPY_LOSS layer inputs must have the same count. Got shapes "
                f"{bottom[0]!r} and {bottom[1]!r}."
            )
        return [()]

    def _valid(self, targets: Tensor) -> Tensor | None:
        return None if self.ignore is None else targets.to(torch.int64) != self.ignore

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        logits, targets = bottom[0], bottom[1].detach().reshape(bottom[0].shape)
        valid = self._valid(targets)
        terms = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        if valid is not None:
            terms = torch.where(valid, terms, torch.zeros_like(terms))
        return [terms.sum() / self._divisor(logits, valid)]

    def _divisor(self, logits: Tensor, valid: Tensor | None) -> Tensor | float:
        return self.normalization.divisor(logits.shape[0], math.prod(logits.shape[1:]), valid)

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """The derivative; refuses targets."""
        refuse_label_gradient(self, propagate_down)
        targets = bottom[1].reshape(bottom[0].shape)
        valid = self._valid(targets)
        diff = torch.sigmoid(bottom[0]) - targets
        if valid is not None:
            diff = torch.where(valid, diff, torch.zeros_like(diff))
        return [diff * (top_diff[0] / self._divisor(bottom[0], valid)), None], []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        shape, other = self.bottom_shapes
        logits = bottom[0]
        targets = bottom[1] if shape == other else g.reshape(bottom[1], (-1, *shape[1:]))
        linear = g.op("Sub", g.op("Relu", logits), g.op("Mul", logits, targets))
        terms = g.op("Add", linear, g.op("Softplus", g.op("Neg", g.op("Abs", logits))))
        valid = None
        if self.ignore is not None:
            label = g.op("Cast", targets, to=ONNX_INT64)
            ignored = g.op("Equal", label, g.constant(self.ignore, np.int64))
            terms = g.op("Where", ignored, g.constant(0.0), terms)
            valid = g.op("Cast", g.op("Not", ignored), to=ONNX_FLOAT)
        divisor = self.normalization.lower(g, terms, math.prod(shape[1:]), valid)
        return [g.op("Div", lower_total(g, terms), divisor)]
