"""HingeLoss: one-versus-all hinge loss."""

from __future__ import annotations

import math

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import LossLayer
from pycaffe.layers._loss import check_first_dimension, integer_labels, lower_labels, refuse_label_gradient
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["HingeLossLayer"]

L1, L2 = 1, 2  # HingeLossParameter.Norm


@register_layer("HingeLoss")
class HingeLossLayer(LossLayer):
    """loss = 1/N * sum over items and classes of max(0, 1 - s * x)^p, s = 1 at the item's label and -1 elsewhere.

    bottom: scores (N, ...), all elements of an item being its classes; labels, of which the first N count.
    top: a scalar.

    `hinge_loss_param.norm`: L1 (default, p = 1) or L2 (p = 2). As in hinge_loss_layer.cpp.

    Raises:
        InputError: a label is outside the classes.
    """

    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        self.norm = int(self.layer_param.hinge_loss_param.norm)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        check_first_dimension(bottom)
        if math.prod(bottom[1]) < bottom[0][0]:
            raise ShapeError(f"{bottom[0][0]} items need as many labels. Got shapes {bottom[0]!r} and {bottom[1]!r}.")
        return [()]

    def _signs_and_margins(self, bottom: list[Tensor]) -> tuple[Tensor, Tensor]:
        scores = bottom[0].reshape(bottom[0].shape[0], -1)
        labels = bottom[1].reshape(-1, 1)[: scores.shape[0]]
        index, _ = integer_labels(labels, scores.shape[1], None)
        signs = torch.ones_like(scores).scatter(1, index, -1.0)
        return signs, torch.relu(1 + signs * scores)

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        _, margins = self._signs_and_margins(bottom)
        total = margins.sum() if self.norm == L1 else (margins * margins).sum()
        return [total / bottom[0].shape[0]]

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """The derivative; refuses labels."""
        refuse_label_gradient(self, propagate_down)
        signs, margins = self._signs_and_margins(bottom)
        slope = torch.sign(margins) if self.norm == L1 else 2 * margins
        return [(signs * slope * (top_diff[0] / bottom[0].shape[0])).reshape(bottom[0].shape), None], []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        scores_shape, label_shape = self.bottom_shapes
        classes = math.prod(scores_shape[1:])
        scores, labels = g.reshape(bottom[0], (-1, classes)), bottom[1]
        if math.prod(label_shape) != scores_shape[0]:
            labels = g.op("Slice", g.reshape(labels, (-1,)), g.shape((0,)), g.shape((scores_shape[0],)))
        index, _ = lower_labels(g, labels, (-1, 1), classes, None)
        true = g.op("GatherElements", scores, index, axis=1)
        one = g.constant(1.0)
        others = g.op(
            "Relu", g.op("Add", scores, one)
        )  # every class as if it were wrong; the true one is put right below
        wrong, right = g.op("Relu", g.op("Add", true, one)), g.op("Relu", g.op("Sub", one, true))
        if self.norm == L2:
            others, wrong, right = (g.op("Mul", value, value) for value in (others, wrong, right))
        sums = g.op("ReduceSum", others, g.shape((1,)), keepdims=1)
        return [g.op("ReduceMean", g.op("Add", sums, g.op("Sub", right, wrong)), keepdims=0)]
