"""YoloDetectionOutput: detections of YOLOv2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pycaffe.blob import Blob, Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import HostLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._yolo import Array, anchors, cells, check_cells, detections, sigmoid

__all__ = ["YoloDetectionOutputLayer"]

BOX_VALUES = 5  # x, y, width, height, objectness; the classes follow


@register_layer("YoloDetectionOutput")
class YoloDetectionOutputLayer(HostLayer):
    """Turns YOLOv2's predictions into detections.

    A cell (h, w) predicts for anchor a the box ((w + sigmoid(x)) / W, (h + sigmoid(y)) / H, exp(width) * a.width / W,
    exp(height) * a.height / H) with the score sigmoid(objectness) * max of the softmax over its classes. Boxes whose
    score reaches the threshold are sorted by it, and those that overlap a better one are dropped, whatever their class.

    bottom: one or two blobs (N, num_box * (5 + num_classes), H, W), with the same anchors.
    top: (1, 1, M, 7): image, label, score, left, top, right, bottom in units of the image. As in the fork the image is
        always 0 (all of a batch are one), the label is the class + 1, and where nothing is found there is one row
        [image, -1, -1, -1, -1, -1, -1] an image.

    Parameters (yolo_detection_output_param): num_classes, required; num_box (5), biases (the anchors in cells: width,
    height, ...), confidence_threshold (0.01), nms_threshold (0.45). side, coords, label_map_file: without effect. As in
    yolo_detection_output_layer.cpp of MobileNet-YOLO, but H and W may differ. No backward.

    Raises:
        LayerError: no num_classes, too few anchors.  ShapeError: the channels do not fit.
    """

    origin = "YOLOv2"
    checked_by = "MobileNet-YOLO"
    min_bottom_blobs = 1
    max_bottom_blobs = 2
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.yolo_detection_output_param
        if not param.num_classes or not param.HasField("num_classes"):
            raise self.error(f"Must specify num_classes. Got {param.num_classes!r}.")
        self.anchors = anchors(param.biases, param.num_box)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        param = self.layer_param.yolo_detection_output_param
        for shape in bottom:
            check_cells(self.type, shape, param.num_box, BOX_VALUES + param.num_classes)
            if shape[0] != bottom[0][0]:
                raise ShapeError(f"YoloDetectionOutput's bottoms have one batch size. Got {bottom!r}.")
        return [(1, 1, 1, 7)]

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.yolo_detection_output_param
        found = [self._boxes(blob.raw_data()) for blob in bottom]
        boxes, labels, scores = (np.concatenate(parts) for parts in zip(*found))
        rows = detections(boxes, labels, scores, param.nms_threshold, bottom[0].shape[0])
        top[0].reshape(*rows.shape)
        top[0].raw_data()[...] = rows

    def _boxes(self, x: Array) -> tuple[Array, Array, Array]:
        """The boxes (M, 4), classes (M,) and scores (M,) above the threshold, by image, row, column, anchor."""
        param = self.layer_param.yolo_detection_output_param
        values = cells(x, param.num_box)
        height, width = values.shape[1:3]
        with np.errstate(all="ignore"):
            logits = values[..., BOX_VALUES : BOX_VALUES + param.num_classes]
            powers = np.exp(logits - logits.max(-1, keepdims=True))
            best = powers.max(-1) / powers.sum(-1)
            scores = sigmoid(values[..., 4]) * best
            chosen = np.nonzero(scores >= param.confidence_threshold)
            _, row, column, anchor = chosen
            picked = values[chosen]
            centres = (np.stack((column, row), -1) + sigmoid(picked[:, :2])) / (width, height)
            sizes = np.exp(picked[:, 2:4]) * self.anchors[anchor] / (width, height)
        boxes = np.concatenate((centres, sizes), -1).astype(np.float32)
        return boxes, powers.argmax(-1)[chosen], scores[chosen]
