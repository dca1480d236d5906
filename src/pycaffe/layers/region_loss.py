"""RegionLoss: the loss of YOLOv2."""

from __future__ import annotations

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import LossLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor
from pycaffe.layers._yolo import (
    Array,
    anchors,
    cells,
    check_cells,
    check_labels,
    intersection_over_union,
    sigmoid,
    surrogate_loss,
    truths,
)

__all__ = ["RegionLossLayer"]

BOX_VALUES = 5  # x, y, width, height, objectness; the classes follow


@register_layer("RegionLoss")
class RegionLossLayer(LossLayer):
    """loss = 1/N * sum of d^2, where d is what the layer sends back for each prediction.

    With p = sigmoid(prediction), and c the softmax of the class predictions, d is for
        objectness: noobject_scale * p * p(1 - p), but 0 where the box overlaps a true one by more than `thresh`;
    and, in the cell that holds a true box's centre, for the anchor whose size overlaps it most,
        x, y: coord_scale * (p - place in the cell) * p(1 - p);
        width, height: coord_scale * (prediction - log(true size in cells / anchor)); with `rescore: 0` all four times
            2 - area of the true box;
        objectness: object_scale * (p - t) * p(1 - p), t the overlap of box and true box, or with `rescore: 0` 1;
        classes: class_scale * (c - 1 for the true class, c - 0 for the others).
    Of two true boxes for one anchor of one cell the later one counts.

    bottom[0]: predictions (N, num * (5 + num_class), S, S).
    bottom[1]: true boxes (N, ..., T * 5): class, centre x, centre y, width, height in units of the image; zeros end
        them. It gets no gradient.
    top: a scalar.  backward: d / N, which is not the derivative of the loss.

    Parameters (region_loss_param): num_class (20), num (5), biases (anchors in cells), bias_match (1; 0 compares true
    sizes with those of the predicted boxes), rescore (1), object_scale (1), noobject_scale (0.5), class_scale (1),
    coord_scale (5), thresh (0.2). coords must be 4. side, softmax, jitter, absolute, random, softmax_tree, class_map:
    without effect. As in region_loss_layer.cpp of MobileNet-YOLO; a centre on the right or lower border of the image,
    with which it writes elsewhere, counts for the last cell.

    Raises:
        LayerError: too few anchors, other coords.  ShapeError: the shapes do not fit.
        InputError: a label that is no box or no class.
    """

    origin = "YOLOv2"
    checked_by = "MobileNet-YOLO"
    exact_num_top_blobs = 1
    not_lowered = "it compares every prediction with every true box, in Python"

    def setup(self, bottom: list[Shape]) -> None:
        self.param = self.layer_param.region_loss_param
        if self.param.coords != 4:
            raise self.error(f"RegionLoss's boxes have 4 coords. Got {self.param.coords!r}.")
        self.anchors = anchors(self.param.biases, self.param.num)[: self.param.num]

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        predictions, labels = bottom
        check_cells(self.type, predictions, self.param.num, BOX_VALUES + self.param.num_class)
        if predictions[2] != predictions[3] or predictions[1] != self.param.num * (BOX_VALUES + self.param.num_class):
            raise ShapeError(f"RegionLoss takes square planes and no further channels. Got {predictions!r}.")
        check_labels(predictions, labels)
        return [()]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        predictions, labels = (blob.detach().cpu().numpy() for blob in bottom)
        num = len(predictions)
        delta = np.zeros(predictions.shape, predictions.dtype)
        for image in range(num):
            boxes, rows = truths(labels, image, self.param.num_class)
            x_cells, delta_cells = (cells(values, self.param.num)[image] for values in (predictions, delta))
            self._add_image(x_cells, delta_cells, boxes, rows)
        loss = float(np.square(delta, dtype=np.float64).sum()) / num
        return [surrogate_loss(bottom[0], loss, delta / num)]

    def _add_image(self, x: Array, delta: Array, boxes: Array, rows: Array) -> None:
        """Fills the delta (S, S, A, 5 + classes), a view, of one image's predictions."""
        param, side = self.param, x.shape[0]
        place = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1)[:, :, None]
        with np.errstate(over="ignore"):
            powers = np.exp(x[..., BOX_VALUES:] - x[..., BOX_VALUES:].max(-1, keepdims=True))
            sizes = np.exp(x[..., 2:4]) * self.anchors / side
        p = sigmoid(x[..., :BOX_VALUES])
        predicted = np.concatenate(((place + p[..., :2]) / side, sizes), -1).astype(x.dtype)
        best = np.zeros(x.shape[:3], x.dtype)
        for box in boxes:
            best = np.fmax(best, intersection_over_union(predicted, box))
        slope = p * (1 - p)
        delta[..., 4] = np.where(best > param.thresh, 0, param.noobject_scale * p[..., 4] * slope[..., 4])
        classes = powers / powers.sum(-1, keepdims=True)
        for label, *numbers in rows:
            box = np.array(numbers, x.dtype)
            column, row = np.minimum((box[:2] * side).astype(int), side - 1)
            sizes = self.anchors / side if param.bias_match else predicted[row, column, :, 2:]
            concentric = np.concatenate((np.zeros_like(sizes), sizes), -1)
            anchor = np.nan_to_num(intersection_over_union(concentric, np.array([0, 0, *box[2:]], x.dtype))).argmax()
            where = (row, column, anchor)
            overlap = intersection_over_union(predicted[where], box)
            scale = param.coord_scale * (1 if param.rescore else 2 - box[2] * box[3])
            inside = box[:2] * side - (column, row)
            delta[where][:2] = scale * (p[where][:2] - inside) * slope[where][:2]
            delta[where][2:4] = scale * (x[where][2:4] - np.log(box[2:] * side / self.anchors[anchor]))
            target = overlap if param.rescore else 1
            delta[where][4] = param.object_scale * (p[where][4] - target) * slope[where][4]
            delta[where][BOX_VALUES:] = param.class_scale * (classes[where] - np.eye(param.num_class)[int(label)])
