"""Yolov3DetectionOutput: detections of YOLOv3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pycaffe.blob import Blob, Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import HostLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._yolo import Array, anchors, cells, check_cells, detections, sigmoid

__all__ = ["Yolov3DetectionOutputLayer"]


@register_layer("Yolov3DetectionOutput")
class Yolov3DetectionOutputLayer(HostLayer):
    """Turns YOLOv3's predictions at several resolutions into detections.

    A cell (h, w) of bottom t predicts for anchor a the box ((w + sigmoid(x)) / W, (h + sigmoid(y)) / H,
    exp(width) * a.width / (W * anchors_scale[t]), exp(height) * a.height / (H * anchors_scale[t])), and a detection for
    each class whose score, sigmoid(objectness) * sigmoid(class), exceeds the threshold. They are sorted by score, and
    those that overlap a better one are dropped, whatever their class.

    bottom: mask_group_num blobs (N, num_box * (5 + num_classes), H, W); with `gaussian_box` (Choi et al. 2019) 9 in
        place of 5: x, y, width and height each followed by its uncertainty, by whose mean the scores shrink.
    top: (1, 1, M, 7), as YoloDetectionOutput's.

    Parameters (yolov3_detection_output_param): num_classes, required; num_box (3), biases (the anchors in pixels:
    width, height, ...), mask (which anchors: num_box numbers a bottom), mask_group_num (2), anchors_scale (the stride
    of each bottom), confidence_threshold (0.01), nms_threshold (0.45), gaussian_box (false). As in
    yolov3_detection_output_layer.cpp of MobileNet-YOLO. No backward.

    Raises:
        LayerError: no num_classes; masks, anchors, scales or bottoms that do not fit each other.
        ShapeError: the channels do not fit.
    """

    origin = "YOLOv3"
    checked_by = "MobileNet-YOLO"
    min_bottom_blobs = 1
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.yolov3_detection_output_param
        if not param.num_classes or not param.HasField("num_classes"):
            raise self.error(f"Must specify num_classes. Got {param.num_classes!r}.")
        if len(bottom) != param.mask_group_num:
            raise self.error(
                f"Check failed: bottom.size() == mask_group_num_ ({len(bottom)} vs. {param.mask_group_num!r})."
            )
        if len(param.mask) != param.num_box * len(bottom) or len(param.anchors_scale) < len(bottom):
            raise self.error(
                "Each bottom takes num_box numbers of mask and one of anchors_scale. "
                f"Got num_box {param.num_box!r}, mask {list(param.mask)!r}, anchors_scale "
                f"{list(param.anchors_scale)!r} for {len(bottom)} bottoms."
            )
        known = anchors(param.biases, max(param.mask, default=-1) + 1)
        self.anchors = known[np.array(param.mask, np.int64)].reshape(len(bottom), param.num_box, 2)
        self.box_values = 9 if param.gaussian_box else 5
        self.places = [0, 2, 4, 6, 8] if param.gaussian_box else [0, 1, 2, 3, 4]  # x, y, width, height, objectness
        if 0 in param.anchors_scale[: len(bottom)]:
            raise self.error(f"anchors_scale is positive. Got {list(param.anchors_scale)!r}.")

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        param = self.layer_param.yolov3_detection_output_param
        for shape in bottom:
            check_cells(self.type, shape, param.num_box, self.box_values + param.num_classes)
            if shape[0] != bottom[0][0] or shape[1] != param.num_box * (self.box_values + param.num_classes):
                raise ShapeError(
                    f"Yolov3DetectionOutput's bottoms have one batch size and {self.box_values!r} + num_classes values "
                    f"a box. Got {bottom!r}."
                )
        return [(1, 1, 1, 7)]

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.yolov3_detection_output_param
        found = [self._boxes(blob.raw_data(), index) for index, blob in enumerate(bottom)]
        boxes, labels, scores = (np.concatenate(parts) for parts in zip(*found))
        rows = detections(boxes, labels, scores, param.nms_threshold, bottom[0].shape[0])
        top[0].reshape(*rows.shape)
        top[0].raw_data()[...] = rows

    def _boxes(self, x: Array, index: int) -> tuple[Array, Array, Array]:
        """The boxes (M, 4), classes (M,) and scores (M,) above the threshold, by image, row, column, anchor, class."""
        param = self.layer_param.yolov3_detection_output_param
        values = cells(x, param.num_box)
        height, width = values.shape[1:3]
        stride = param.anchors_scale[index]
        with np.errstate(all="ignore"):
            certain = sigmoid(values[..., self.places[4]])
            if param.gaussian_box:
                certain = certain * (4 - sigmoid(values[..., 1:8:2]).sum(-1)) / 4
            scores = sigmoid(values[..., self.box_values :]) * certain[..., None]
            chosen = np.nonzero(scores > param.confidence_threshold)
            _, row, column, anchor, label = chosen
            picked = values[chosen[:4]][:, self.places[:4]]
            centres = (np.stack((column, row), -1) + sigmoid(picked[:, :2])) / (width, height)
            sizes = np.exp(picked[:, 2:]) * self.anchors[index][anchor] / (width * stride, height * stride)
        boxes = np.concatenate((centres, sizes), -1).astype(np.float32)
        return boxes, label, scores[chosen]
