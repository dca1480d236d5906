"""Asks `cv2.dnn`'s models, or ours, for what they find in an image."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np


def image_of(height: int, width: int, seed: int = 0) -> Any:
    """Smooth noise, which no resizing treats very differently: (height, width, 3) uint8."""
    waves = np.random.default_rng(seed).uniform(-1, 1, (3, 4))
    y, x = np.mgrid[0:height, 0:width] / 40.0
    planes = [np.sin(a * y + b * x + 3 * c) * 80 + np.cos(3 * d * x - y) * 40 + 128 for a, b, c, d in waves]
    return np.stack(planes, axis=2).clip(0, 255).astype(np.uint8)


def ask_models(dnn: Any, files: Callable[[str], tuple[pathlib.Path, pathlib.Path]]) -> dict[str, Any]:
    """Answers of all models over the trained nets, as JSON can hold them.

    Args:
        dnn: a module with `ClassificationModel` and the others.
        files: prototxt and caffemodel of a net by name.
    """

    def paths(name: str) -> tuple[str, str]:
        prototxt, weights = files(name)
        return str(weights), str(prototxt)

    asked: dict[str, Any] = {}
    model = dnn.ClassificationModel(*paths("plate_recognition"))
    model.setInputParams(scale=1 / 255.0, size=(40, 160), mean=(10, 20, 30), swapRB=True)
    asked["classify"] = model.classify(image_of(160, 40))
    model.setEnableSoftmaxPostProcessing(True)
    asked["classify_softmax"] = [*model.classify(image_of(160, 40)), model.getEnableSoftmaxPostProcessing()]

    model = dnn.Model(*paths("refinenet")[::-1])  # either order of the files
    asked["predict"] = [output.tolist() for output in model.predict(image_of(48, 120))]
    model.setInputSize((120, 48)).setInputMean((127.5, 100, 50)).setInputScale((0.01, 0.02, 0.03))
    model.setInputSwapRB(True).setInputCrop(True).setOutputNames(["conv6-3"])
    asked["predict_cropped"] = [output.tolist() for output in model.predict(image_of(80, 150))]
    model.setInputSize(120, 48).setInputCrop(False).setInputMean(5).setInputScale(0.02)
    asked["predict_resized"] = [output.tolist() for output in model.predict(image_of(96, 240))]

    model = dnn.DetectionModel(*paths("plate_ssd"))
    model.setInputParams(1 / 58.0, (400, 300), (104, 117, 123))
    for name, threshold in (("detect", 0.02), ("detect_nothing", 1.5)):
        classes, scores, boxes = model.detect(image_of(300, 400, 3), confThreshold=threshold)
        asked[name] = [np.asarray(found).tolist() for found in (classes, scores, boxes)]
        asked[f"{name}_types"] = [str(getattr(found, "dtype", type(found))) for found in (classes, scores, boxes)]
    model.setNmsAcrossClasses(True)
    asked["across"] = model.getNmsAcrossClasses()

    model = dnn.SegmentationModel(*paths("refinenet"))
    model.setOutputNames(["conv4"])
    model.setInputParams(scale=0.01, size=(120, 48))
    mask = model.segment(image_of(48, 120))
    asked["segment"] = [str(mask.dtype), mask.tolist()]

    model = dnn.KeypointsModel(*paths("refinenet"))
    model.setOutputNames(["conv4"])
    model.setInputParams(scale=0.01, size=(120, 48))
    for name, threshold in (("estimate", 1.0), ("estimate_all", -100.0)):
        points = model.estimate(image_of(96, 200), threshold)
        asked[name] = [str(points.dtype), points.tolist()]
    plain: dict[str, Any] = json.loads(json.dumps(asked))
    return plain


def close(expected: Any, got: Any, tolerance: float = 1e-4) -> bool:
    """Whether two answers are equal, numbers to `tolerance`."""
    if isinstance(expected, list):
        return len(expected) == len(got) and all(close(a, b, tolerance) for a, b in zip(expected, got))
    if isinstance(expected, float):
        return abs(expected - got) <= tolerance * max(1.0, abs(expected))
    return bool(expected == got)
