"""`detect`: the objects that a net finds in one image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pycaffe.detection.detector import Decode, Detector
from pycaffe.errors import InputError
from pycaffe.images import ImagePreprocess
from pycaffe.images import decode as decode_image
from pycaffe.images.decode import ImageSource
from pycaffe.net import Net

__all__ = ["Box", "Detection", "detect"]


class Box(NamedTuple):
    """A box in pixels of the image: its left top corner is (0, 0), its right bottom one (width, height)."""

    left: float
    top: float
    right: float
    bottom: float


class Detection(NamedTuple):
    """An object that was found. `label` is the name of its class, or "class 3" where there are no names."""

    class_id: int
    label: str
    score: float
    box: Box


def detect(
    net: Net,
    image: ImageSource | npt.NDArray[np.uint8],
    *,
    preprocess: ImagePreprocess | None = None,
    labels: Mapping[int, str] | None = None,
    threshold: float = 0.5,
    decode: Decode | None = None,
) -> list[Detection]:
    """What the net finds in an image, from the highest score down.

        net = pycaffe.Net("deploy.prototxt", weights="res10_300x300_ssd_iter_140000.caffemodel")
        faces = pycaffe.detect(net, "photo.jpg", preprocess=ImagePreprocess(mean=(104, 177, 123), resize=300))

    Args:
        net: with one input, of images.
        image: a path, the bytes of an image file, a binary file, or an array (H, W, 3 or 1) of uint8, blue green red.
        preprocess: makes the net's input of it; None stretches it to the size that the input has, with no mean.
        labels: names of classes by number.
        threshold: the least score.
        decode: for a net that has no DetectionOutput, YoloDetectionOutput or Yolov3DetectionOutput: takes the outputs
            by blob name, without the batch axis, and returns rows of class, score, left, top, right, bottom, the box in
            parts of the input's width and height.

    Raises:
        InputError: the image cannot be read, or the net is none that detects in images.
    """
    name, shape = _input(net)
    if preprocess is None:
        preprocess = ImagePreprocess(mean=None, resize=(shape[2], shape[3]), grey=shape[1] == 1)
    detector = Detector(net, preprocess, threshold, decode)
    pixels = image if isinstance(image, np.ndarray) else decode_image(image, grey=preprocess.grey)
    values = preprocess(pixels)
    net.blobs[name].reshape(1, *values.shape)
    net.blobs[name].data[0] = values
    net.forward()
    outputs = {output: net.blobs[output].data for output in detector.outputs}
    outputs = {output: array[0] if array.ndim and len(array) == 1 else array for output, array in outputs.items()}
    found = detector(outputs, pixels.shape[:2])
    names = labels or {}
    return [
        Detection(number, names.get(number, f"class {number}"), score, Box(*box))
        for number, score, box in zip(found.classes.tolist(), found.scores.tolist(), found.boxes.tolist())
    ]


def _input(net: Net) -> tuple[str, tuple[int, ...]]:
    """Name and shape of the input.

    Raises:
        InputError: there is not just one, or it is not of images.
    """
    inputs = {name: net.blobs[name].shape for name in net.inputs}
    for name, shape in inputs.items():
        if len(inputs) == 1 and len(shape) == 4 and shape[1] in (1, 3):
            return name, shape
    raise InputError(
        f"detect needs a net with one input of shape (N, 3 or 1, height, width). This one has {inputs or 'none'}; give "
        "the deploy form of the net."
    )
