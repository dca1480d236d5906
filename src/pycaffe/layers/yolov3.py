"""Yolov3: the loss of one resolution of YOLOv3."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import LossLayer
from pycaffe.layers._iou_gradient import DIOU, IOU, MSE, generalized_overlap, overlap_gradient
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor
from pycaffe.layers._yolo import Array, anchors, cells, check_cells, check_labels, sigmoid, surrogate_loss, truths

__all__ = ["Yolov3Layer"]

BOX_VALUES = 5  # x, y, width, height, objectness; the classes follow


@register_layer("Yolov3")
class Yolov3Layer(LossLayer):
    """loss = 1/N * (sum of d^2), where d is what the layer sends back for each prediction.

    With p = sigmoid(prediction) d is for objectness p, but 0 where the box overlaps a true one by more than `thresh`;
    and in the cell that holds a true box's centre, for the anchor whose size overlaps it most (if `mask` has it) and
    those of `mask` that do by more than `iou_thresh`,
        objectness: p - 1, with use_logic_gradient times object_scale;
        classes: class_scale * (p - t), t 1 for the true class and 0 for the others, drawn towards 1/2 by
            label_smooth_eps; with use_focal_loss the focal loss's;
        x, y: coord_scale * (2 - area) * (p - place in the cell), width, height: the same with log(true size / anchor);
        or, with another iou_loss than MSE, the derivative of the overlap (_iou_gradient.py) times iou_normalizer, up to
        max_delta; with `accumulate` those of several true boxes add up. The loss then has no d of boxes but
        iou_normalizer * mean of 1 - overlap.

    bottom[0]: predictions (N, num * (5 + num_class), H, W).
    bottom[1]: true boxes (N, ..., T * 5): class, centre x, centre y, width, height in units of the image; zeros end
        them. It gets no gradient.
    top: a scalar.  backward: d / N, with use_logic_gradient times p(1 - p) but for width and height (where iou_loss is
        not MSE, the fork takes x and y for p there); it is not the derivative of the loss.

    Parameters (yolov3_param): num_class (20), num (5), biases (anchors in pixels), mask (num of them), anchors_scale
    (32, the stride), object_scale (1), class_scale (1), coord_scale (5), thresh (0.2), use_logic_gradient (false),
    use_focal_loss (false), iou_loss (MSE), iou_normalizer (0.25), iou_thresh (0.5), max_delta (10), accumulate (true),
    label_smooth_eps (0.1). side, noobject_scale: without effect. As in yolov3_layer.cpp of MobileNet-YOLO on the CPU.

    Raises:
        LayerError: masks or anchors do not fit.  ShapeError: the shapes do not fit.
        InputError: a label that is no box or no class.
    """

    origin = "YOLOv3"
    checked_by = "MobileNet-YOLO"
    exact_num_top_blobs = 1
    not_lowered = "it compares every prediction with every true box, in Python"

    def setup(self, bottom: list[Shape]) -> None:
        self.param = self.layer_param.yolov3_param
        self.mask = list(self.param.mask)
        if len(self.mask) < self.param.num or self.param.num < 1 or not self.param.anchors_scale:
            raise self.error(
                f"Yolov3 takes num > 0 anchors, a mask of as many, and anchors_scale > 0. Got num {self.param.num!r}, "
                f"mask {self.mask!r}, anchors_scale {self.param.anchors_scale!r}."
            )
        self.mask = self.mask[: self.param.num]
        self.anchors = anchors(self.param.biases, max(self.mask) + 1)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        predictions, labels = bottom
        check_cells(self.type, predictions, self.param.num, BOX_VALUES + self.param.num_class)
        if predictions[1] != self.param.num * (BOX_VALUES + self.param.num_class):
            raise ShapeError(f"Check failed: input_count == tmp_input_count. Got {predictions!r}: too many channels.")
        check_labels(predictions, labels)
        return [()]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x, labels = (blob.detach().cpu().numpy() for blob in bottom)
        num = len(x)
        delta = np.zeros(x.shape, x.dtype)
        missed: list[float] = []  # 1 - overlap of each box that was compared with a true one
        for image in range(num):
            boxes, rows = truths(labels, image, self.param.num_class)
            x_cells, delta_cells = (cells(values, self.param.num)[image] for values in (x, delta))
            missed += _Image(self, x_cells, delta_cells, boxes, rows).fill()
        squares = np.square(cells(delta, self.param.num), dtype=np.float64)
        loss = float(squares[..., 0 if self.param.iou_loss == MSE else 4 :].sum())
        if self.param.iou_loss != MSE and missed:
            loss += self.param.iou_normalizer * float(np.mean(missed))
        if self.param.use_logic_gradient:
            self._through_sigmoid(cells(x, self.param.num), cells(delta, self.param.num))
        return [surrogate_loss(bottom[0], loss / num, delta / num)]

    def _through_sigmoid(self, x: Array, delta: Array) -> None:
        """Multiplies d, a view, by p(1 - p)."""
        p = sigmoid(x)
        if self.param.iou_loss != MSE:
            p[..., :2] = x[..., :2]  # the fork's quirk
        p[..., 2:4] = 0
        slope = p * (1 - p)
        slope[..., 2:4] = 1
        delta *= slope


class _Image:
    """One image's predictions x and their delta, both (H, W, A, 5 + classes) and views, and its true boxes."""

    def __init__(self, layer: Yolov3Layer, x: Array, delta: Array, boxes: Array, rows: Array) -> None:
        self.param: Any = layer.param
        self.mask = layer.mask
        self.x, self.delta, self.boxes, self.rows = x, delta, boxes, rows
        height, width = x.shape[:2]
        self.extent = np.array([width, height])
        self.sizes = (layer.anchors / (self.extent * self.param.anchors_scale)).astype(np.float32)
        self.p = sigmoid(x)
        place = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)[:, :, None]
        with np.errstate(over="ignore"):
            sizes = np.exp(x[..., 2:4]) * self.sizes[self.mask]
        self.predicted = np.concatenate(((place + self.p[..., :2]) / self.extent, sizes), -1).astype(x.dtype)

    def fill(self) -> list[float]:
        """Fills the delta; returns 1 - overlap of each box that was compared with a true one."""
        param, kind = self.param, self.param.iou_loss
        best = np.zeros(self.x.shape[:3], self.x.dtype)
        for box in self.boxes:
            best = np.fmax(best, generalized_overlap(self.predicted, box, kind))
        self.delta[..., 4] = np.where(best > param.thresh, 0, self.p[..., 4])
        missed = []
        concentric = np.concatenate((np.zeros_like(self.sizes), self.sizes), -1)
        for label, *numbers in self.rows:
            box = np.array(numbers, self.x.dtype)
            column, row = np.minimum((box[:2] * self.extent.astype(box.dtype)).astype(int), self.extent - 1)
            overlaps = np.nan_to_num(generalized_overlap(concentric, np.array([0, 0, *box[2:]], box.dtype), kind))
            fitting = int(overlaps.argmax()) if (overlaps > 0).any() else -1
            if fitting in self.mask:
                fitting = self.mask.index(fitting)  # as there: from here on it is compared with anchors' numbers
                missed.append(1 - self._compare((row, column, fitting), box, int(label)))
            for anchor, overlap in enumerate(overlaps):
                if anchor in self.mask and anchor != fitting and param.iou_thresh < 1 and overlap > param.iou_thresh:
                    missed.append(1 - self._compare((row, column, self.mask.index(anchor)), box, int(label)))
        return missed

    def _compare(self, where: tuple[int, int, int], box: Array, label: int) -> float:
        """The delta of one prediction for one true box; returns their overlap."""
        param, delta, p = self.param, self.delta[where], self.p[where]
        delta[4] = (p[4] - 1) * (param.object_scale if param.use_logic_gradient else 1)
        self._compare_classes(delta[BOX_VALUES:], p[BOX_VALUES:], label)
        predicted, x = self.predicted[where], self.x[where]
        if param.iou_loss == MSE:
            scale = param.coord_scale * (2 - box[2] * box[3])
            delta[:2] = scale * (p[:2] - (box[:2] * self.extent - (where[1], where[0])))
            delta[2:4] = scale * (x[2:4] - np.log(box[2:] / self.sizes[self.mask[where[2]]]))
            return float(generalized_overlap(predicted, box, MSE))
        gradient = overlap_gradient(predicted, box, param.iou_loss)
        with np.errstate(all="ignore"):
            gradient[2:] *= np.exp(x[2:4].astype(np.float64))
            gradient *= param.iou_normalizer
        gradient = np.clip(np.where(np.isfinite(gradient), gradient, 0), -param.max_delta, param.max_delta)
        if not param.accumulate:
            delta[:4] = 0
        delta[:4] -= gradient
        kind = DIOU if param.iou_loss == IOU else param.iou_loss  # as there
        return float(generalized_overlap(predicted, box, kind))

    def _compare_classes(self, delta: Array, p: Array, label: int) -> None:
        param = self.param
        smooth = param.label_smooth_eps
        if delta[label]:  # an earlier true box was compared here: this one adds its class
            delta[label] = param.class_scale * (p[label] - (1 - smooth / 2))
            return
        target = np.eye(len(p), dtype=p.dtype)[label]
        if param.use_focal_loss:
            true = p[label] + 1e-15
            delta[:] = param.class_scale * (p - target) * 0.5 * -(1 - true) * (2 * true * np.log(true) + true - 1)
        else:
            delta[:] = param.class_scale * (p - (target * (1 - smooth) + smooth / 2))
