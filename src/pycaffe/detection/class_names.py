"""The names of a detector's classes, from a list or from one of SSD's label maps."""

from __future__ import annotations

import os
import re

from pycaffe.data.label_map import names_by_label, read_label_map
from pycaffe.errors import DataError, InputError
from pycaffe.net import Net

__all__ = ["names_for", "read_class_names"]

LABEL_MAP = re.compile(r"^\s*item\s*:?\s*\{", re.MULTILINE)
# Which parameter has a type's number of classes.
PARAMS = {
    "DetectionOutput": "detection_output_param",
    "YoloDetectionOutput": "yolo_detection_output_param",
    "Yolov3DetectionOutput": "yolov3_detection_output_param",
}


def read_class_names(path: str | os.PathLike[str]) -> list[str] | dict[int, str]:
    """The names of a file: by number of a label map (`item { name: "dog" label: 12 }`), else its lines in order.

    Raises:
        DataError: it cannot be read, is empty, or gives a number two names.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Could not read the labels {os.fspath(path)!r}: {error}.") from error
    if LABEL_MAP.search(text):
        return names_by_label(read_label_map(path), strict=True, display=True)
    if not text.strip():
        raise DataError(f"Could not read the labels {os.fspath(path)!r}: it is empty.")
    return [line.strip() for line in text.rstrip().split("\n")]


def names_for(net: Net, names: list[str] | dict[int, str]) -> dict[int, str]:
    """Names by the numbers of the net's detections, without the background.

    A list may leave the background out, and begins with class 1 then; so do YOLO's, whose detections count from 1.

    Raises:
        InputError: a list has more or fewer names than the net's detection layer has classes: then it is another net's.
    """
    types = [
        (layer.type, getattr(layer.layer_param, PARAMS[layer.type])) for layer in net.layers if layer.type in PARAMS
    ]
    if not types:
        return names if isinstance(names, dict) else dict(enumerate(names))
    type, param = types[0]
    ssd = type == "DetectionOutput"
    background = param.background_label_id if ssd else 0
    if isinstance(names, list):
        classes = param.num_classes + (not ssd)
        left_out = background == 0 and len(names) == classes - 1
        if len(names) != classes and not left_out:
            raise InputError(f"There are {len(names)} labels, and the net's {type} has {classes} classes.")
        names = dict(enumerate(names, int(left_out)))
    return {number: name for number, name in names.items() if number != background}
