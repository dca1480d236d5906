"""CenterLoss: distances of features to the centres of their classes, which are learnt."""

from __future__ import annotations

import math

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import LossLayer, canonical_axis
from pycaffe.layers._loss import check_first_dimension, integer_labels, lower_labels, refuse_label_gradient
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["CenterLossLayer"]


@register_layer("CenterLoss")
class CenterLossLayer(LossLayer):
    """loss = 1/(2N) * sum over items of |x_n - c_label(n)|^2.

    bottom: features (N, ...); labels (N), (N, 1), ...
    top: a scalar.
    blobs: the centres c, (num_output, K), K the number of values from `axis` on.

    Parameters (center_loss_param): num_output, the number of classes, required; center_filler (constant 0); axis (1).

    backward: to x the derivative, (x_n - c) / N times the loss weight. To a centre, by its own rule:
    sum over the class's items of (c - x_n) / (1 + their number), whatever the loss weight (Wen et al. 2016, "A
    Discriminative Feature Learning Approach for Deep Face Recognition"; center_loss_layer.cpp of caffe-face).

    Raises:
        LayerError: `num_output` is 0, or the net asks for the gradient of the labels.
        ShapeError: there is not one label an item, or `axis` does not follow on the items.
        InputError: a label is outside 0 .. num_output - 1.
    """

    exact_num_top_blobs = 1
    origin = "caffe-face"
    checked_by = "NumPy loop"

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.center_loss_param
        self.classes = int(param.num_output)
        if self.classes < 1:
            raise self.error(f"Check failed: num_output > 0 ({self.classes} vs. 0) Got num_output {self.classes!r}.")
        self.axis = canonical_axis(param.axis, len(bottom[0]))
        self.length = math.prod(bottom[0][self.axis :])
        self.add_blob((self.classes, self.length), param.center_filler)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        check_first_dimension(bottom)
        features, labels = bottom
        if math.prod(labels[1:]) != 1:
            raise ShapeError(
                f"Check failed: bottom[1]->channels() == 1. Expected one label an item, got shape {labels!r}."
            )
        if features[0] * self.length != math.prod(features) or math.prod(features[self.axis :]) != self.length:
            raise ShapeError(
                f"Check failed: bottom[0]->count(axis) == K. Expected shape ({features[0]}, ...) with {self.length} "
                f"values from axis {self.axis} on, got {features!r}."
            )
        return [()]

    def _distances(self, bottom: list[Tensor], centers: Tensor) -> tuple[Tensor, Tensor]:
        label, _ = integer_labels(bottom[1].reshape(-1), self.classes, None)
        return bottom[0].reshape(-1, self.length) - centers[label], label

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        distances, _ = self._distances(bottom, params[0])
        return [(distances * distances).sum() / (2 * distances.shape[0])]

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        refuse_label_gradient(self, propagate_down)
        distances, label = self._distances(bottom, params[0])
        bottom_diff = distances * (top_diff[0] / distances.shape[0]) if propagate_down[0] else None
        count = torch.bincount(label, minlength=self.classes).to(distances)
        center_diff = torch.zeros_like(params[0]).index_add_(0, label, -distances) / (1 + count)[:, None]
        return [None if bottom_diff is None else bottom_diff.reshape(bottom[0].shape), None], [center_diff]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        label, _ = lower_labels(g, bottom[1], (-1,), self.classes, None)
        features = g.reshape(bottom[0], (-1, self.length))
        distances = g.op("Sub", features, g.op("Gather", params[0], label, axis=0))
        mean = g.op("ReduceMean", g.op("Mul", distances, distances), keepdims=0)
        return [g.op("Mul", mean, g.constant(self.length / 2))]
