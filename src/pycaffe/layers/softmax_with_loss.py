"""SoftmaxWithLoss: multinomial logistic loss of the softmax of scores."""

from __future__ import annotations

import math

from pycaffe.blob import Shape
from pycaffe.layers._base import LossLayer, canonical_axis
from pycaffe.layers._loss import (
    VALID,
    Normalization,
    check_first_dimension,
    fold,
    fold_with_labels,
    ignored_label,
    integer_labels,
    lower_labels,
    lower_total,
    refuse_label_gradient,
)
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["SoftmaxWithLossLayer"]

LOG_SMALLEST = math.log(1.17549435e-38)  # FLT_MIN: the probability below which the original clips


@register_layer("SoftmaxWithLoss")
class SoftmaxWithLossLayer(LossLayer):
    """loss = -1/Z * sum over positions of log(max(p[label], FLT_MIN)), p = softmax of the scores along `axis`.

    bottom: scores (N, C, H, W) with the classes on `softmax_param.axis` (default 1); labels, N * H * W in any shape
        with first extent N.
    top: a scalar; the optional second top is p, (N, C, H, W), through which no gradient flows.

    Z by `loss_param.normalization`: FULL counts positions, VALID (default) those not labelled `ignore_label`,
    BATCH_SIZE the extents before the axis, NONE is 1; never below 1. The old flag `normalize` means VALID or
    BATCH_SIZE.

    backward: (p - onehot(label)) / Z, also where the loss is clipped; 0 where ignored. As in softmax_loss_layer.cpp,
    which aborts with two tops on its check of the loss weights; here the second top has weight 0.

    Raises:
        InputError: a label is outside 0 .. C - 1.
    """

    min_top_blobs = 1
    max_top_blobs = 2

    def setup(self, bottom: list[Shape]) -> None:
        self.axis = int(self.layer_param.softmax_param.axis)
        self.ignore = ignored_label(self.layer_param.loss_param)
        self.normalization = Normalization(self.layer_param.loss_param, VALID)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        check_first_dimension(bottom)
        fold_with_labels(bottom[0], bottom[1], self.axis, "softmax")
        return [(), bottom[0]][: self.num_top]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        outer, classes, inner = fold(tuple(bottom[0].shape), self.axis)
        index, valid = integer_labels(bottom[1].reshape(outer, 1, inner), classes, self.ignore)
        log_prob = torch.log_softmax(bottom[0].reshape(outer, classes, inner), 1)
        terms = log_prob.gather(1, index).clamp(min=LOG_SMALLEST)
        if valid is not None:
            terms = torch.where(valid, terms, torch.zeros_like(terms))
        tops = [-terms.sum() / self.normalization.divisor(outer, inner, valid)]
        if self.num_top > 1:
            tops.append(torch.softmax(bottom[0].detach(), self.axis))
        return tops

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """(p - onehot) / Z: differs from the derivative where the loss is clipped, and drops the second top's diff."""
        refuse_label_gradient(self, propagate_down)
        if not propagate_down[0]:
            return [None, None], []
        outer, classes, inner = fold(tuple(bottom[0].shape), self.axis)
        index, valid = integer_labels(bottom[1].reshape(outer, 1, inner), classes, self.ignore)
        diff = torch.softmax(bottom[0].reshape(outer, classes, inner), 1)
        diff.scatter_add_(1, index, torch.full_like(index, -1, dtype=diff.dtype))
        if valid is not None:
            diff = torch.where(valid, diff, torch.zeros_like(diff))
        diff = diff * (top_diff[0] / self.normalization.divisor(outer, inner, valid))
        return [diff.reshape(bottom[0].shape), None], []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        axis = canonical_axis(self.axis, len(self.bottom_shapes[0]))
        _, classes, inner = fold(self.bottom_shapes[0], axis)
        index, valid = lower_labels(g, bottom[1], (-1, 1, inner), classes, self.ignore)
        log_prob = g.reshape(g.op("LogSoftmax", bottom[0], axis=axis), (-1, classes, inner))
        terms = g.op("Max", g.op("GatherElements", log_prob, index, axis=1), g.constant(LOG_SMALLEST))
        if valid is not None:
            terms = g.op("Mul", terms, valid)
        divisor = self.normalization.lower(g, terms, inner, valid)
        tops = [g.op("Neg", g.op("Div", lower_total(g, terms), divisor))]
        if self.num_top > 1:
            tops.append(g.op("Softmax", bottom[0], axis=axis))
        return tops
