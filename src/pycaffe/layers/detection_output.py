"""DetectionOutput: from SSD's predictions to detections."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from pycaffe.blob import Blob, FloatArray
from pycaffe.errors import ShapeError
from pycaffe.layers._base import HostLayer
from pycaffe.layers._boxes import Array, decode_boxes
from pycaffe.layers._detection_files import detection_files
from pycaffe.layers._non_maximum_suppression import suppress
from pycaffe.layers._registry import register_layer

LOWEST = float(np.finfo(np.float32).min)  # the confidence threshold where none is given
MAX_PADDED_ROWS = 2**20
logger = logging.getLogger("pycaffe.layers.detection_output")


@register_layer("DetectionOutput")
class DetectionOutputLayer(HostLayer):
    """Decodes boxes, drops weak ones, suppresses by class those that overlap a better one, and keeps the best.

    bottom[0]: (N, P * L * 4), location predictions for P priors; L is 1, or without share_location num_classes.
    bottom[1]: (N, P * num_classes), scores.
    bottom[2]: (1, 2, P * 4), priors and variances, as PriorBox makes them.  bottom[3]: ignored.
    top: (1, 1, D, 7), a row for each detection: image, label, score, xmin, ymin, xmax, ymax; by image, then by label,
        then from the best score down. Without any detection there is a row [i, -1, -1, -1, -1, -1, -1] for each image.
        In dialect "opencv" rows of zeros follow, or stand alone, up to N * keep_top_k.

    Scores must be above confidence_threshold (NaN is not); of each class the top_k best are looked at, from the best
    down, equals in the order of the priors. Over all classes of an image the keep_top_k best stay.

    Parameters (detection_output_param): num_classes, needed; share_location (true); background_label_id (0; -1: none);
    nms_param { nms_threshold: 0.3  top_k  eta: 1 }, without top_k all; code_type (CORNER), CENTER_SIZE, CORNER_SIZE;
    variance_encoded_in_target (false); keep_top_k (-1: all); confidence_threshold (none); save_output_param: see
    _detection_files.py. `visualize` is ignored. As in detection_output_layer.cpp of SSD; it has no backward.

    Raises:
        LayerError: num_classes is missing, or a threshold is out of range.
        ShapeError: the bottoms do not fit each other.
        InputError: a prior without width or height, where the code divides by them.
    """

    min_bottom_blobs = 3
    max_bottom_blobs = 4
    exact_num_top_blobs = 1
    origin = "SSD"
    checked_by = "SSD"

    def allow_force_backward(self, bottom_index: int) -> bool:
        return False

    def set_up_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param, self.num_top = self.layer_param.detection_output_param, len(top)
        if not param.HasField("num_classes"):
            raise self.error("Must specify num_classes.")
        nms = param.nms_param
        if not nms.nms_threshold >= 0:
            raise self.error(f"nms_threshold must be non negative. Got {nms.nms_threshold!r}.")
        if not 0 < nms.eta <= 1:
            raise self.error(f"Check failed: eta_ > 0 and eta_ <= 1. Got {nms.eta!r}.")
        self.classes, self.background = param.num_classes, param.background_label_id
        self.locations = 1 if param.share_location else param.num_classes
        self.code_type, self.in_target = param.code_type, param.variance_encoded_in_target
        self.threshold = np.float32(param.confidence_threshold if param.HasField("confidence_threshold") else LOWEST)
        self.nms_threshold, self.eta = nms.nms_threshold, nms.eta
        self.top_k = nms.top_k if nms.HasField("top_k") else -1
        self.keep_top_k = param.keep_top_k
        self.padded = self.dialect == "opencv" and self.keep_top_k > 0
        self.files = detection_files(param.save_output_param, self.background)
        if param.visualize:
            logger.warning("Layer %s: visualize is ignored.", self.name)
        top[0].reshape(1, 1, 1, 7)

    def reshape_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Checks the bottoms. How many rows the top has is known after the next forward; until then it keeps them."""
        shapes = self.bottom_shapes = [blob.shape for blob in bottom]
        location, confidence, prior = shapes[:3]
        if location[:1] != confidence[:1] or not location:
            raise ShapeError(f"Check failed: bottom[0]->num() == bottom[1]->num(). Got shapes {shapes!r}.")
        if len(prior) < 3 or prior[0] < 1 or prior[1] != 2 or math.prod(prior[3:]) != 1:
            raise ShapeError(f"The priors need a shape (1, 2, 4 * number of priors). Got {prior!r}.")
        self.priors = prior[2] // 4
        for what, shape, each in (
            ("location", location, self.locations * 4),
            ("confidence", confidence, self.classes),
        ):
            if math.prod(shape[1:]) != self.priors * each:
                raise ShapeError(
                    f"Number of priors must match number of {what} predictions. Expected {self.priors * each} "
                    f"predictions for {self.priors} priors, got shape {shape!r}."
                )
        if self.padded and location[0] * self.keep_top_k > MAX_PADDED_ROWS:
            raise ShapeError(
                f"keep_top_k {self.keep_top_k!r} for {location[0]} images: more than {MAX_PADDED_ROWS} rows."
            )
        self.top_shapes = [top[0].shape]

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        locations, scores, (boxes, variances) = self._arrays(bottom)
        with np.errstate(all="ignore"):  # absurd predictions give absurd boxes
            found = [
                self._detect(i, locations[i], scores[i], boxes, None if self.in_target else variances)
                for i in range(len(locations))
            ]
        if self.files is not None:
            for rows in found:
                self.files.add(rows)
        rows = np.concatenate([np.empty((0, 7), np.float32), *found])
        if self.padded:
            rows = np.concatenate([rows, np.zeros((self.keep_top_k * len(found) - len(rows), 7), np.float32)])
        elif not len(rows):
            rows = _nothing(len(found))
        top[0].reshape(1, 1, len(rows), 7)
        top[0].raw_data()[0, 0] = rows
        self.top_shapes = [top[0].shape]

    def _arrays(self, bottom: Sequence[Blob]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Locations (N, P, L, 4), scores (N, P, classes), boxes and variances of the priors (2, P, 4)."""
        images = self.bottom_shapes[0][0]
        return (
            bottom[0].raw_data().reshape(images, self.priors, self.locations, 4),
            bottom[1].raw_data().reshape(images, self.priors, self.classes),
            bottom[2].raw_data()[0].reshape(2, -1)[:, : self.priors * 4].reshape(2, self.priors, 4),
        )

    def _detect(self, image: int, location: Array, score: Array, boxes: Array, variances: Array | None) -> Array:
        """One image's rows."""
        priors, labels, scores = self._candidates(score)
        codes = location[priors, 0 if self.locations == 1 else labels]
        decoded = decode_boxes(codes, boxes[priors], None if variances is None else variances[priors], self.code_type)
        first = np.flatnonzero(np.diff(labels, prepend=-1))  # of each label's candidates
        kept = [
            start + suppress(decoded[start:end], self.nms_threshold, self.eta)
            for start, end in zip(first, [*first[1:], len(labels)])
        ]
        rows = np.concatenate(kept) if kept else np.empty(0, np.intp)
        if -1 < self.keep_top_k < len(rows):
            rows = rows[np.sort(_best(scores[rows], self.keep_top_k))]  # by label and score again
        result = np.empty((len(rows), 7), np.float32)
        result[:, 0], result[:, 1], result[:, 2], result[:, 3:] = image, labels[rows], scores[rows], decoded[rows]
        return result

    def _candidates(self, score: Array) -> tuple[Array, Array, Array]:
        """Prior, label and score of the top_k best candidates of each label, by label, then from the best down."""
        by_label = np.ascontiguousarray(score.T)
        above = by_label > self.threshold
        found = []
        for label in np.flatnonzero(above.any(axis=1)) if self.priors else ():
            if label != self.background:
                priors = np.flatnonzero(above[label])
                priors = priors[_best(by_label[label, priors], self.top_k)]
                found.append((priors, np.full(len(priors), label), by_label[label, priors]))
        if not found:
            return np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0, np.float32)
        priors, labels, scores = map(np.concatenate, zip(*found))
        return priors, labels, scores


def _best(scores: Array, count: int) -> Array:
    """Indices of the `count` best scores (-1: all), from the best down; equals in their order."""
    if not -1 < count < len(scores):
        return np.argsort(-scores, kind="stable")
    if count == 0:
        return np.empty(0, np.intp)
    worst = np.partition(scores, len(scores) - count)[len(scores) - count]
    candidates = np.flatnonzero(scores >= worst)  # `count`, and perhaps equals of the worst
    return candidates[np.argsort(-scores[candidates], kind="stable")[:count]]


def _nothing(images: int) -> FloatArray:
    """What stands for no detection at all."""
    rows = np.full((images, 7), -1, np.float32)
    rows[:, 0] = np.arange(images)
    return rows
