"""DetectionOutput from its description, one box at a time, in float32: what the layer is held against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

F = np.float32


@dataclass
class Settings:
    classes: int
    shared: bool = True
    background: int = 0
    nms_threshold: float = 0.3
    eta: float = 1.0
    top_k: int | None = None
    keep_top_k: int = -1
    threshold: float | None = None
    code: str = "CORNER"
    in_target: bool = False

    def prototxt(self) -> str:
        flags = f"share_location: {self.shared} variance_encoded_in_target: {self.in_target}".lower()
        top_k = "" if self.top_k is None else f"top_k: {self.top_k}"
        threshold = "" if self.threshold is None else f"confidence_threshold: {self.threshold!r}"
        return (
            f"num_classes: {self.classes} {flags} background_label_id: {self.background} code_type: {self.code} "
            f"nms_param {{ nms_threshold: {self.nms_threshold!r} eta: {self.eta!r} {top_k} }} "
            f"keep_top_k: {self.keep_top_k} {threshold}"
        )


def decode(code: np.ndarray, prior: np.ndarray, variance: np.ndarray, settings: Settings) -> list[np.float32]:
    scaled = [code[i] if settings.in_target else variance[i] * code[i] for i in range(4)]
    size = [prior[2] - prior[0], prior[3] - prior[1]]
    if settings.code == "CORNER":
        return [prior[i] + scaled[i] for i in range(4)]
    if settings.code == "CORNER_SIZE":
        return [prior[i] + scaled[i] * size[i % 2] for i in range(4)]
    center = [scaled[i] * size[i] + (prior[i] + prior[i + 2]) / F(2) for i in range(2)]
    half = [np.exp(scaled[i + 2]) * size[i] / F(2) for i in range(2)]
    return [center[0] - half[0], center[1] - half[1], center[0] + half[0], center[1] + half[1]]


def area(box: list[np.float32]) -> np.float32:
    if box[2] < box[0] or box[3] < box[1]:
        return F(0)
    return (box[2] - box[0]) * (box[3] - box[1])


def overlap(a: list[np.float32], b: list[np.float32]) -> np.float32:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if not (width > 0 and height > 0):
        return F(0)
    common = width * height
    return common / (area(a) + area(b) - common)


def suppressed(order: list[int], boxes: list[list[np.float32]], settings: Settings) -> list[int]:
    limit, kept = F(settings.nms_threshold), list[int]()
    for candidate in order:
        if all(overlap(boxes[candidate], boxes[better]) <= limit for better in kept):
            kept.append(candidate)
            if settings.eta < 1 and limit > 0.5:
                limit = limit * F(settings.eta)
    return kept


def detection_output(location: np.ndarray, confidence: np.ndarray, prior: np.ndarray, settings: Settings) -> np.ndarray:
    """The layer's top for its three bottoms."""
    images, count = len(location), prior.shape[2] // 4
    priors, variances = prior[0].reshape(2, count, 4)
    codes = location.reshape(images, count, 1 if settings.shared else settings.classes, 4)
    scores = confidence.reshape(images, count, settings.classes)
    least = np.finfo(F).min if settings.threshold is None else F(settings.threshold)
    rows = []
    for image in range(images):
        found = []
        for label in range(settings.classes):
            if label == settings.background:
                continue
            of = 0 if settings.shared else label
            boxes = [decode(codes[image, p, of], priors[p], variances[p], settings) for p in range(count)]
            candidates = [p for p in range(count) if scores[image, p, label] > least]
            candidates.sort(key=lambda p: -scores[image, p, label])  # stable
            for p in suppressed(candidates[: settings.top_k], boxes, settings):
                found.append([image, label, scores[image, p, label], *boxes[p]])
        if -1 < settings.keep_top_k < len(found):
            found = sorted(found, key=lambda row: -row[2])[: settings.keep_top_k]
            found.sort(key=lambda row: (row[1], -row[2]))
        rows += found
    if not rows:
        rows = [[image, *[-1] * 6] for image in range(images)]
    return np.array(rows, F).reshape(1, 1, -1, 7)
