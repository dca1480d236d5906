"""`caffe detect`: images → the objects in them, in worker processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from pycaffe.cli._decode_function import DecodeFunction
from pycaffe.cli._identity import hash_of
from pycaffe.cli._image_options import ImageOptions, image_options
from pycaffe.cli._job import JobOptions, job_options, open_net, run_job
from pycaffe.cli._report import Caption

if TYPE_CHECKING:
    import numpy.typing as npt

    from pycaffe.cli._sinks.rows import Values
    from pycaffe.detection import Detector

FORMATS = ("jsonl", "csv", "coco")
SHOWN = 50  # boxes of a thumbnail


@click.command("detect")
@job_options(FORMATS)
@click.option("--labels", "labels_file", metavar="FILE", help="Names of the classes: one a line, or a label map.")
@click.option("--threshold", type=float, default=0.5, show_default=True, metavar="S", help="The least score.")
@click.option("--draw", metavar="DIR", help="Write each photograph there with its boxes in it.")
@click.option(
    "--decode",
    metavar="MODULE:FUNCTION|FILE.py:FUNCTION",
    help="Makes detections of the outputs of a net that has no detection layer.",
)
@image_options
def command(
    labels_file: str | None,
    threshold: float,
    draw: str | None,
    decode: str | None,
    mean: str | None,
    scale: float,
    resize: int | None,
    crop: int | None,
    **job: Any,
) -> int:
    """Find objects in images, in worker processes.

    The net ends in a DetectionOutput, YoloDetectionOutput or Yolov3DetectionOutput. For any other, --decode names a
    function: it takes the net's outputs of an image, a dict of arrays by blob name without the batch axis, and returns
    rows of class, score, left, top, right, bottom, the box in parts of the width and height of the net's input.

    Boxes in records are left, top, right, bottom in pixels of the image, the best score first. CSV has a line for each
    detection, and one for an image without any. COCO's JSON has left, top, width, height; its annotations have scores.

    --draw keeps the folders of PATHS below the one that they have in common. PNG and JPEG stay what they are, others
    become JPEG.

    PATHS, --resume, the other options and the exit status are those of `caffe classify`.
    """
    from pycaffe.cli._drawing import Drawing
    from pycaffe.cli._worker_steps import FindObjects, ReadImage
    from pycaffe.detection import Detector, names_for, read_class_names
    from pycaffe.errors import InputError

    options = JobOptions(**job)
    net = open_net(options)
    images = ImageOptions(mean, scale, resize, crop).preprocess(net, "detect")
    function = DecodeFunction(decode) if decode is not None else None
    try:
        detector = Detector(net, images, threshold, function)
    except InputError as error:
        raise click.UsageError(f"{error} Give --decode.") from error
    names = names_for(net, read_class_names(labels_file)) if labels_file is not None else {}
    drawing = Drawing(draw, options.paths, names) if draw is not None else None
    settings = {"threshold": threshold, "decode": function and function.identity}
    steps = (ReadImage(images), FindObjects(detector, drawing))
    return run_job("detect", options, images, Objects(detector, names, settings), steps)


class Objects:
    """The table of this verb: width and height of the image, and `class`, `label` (if there are any), `score`, `left`,
    `top`, `right` and `bottom` of each detection.

    In JSON: `"width": 640, "height": 480, "detections": [{"class": 1, "label": "face", "score": 0.9, "box": [left, top,
    right, bottom]}, …]`.
    """

    formats = FORMATS

    def __init__(self, detector: Detector, names: Mapping[int, str], settings: Mapping[str, Any]) -> None:
        from pycaffe.cli._sinks.coco import SIDES
        from pycaffe.cli._sinks.rows import Column

        label = (Column("label", "str", (), many=True),) if names else ()
        self.columns = (
            Column("width", "int64", ()),
            Column("height", "int64", ()),
            Column("class", "int64", (), many=True),
            *label,
            Column("score", "float32", (), many=True),
            *(Column(side, "float32", (), many=True) for side in SIDES),
        )
        self.outputs = detector.outputs
        self.names = names
        labels = hash_of(repr(sorted(names.items())).encode()) if names else None
        self.settings: Mapping[str, Any] = {**settings, "labels": labels}

    def values(self, outputs: Mapping[str, npt.NDArray[Any]]) -> Values:
        """See `JobTable`."""
        import numpy as np

        if not self.names:
            return outputs
        return {**outputs, "label": np.array(self._labels(outputs), dtype=object)}

    def json(self, values: Values) -> str:
        """See `Table`."""
        import json

        found = [
            {
                "class": number,
                **({"label": label} if self.names else {}),
                "score": float(f"{score:.7g}"),
                "box": [float(f"{value:.7g}") for value in box],
            }
            for number, label, score, box in zip(
                values["class"].tolist(), self._labels(values), values["score"].tolist(), _boxes(values)
            )
        ]
        return f'"width": {values["width"]}, "height": {values["height"]}, "detections": {json.dumps(found)}'

    def caption(self, values: Values) -> Caption:
        """See `JobTable`."""
        labels = self._labels(values)
        counts = {label: labels.count(label) for label in labels}  # in the order of the best of each
        text = ", ".join(f"{label} × {count}" if count > 1 else label for label, count in counts.items())
        boxes = [(number, *box) for number, box in zip(values["class"].tolist(), _boxes(values)[:SHOWN])]
        return Caption(text or "nothing", float(values["score"][0]) if labels else 0.0, boxes)

    def _labels(self, values: Mapping[str, npt.NDArray[Any]]) -> list[str]:
        return [self.names.get(number, f"class {number}") for number in values["class"].tolist()]


def _boxes(values: Mapping[str, npt.NDArray[Any]]) -> list[tuple[float, float, float, float]]:
    left, top, right, bottom = (values[side].tolist() for side in ("left", "top", "right", "bottom"))
    return list(zip(left, top, right, bottom))
