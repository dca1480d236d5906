"""SoftmaxWithLoss: multinomial logistic loss of the softmax of scores."""

from __future__ import annotations

import math

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import LossLayer, canonical_axis
from pycaffe.layers._loss import (
    VALID,
    Folded,
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

NO_LABEL = 2**62 + 1  # no label is this, since no float32 is
LOG_SMALLEST = math.log(1.17549435e-38)  # FLT_MIN: the probability below which the original clips


@register_layer("SoftmaxWithLoss")
class SoftmaxWithLossLayer(LossLayer):
    """loss = -1/Z * sum over positions of w[label] * log(max(p[label], FLT_MIN)), p = softmax of the scores on `axis`.

    bottom: scores (N, C, H, W) with the classes on `softmax_param.axis` (default 1); labels, N * H * W in any shape
        with first extent N.
    top: a scalar; optionally p, (N, C, H, W); optionally, as in R-FCN, each position's term of the sum, of the labels'
        shape. No gradient flows through the second and third.

    Z by `loss_param.normalization`: FULL counts positions, VALID (default) those not labelled `ignore_label`,
    BATCH_SIZE the extents before the axis, NONE is 1; never below 1. The old flag `normalize` means VALID or
    BATCH_SIZE. All w are 1, or with SegNet's `weight_by_label_freqs: true` one `class_weighting` a class; they do not
    change Z.

    The gradient is w[label] * (p - onehot(label)) / Z, also where the loss is clipped; 0 where ignored. As in
    softmax_loss_layer.cpp, which aborts with two tops on its check of the loss weights; here the second top has
    weight 0.

    Raises:
        InputError: a label is outside 0 .. C - 1.
        LayerError: a gradient of the labels is asked for; the original says so in backward, here it is the forward
            that backward will need.
        ShapeError: there is not one label a position, or not one weight a class.
    """

    min_top_blobs = 1
    max_top_blobs = 3
    computes_tops = True

    def setup(self, bottom: list[Shape]) -> None:
        self.axis = int(self.layer_param.softmax_param.axis)
        param = self.layer_param.loss_param
        self.ignore = ignored_label(param)
        self.normalization = Normalization(param, VALID)
        self.weights = list(param.class_weighting) if param.weight_by_label_freqs else None

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        check_first_dimension(bottom)
        classes = fold_with_labels(bottom[0], bottom[1], self.axis, "softmax").classes
        if self.weights is not None and len(self.weights) != classes:
            raise ShapeError(
                f"Check failed: class_weighting_size() == bottom[0]->channels() ({len(self.weights)} vs. {classes}) "
                f"Number of class weight values does not match the number of classes. Got shape {bottom[0]!r}."
            )
        return [(), bottom[0], bottom[1]][: self.num_top]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        if bottom[1].requires_grad:
            refuse_label_gradient(self, [True, True])
        (outer, classes, inner), scores, labels = self._by_class(bottom)
        index = self._indices(labels, classes)
        terms = self._terms(torch.log_softmax(scores, 1), index)
        valid = None if self.ignore is None else index != self.ignore
        tops = [terms.sum() / self.normalization.divisor(outer, inner, valid)]
        if self.num_top > 1:
            tops.append(torch.softmax(bottom[0].detach(), self.axis))
        if self.num_top > 2:
            tops.append(terms.detach().reshape(bottom[1].shape))
        return tops

    def _by_class(self, bottom: list[Tensor]) -> tuple[Folded, Tensor, Tensor]:
        """Scores (outer, classes, inner) and labels (outer, inner), without inner where it is 1: that is faster."""
        folded = outer, classes, inner = fold(tuple(bottom[0].shape), self.axis)
        rest = (inner,) if inner != 1 else ()
        return folded, bottom[0].reshape(outer, classes, *rest), bottom[1].reshape(outer, *rest)

    def _indices(self, labels: Tensor, classes: int) -> Tensor:
        """Labels as integers. On a CPU `nll_loss` looks itself whether they are classes; on a GPU it would abort."""
        if not labels.is_cpu:
            integer_labels(labels, classes, self.ignore)
        return labels.to(torch.int64)

    def _terms(self, log_prob: Tensor, index: Tensor) -> Tensor:
        ignore = NO_LABEL if self.ignore is None else self.ignore
        try:
            terms = torch.nn.functional.nll_loss(log_prob, index, ignore_index=ignore, reduction="none")
        except IndexError:
            integer_labels(index, log_prob.shape[1], self.ignore)  # says it in Caffe's words
            raise
        terms.detach().clamp_(max=-LOG_SMALLEST)  # behind autograd's back: the gradient is that of the unclipped loss
        if self.weights is not None:
            weights = torch.tensor(self.weights, dtype=terms.dtype, device=terms.device)
            terms = terms * weights[index if self.ignore is None else index.where(index != self.ignore, 0)]
        return terms

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        axis = canonical_axis(self.axis, len(self.bottom_shapes[0]))
        _, classes, inner = fold(self.bottom_shapes[0], axis)
        index, valid = lower_labels(g, bottom[1], (-1, 1, inner), classes, self.ignore)
        log_prob = g.reshape(g.op("LogSoftmax", bottom[0], axis=axis), (-1, classes, inner))
        terms = g.op("Neg", g.op("Max", g.op("GatherElements", log_prob, index, axis=1), g.constant(LOG_SMALLEST)))
        if self.weights is not None:
            terms = g.op("Mul", terms, g.op("Gather", g.constant(np.asarray(self.weights)), index, axis=0))
        if valid is not None:
            terms = g.op("Mul", terms, valid)
        divisor = self.normalization.lower(g, terms, inner, valid)
        tops = [g.op("Div", lower_total(g, terms), divisor)]
        if self.num_top > 1:
            tops.append(g.op("Softmax", bottom[0], axis=axis))
        if self.num_top > 2:
            tops.append(g.reshape(terms, (-1, *self.bottom_shapes[1][1:])))
        return tops
