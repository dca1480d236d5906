"""Accuracy: the share of predictions whose true class is among the top_k."""

from __future__ import annotations

import math

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._loss import (
    ONNX_FLOAT,
    fold,
    fold_with_labels,
    ignored_label,
    integer_labels,
    lower_labels,
    lower_total,
)
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["AccuracyLayer"]


@register_layer("Accuracy")
class AccuracyLayer(Layer):
    """acc = correct / counted, where a prediction is correct if fewer than `top_k` other classes score as high.

    So ties count against the prediction: scores that are all equal are wrong unless top_k is the number of classes.

    bottom: scores (N, C, H, W) with the classes on `axis` (default 1); labels, N * H * W of them in any shape.
    top: a scalar; the optional second top holds the accuracy of each class, (C,), 0 for a class without labels.

    Labels equal to `ignore_label` do not count; with no label left the accuracy is 0. There is no backward: the
    original stops where one is asked for, here that is a LayerError, and `force_backward` leaves this layer out. As in
    accuracy_layer.cpp.
    """

    exact_num_bottom_blobs = 2
    min_top_blobs = 1
    max_top_blobs = 2

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.accuracy_param
        self.top_k = int(param.top_k)
        self.axis = int(param.axis)
        self.ignore = ignored_label(param)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        classes = math.prod(bottom[0]) // max(math.prod(bottom[1]), 1)
        if self.top_k > classes:
            raise ShapeError(
                f"Check failed: top_k_ <= bottom[0]->count() / bottom[1]->count() ({self.top_k} vs. {classes}) top_k "
                f"must be less than or equal to the number of classes. Got shapes {bottom[0]!r} and {bottom[1]!r}."
            )
        folded = fold_with_labels(bottom[0], bottom[1], self.axis, "label")
        return [(), (folded.classes,)][: self.num_top]

    def allow_force_backward(self, bottom_index: int) -> bool:
        return False

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        outer, classes, inner = fold(tuple(bottom[0].shape), self.axis)
        scores = bottom[0].detach().reshape(outer, classes, inner)
        index, valid = integer_labels(bottom[1].reshape(outer, 1, inner), classes, self.ignore)
        counted = torch.ones_like(index) if valid is None else valid.to(torch.int64)
        rivals = (scores >= scores.gather(1, index)).sum(1, keepdim=True)  # the true class is one of them
        correct = (rivals <= self.top_k) * counted
        tops = [(correct.sum() / counted.sum().clamp(min=1)).to(scores.dtype)]
        if self.num_top > 1:
            none = torch.zeros(classes, dtype=torch.int64, device=scores.device)
            hits = none.index_add(0, index.reshape(-1), correct.reshape(-1))
            labels = none.index_add(0, index.reshape(-1), counted.reshape(-1))
            tops.append((hits / labels.clamp(min=1)).to(scores.dtype))
        return tops

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Raises LayerError where a gradient is asked for."""
        if any(propagate_down):
            raise self.error(f"Not Implemented Yet: {self.type} Layer has no backward.")
        return [None, None], []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        _, classes, inner = fold(self.bottom_shapes[0], self.axis)
        scores = g.reshape(bottom[0], (-1, classes, inner))
        index, counted = lower_labels(g, bottom[1], (-1, 1, inner), classes, self.ignore)
        as_high = g.op("GreaterOrEqual", scores, g.op("GatherElements", scores, index, axis=1))
        rivals = g.op("ReduceSum", g.op("Cast", as_high, to=ONNX_FLOAT), g.shape((1,)), keepdims=1)
        correct = g.op("Cast", g.op("LessOrEqual", rivals, g.constant(float(self.top_k))), to=ONNX_FLOAT)
        if counted is None:
            count = g.op("Cast", g.op("Size", correct), to=ONNX_FLOAT)
        else:
            correct = g.op("Mul", correct, counted)
            count = lower_total(g, counted)
        one = g.constant(1.0)
        tops = [g.op("Div", lower_total(g, correct), g.op("Max", count, one))]
        if self.num_top > 1:
            flat = g.reshape(index, (-1,))
            member = g.op("OneHot", flat, g.constant(classes, np.int64), g.constant((0.0, 1.0)), axis=-1)
            if counted is not None:
                member = g.op("Mul", member, g.reshape(counted, (-1, 1)))
            hits = g.op("ReduceSum", g.op("Mul", member, g.reshape(correct, (-1, 1))), g.shape((0,)), keepdims=0)
            labels = g.op("ReduceSum", member, g.shape((0,)), keepdims=0)
            tops.append(g.op("Div", hits, g.op("Max", labels, one)))
        return tops
