"""`Detector`: from the outputs of a net for one image to boxes in that image.

outputs ─ detection layers' rows, or `decode` ─→ (n, 6) ─ above the threshold, best first ─→ pixels of the image
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pycaffe.errors import InputError
from pycaffe.images import ImagePreprocess
from pycaffe.net import Net

__all__ = ["Decode", "Detector", "Found"]

Array = npt.NDArray[Any]
Decode = Callable[[dict[str, Array]], Any]
"""Outputs by blob name, without the batch axis → rows of class, score, left, top, right, bottom: the box in parts of
the net's input's width and height, as DetectionOutput has it."""

TYPES = ("DetectionOutput", "YoloDetectionOutput", "Yolov3DetectionOutput")
ROW = 7  # image, class, score, left, top, right, bottom


class Found(NamedTuple):
    """What was found in an image, from the highest score down: classes (n,), scores (n,), boxes (n, 4) in pixels."""

    classes: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]


class Detector:
    """Reads a net's detections.

    Args:
        net: to look at; it is not kept.
        preprocess: by which images become its input.
        threshold: the least score.
        decode: for a net without a detection layer; see `Decode`. It decides for a net that has one, too.

    Attributes:
        outputs: the blobs that a call needs.

    Raises:
        InputError: the net has no detection layer, and there is no `decode`.
    """

    def __init__(self, net: Net, preprocess: ImagePreprocess, threshold: float, decode: Decode | None = None) -> None:
        layers = [name for name, layer in zip(net.top_names, net.layers) if layer.type in TYPES]
        if decode is None and not layers:
            raise InputError(
                f"The net has no layer of the types {', '.join(TYPES)}: its outputs {net.outputs!r} need a `decode` "
                "function, which makes rows of class, score, left, top, right, bottom of them."
            )
        self.outputs = net.outputs if decode is not None else [net.top_names[name][0] for name in layers]
        self._preprocess = preprocess
        self._threshold = threshold
        self._decode = decode

    def __call__(self, outputs: dict[str, Array], size: tuple[int, int]) -> Found:
        """What was found in an image of that (height, width); `outputs` are without the batch axis.

        Boxes are clipped to the image; those with a corner that is no number are left out.

        Raises:
            InputError: `decode` returned something else than rows of six numbers.
        """
        rows = self._rows(outputs)
        rows = rows[(rows[:, 1] >= self._threshold) & ~np.isnan(rows).any(axis=1)]
        rows = rows[np.argsort(-rows[:, 1], kind="stable")]
        boxes = _in_pixels(rows[:, 2:], size, self._preprocess)
        return Found(rows[:, 0].astype(np.int64), rows[:, 1].astype(np.float32), boxes)

    def _rows(self, outputs: dict[str, Array]) -> Array:
        """(n, 6)."""
        if self._decode is not None:
            return _checked(self._decode(outputs))
        rows = np.concatenate([outputs[name].reshape(-1, ROW) for name in self.outputs])
        # A row of zeros fills up, and one with class -1 stands for none at all.
        return rows[rows.any(axis=1) & (rows[:, 1] >= 0), 1:]


def _checked(rows: Any) -> Array:
    try:
        array = np.asarray(rows, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"decode returned {type(rows).__name__}, not an array of numbers: {error}") from error
    if array.size == 0:
        return np.empty((0, 6))
    if array.ndim != 2 or array.shape[1] != 6:
        raise InputError(
            "decode returns rows of class, score, left, top, right, bottom: an array (n, 6). "
            f"Got shape {array.shape!r}."
        )
    if not (np.abs(array[:, 0]) < 2**31).all():
        raise InputError("decode returned a class that is no whole number of 32 bits.")
    return array


def _in_pixels(boxes: Array, size: tuple[int, int], preprocess: ImagePreprocess) -> npt.NDArray[np.float32]:
    """Boxes in parts of the net's input → in pixels of the image of that (height, width), clipped to it."""
    resized = preprocess.resize or size
    seen = (preprocess.crop, preprocess.crop) if preprocess.crop is not None else resized
    low = [(whole - part) // 2 / whole for whole, part in zip(resized, seen)]  # the crop's corner, as ImagePreprocess
    extent = [part / whole for whole, part in zip(resized, seen)]
    height, width = size
    pixels = np.empty((len(boxes), 4), np.float32)
    with np.errstate(all="ignore"):  # absurd predictions
        pixels[:, 0::2] = np.clip((low[1] + boxes[:, 0::2] * extent[1]) * width, 0, width)
        pixels[:, 1::2] = np.clip((low[0] + boxes[:, 1::2] * extent[0]) * height, 0, height)
    return pixels
