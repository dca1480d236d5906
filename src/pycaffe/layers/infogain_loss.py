"""InfogainLoss: multinomial logistic loss weighted by a matrix of gains between classes."""

from __future__ import annotations

import math

import numpy as np

from pycaffe.blob import FloatArray, Shape
from pycaffe.errors import ShapeError
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

__all__ = ["InfogainLossLayer"]

LOG_THRESHOLD = math.log(1e-20)  # of kLOG_THRESHOLD, loss_layer.hpp


@register_layer("InfogainLoss")
class InfogainLossLayer(LossLayer):
    """loss = -1/Z * sum over positions and classes k of H[label, k] * log(max(p[k], 1e-20)), p = softmax(x).

    bottom: scores x (N, C, H, W) with the classes on `infogain_loss_param.axis` (default 1); labels, N * H * W in any
        shape with first extent N; optionally H, C * C elements. Without it H is read from the blob file `source`.
    top: a scalar; the optional second top is p, through which no gradient flows.

    Z by `loss_param.normalization` and `ignore_label`, as for SoftmaxWithLoss; the old flag `normalize` is refused.

    backward: (p * sum of H[label] - H[label]) / Z, also where the loss is clipped. Labels and H get none: the original
    stops where one is asked for, here that is a LayerError, and `force_backward` leaves them out. As in
    infogain_loss_layer.cpp.

    Raises:
        InputError: a label is outside 0 .. C - 1.
    """

    exact_num_bottom_blobs = None  # LossLayer: 2
    min_bottom_blobs = 2
    max_bottom_blobs = 3
    min_top_blobs = 1
    max_top_blobs = 2

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.infogain_loss_param
        if self.layer_param.loss_param.HasField("normalize"):
            raise self.error('normalize is deprecated. use "normalization"')
        self.axis = int(param.axis)
        self.ignore = ignored_label(self.layer_param.loss_param)
        self.normalization = Normalization(self.layer_param.loss_param, VALID, legacy=False)
        self.matrix: FloatArray | None = None
        if len(bottom) < 3:
            if not param.HasField("source"):
                raise self.error("Infogain matrix source must be specified. Set `source`, or give a third bottom.")
            from pycaffe.proto.caffemodel import read_blob  # here: few nets have this layer, and all would pay

            self.matrix = np.array(read_blob(param.source), np.float32)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        check_first_dimension(bottom)
        classes = fold_with_labels(bottom[0], bottom[1], self.axis, "infogain").classes
        shape = bottom[2] if self.matrix is None else self.matrix.shape
        if math.prod(shape) != classes * classes:
            raise ShapeError(
                f"Check failed: infogain->count() == num_labels_*num_labels_ ({math.prod(shape)} vs. "
                f"{classes * classes}) H must be {classes}x{classes}. It has shape {shape!r}."
            )
        return [(), bottom[0]][: self.num_top]

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0

    def _gains(self, bottom: list[Tensor], index: Tensor, valid: Tensor | None) -> Tensor:
        """The row of H of each position's label, (outer, classes, inner); zeros where ignored."""
        classes = bottom[0].shape[self.axis]
        matrix = bottom[2].detach() if self.matrix is None else torch.from_numpy(self.matrix).to(bottom[0])
        rows = matrix.reshape(classes, classes)[index.squeeze(1)].transpose(1, 2)
        return rows if valid is None else torch.where(valid, rows, torch.zeros_like(rows))

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        outer, classes, inner = fold(tuple(bottom[0].shape), self.axis)
        index, valid = integer_labels(bottom[1].reshape(outer, 1, inner), classes, self.ignore)
        logs = torch.log_softmax(bottom[0].reshape(outer, classes, inner), 1).clamp(min=LOG_THRESHOLD)
        total = (self._gains(bottom, index, valid) * logs).sum()
        tops = [-total / self.normalization.divisor(outer, inner, valid)]
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
        """Differs from the derivative where the loss is clipped, and drops the second top's diff."""
        refuse_label_gradient(self, propagate_down)
        if len(propagate_down) > 2 and propagate_down[2]:
            raise self.error(f"{self.type} Layer cannot backpropagate to infogain inputs.")
        outer, classes, inner = fold(tuple(bottom[0].shape), self.axis)
        index, valid = integer_labels(bottom[1].reshape(outer, 1, inner), classes, self.ignore)
        gains = self._gains(bottom, index, valid)
        diff = torch.softmax(bottom[0].reshape(outer, classes, inner), 1) * gains.sum(1, keepdim=True) - gains
        diff = diff * (top_diff[0] / self.normalization.divisor(outer, inner, valid))
        return [diff.reshape(bottom[0].shape), *([None] * (len(bottom) - 1))], []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        axis = canonical_axis(self.axis, len(self.bottom_shapes[0]))
        _, classes, inner = fold(self.bottom_shapes[0], axis)
        index, valid = lower_labels(g, bottom[1], (-1, inner), classes, self.ignore)
        matrix = bottom[2] if self.matrix is None else g.constant(self.matrix)
        gains = g.op("Gather", g.reshape(matrix, (classes, classes)), index, axis=0)  # (outer, inner, classes)
        logs = g.op("Max", g.op("LogSoftmax", bottom[0], axis=axis), g.constant(LOG_THRESHOLD))
        logs = g.op("Transpose", g.reshape(logs, (-1, classes, inner)), perm=(0, 2, 1))
        terms = g.op("ReduceSum", g.op("Mul", gains, logs), g.shape((2,)), keepdims=0)
        if valid is not None:
            terms = g.op("Mul", terms, valid)
        divisor = self.normalization.lower(g, terms, inner, valid)
        tops = [g.op("Neg", g.op("Div", lower_total(g, terms), divisor))]
        if self.num_top > 1:
            tops.append(g.op("Softmax", bottom[0], axis=axis))
        return tops
