"""MultinomialLogisticLoss: minus the log of the true class's probability."""

from __future__ import annotations

import math

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import LossLayer
from pycaffe.layers._loss import (
    check_first_dimension,
    integer_labels,
    legacy_extents,
    lower_labels,
    refuse_label_gradient,
)
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["MultinomialLogisticLossLayer"]

LOG_THRESHOLD = 1e-20  # kLOG_THRESHOLD of loss_layer.hpp


@register_layer("MultinomialLogisticLoss")
class MultinomialLogisticLossLayer(LossLayer):
    """loss = -1/N * sum over items of log(max(p[label], 1e-20)).

    bottom: probabilities (N, ...), all elements of an item being its classes; labels (N), (N, 1) … (N, 1, 1, 1).
    top: a scalar.

    backward: -1 / (N * max(p, 1e-20)) at the label, also where p is below the threshold. As in
    multinomial_logistic_loss_layer.cpp.

    Raises:
        InputError: a label is outside the classes.
    """

    exact_num_top_blobs = 1

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        check_first_dimension(bottom)
        for name, extent in zip(("channels", "height", "width"), legacy_extents(bottom[1])[1:]):
            if extent != 1:
                raise ShapeError(
                    f"Check failed: bottom[1]->{name}() == 1 ({extent} vs. 1). Expected one label an item, got shapes "
                    f"{bottom[0]!r} and {bottom[1]!r}."
                )
        return [()]

    def _labels_and_probabilities(self, bottom: list[Tensor]) -> tuple[Tensor, Tensor]:
        items = bottom[0].reshape(bottom[0].shape[0], -1)
        index, _ = integer_labels(bottom[1].reshape(-1, 1), items.shape[1], None)
        return index, items.gather(1, index).clamp(min=LOG_THRESHOLD)

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        _, probabilities = self._labels_and_probabilities(bottom)
        return [-torch.log(probabilities).sum() / bottom[0].shape[0]]

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Differs from the derivative below the threshold, where that is 0; refuses labels."""
        refuse_label_gradient(self, propagate_down)
        index, probabilities = self._labels_and_probabilities(bottom)
        slope = -(top_diff[0] / bottom[0].shape[0]) / probabilities
        diff = torch.zeros_like(bottom[0]).reshape(bottom[0].shape[0], -1).scatter(1, index, slope)
        return [diff.reshape(bottom[0].shape), None], []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        classes = math.prod(self.bottom_shapes[0][1:])
        index, _ = lower_labels(g, bottom[1], (-1, 1), classes, None)
        probabilities = g.op("GatherElements", g.reshape(bottom[0], (-1, classes)), index, axis=1)
        logs = g.op("Log", g.op("Max", probabilities, g.constant(LOG_THRESHOLD)))
        return [g.op("Neg", g.op("ReduceMean", logs, keepdims=0))]
