"""DetectionEvaluate: which detections are right, for the mean average precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pycaffe.blob import Blob
from pycaffe.errors import DataError, InputError, ShapeError
from pycaffe.layers._base import HostLayer
from pycaffe.layers._boxes import Array, jaccard_overlaps
from pycaffe.layers._ground_truth import Objects, read_objects
from pycaffe.layers._output_boxes import output_boxes, pixel_overlaps, read_image_sizes
from pycaffe.layers._registry import register_layer

__all__ = ["DetectionEvaluateLayer"]

LABEL, SCORE, BOX = 1, 2, slice(3, 7)  # columns of a detection


@register_layer("DetectionEvaluate")
class DetectionEvaluateLayer(HostLayer):
    """Compares detections with the objects of their images. Origin: SSD.

    bottom: detections (1, 1, D, 7), rows image, label, score, xmin, ymin, xmax, ymax, as DetectionOutput gives them
        (label -1: none in that image; rows of zeros, as OpenCV fills up with, are none); objects (1, 1, G, 8), rows as
        in _ground_truth.py.
    top: (1, 1, K + D', 5), K classes without the background's: first a row -1, label, number of objects, -1, -1 for
        each class; then for each detection the row image, label, score, is true, is false, by image, label and score.

    From the greatest score on, a detection is true if of the objects of its label in its image the one that it overlaps
    most overlaps by `overlap_threshold` (0.5) or more and was not found before. `num_classes` (required),
    `background_label_id` (0). Without `evaluate_difficult_gt` (true) difficult objects do not count, and a detection
    of one is neither true nor false. With `name_size_file` (lines `name height width`, one for each image with
    detections, over and over) boxes are compared in pixels, where `resize_param` says how the images were resized.

    A solver with `eval_type: "detection"` makes the mean average precision of it. As detection_evaluate_layer.cpp.

    Raises:
        DataError: the name_size_file cannot be read.
        InputError: an object or a detection has the background's label.
    """

    exact_num_bottom_blobs = 2
    exact_num_top_blobs = 1
    origin = "SSD"

    def set_up_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.param = param = self.layer_param.detection_evaluate_param
        if not param.HasField("num_classes"):
            raise self.error("Must provide num_classes.")
        if not param.overlap_threshold > 0:
            raise self.error(
                f"overlap_threshold must be non negative. Got {param.overlap_threshold!r}; it must be > 0."
            )
        self.background = int(param.background_label_id)
        self.sizes = read_image_sizes(param.name_size_file) if param.HasField("name_size_file") else []
        self.resize = param.resize_param if param.HasField("resize_param") else None
        self._place = 0  # in `sizes`, of the next image

    def reshape_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.bottom_shapes = shapes = [blob.shape for blob in bottom]
        for shape, width in zip(shapes, (7, 8)):
            if len(shape) != 4 or shape[:2] != (1, 1) or shape[3] != width:
                raise ShapeError(
                    "DetectionEvaluate needs detections (1, 1, D, 7) and objects (1, 1, G, 8). "
                    f"Got {shapes[0]!r} and {shapes[1]!r}."
                )
        classes = self.param.num_classes - (self.background < self.param.num_classes)
        self.top_shapes = [(1, 1, classes + shapes[0][2], 5)]
        top[0].reshape(*self.top_shapes[0])

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        detections = bottom[0].raw_data().reshape(-1, 7)
        detections = detections[detections.any(axis=1)]
        table = bottom[1].raw_data().reshape(-1, 8)
        ends = np.flatnonzero(table[:, 0] == -1)  # what follows is no object, as in the fork
        objects = read_objects(table[: ends[0]] if len(ends) else table, self.background)
        if not np.isfinite(detections[:, :SCORE]).all():
            raise InputError("A detection's image or label is not finite.")
        images, labels = detections[:, :SCORE].astype(np.int64).T
        if (labels[images != -1] == self.background).any():
            raise InputError(f"Found background label in the detection results: {self.background!r}.")
        head = self._counts(objects)
        rows = np.zeros((len(head) + int((labels != -1).sum()), 5), np.float32)
        rows[: len(head)] = head
        at = len(head)
        for image in np.unique(images[images != -1]):
            for part in self._evaluate_image(detections[images == image], objects.select(objects.image == image)):
                rows[at : at + len(part)] = part
                at += len(part)
            self._place = (self._place + 1) % max(len(self.sizes), 1)
        top[0].reshape(1, 1, *rows.shape)
        top[0].data_storage.put(rows.reshape(1, 1, *rows.shape))

    def _counts(self, objects: Objects) -> Array:
        counted = objects.label if self.param.evaluate_difficult_gt else objects.label[~objects.difficult]
        classes = np.delete(np.arange(self.param.num_classes), np.s_[self.background : self.background + 1])
        rows = np.full((len(classes), 5), -1, np.float32)
        rows[:, 1] = classes
        rows[:, 2] = [(counted == label).sum() for label in classes]
        return rows

    def _evaluate_image(self, detections: Array, objects: Objects) -> list[Array]:
        parts = []
        labels = detections[:, LABEL].astype(np.int64)
        for label in np.unique(labels[labels != -1]):
            mine, own = detections[labels == label], objects.select(objects.label == label)
            if len(own.label):
                mine = mine[np.argsort(-mine[:, SCORE], kind="stable")]
            rows = np.zeros((len(mine), 5), np.float32)
            rows[:, :3] = mine[:, :3]
            rows[:, 4] = 1
            if len(own.label):
                self._find(rows, self._overlaps(mine[:, BOX], own.box), own)
            parts.append(rows)
        return parts

    def _find(self, rows: Array, overlaps: Array, objects: Objects) -> None:
        """Marks the rows of detections, best first, that find an object: columns 3 and 4."""
        seen: set[int] = set()
        for row, nearest in enumerate(overlaps.argmax(axis=1).tolist()):
            if overlaps[row, nearest] < self.param.overlap_threshold:
                continue
            if objects.difficult[nearest] and not self.param.evaluate_difficult_gt:
                rows[row, 3:] = 0
            elif nearest not in seen:
                seen.add(nearest)
                rows[row, 3:] = 1, 0

    def _overlaps(self, found: Array, objects: Array) -> Array:
        if not self.sizes:
            return jaccard_overlaps(found, objects)
        _, height, width = self.sizes[self._place]
        size = (height, width)
        return pixel_overlaps(*output_boxes(found, size, self.resize), *output_boxes(objects, size, self.resize))

    def state(self) -> dict[str, Any]:
        return {"place": self._place} if self.sizes else {}

    def restore(self, state: dict[str, Any]) -> None:
        place = state.get("place")
        if not isinstance(place, int) or not 0 <= place < len(self.sizes):
            raise DataError(f"Layer {self.name!r}: {place!r} is no place in {self.param.name_size_file!r}.")
        self._place = place
