"""DetectionOutput's `save_output_param`: detections as the files that VOC's, COCO's and ILSVRC's evaluations read.

One set of files is written when `num_test_image` images have been seen; then the count begins again. Nothing is written
without output_directory, label_map_file and name_size_file (detection_output_layer.cpp of SSD).
"""

from __future__ import annotations

import json
import logging
import os
import re
from typing import Any

from pycaffe.data.label_map import names_by_label, read_label_map
from pycaffe.errors import DataError, LayerError
from pycaffe.layers._boxes import Array
from pycaffe.layers._output_boxes import output_boxes, read_image_sizes

__all__ = ["DetectionFiles", "detection_files"]

NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
logger = logging.getLogger("pycaffe.layers.detection_output")


def detection_files(param: Any, background: int) -> DetectionFiles | None:
    """The files of a SaveOutputParameter; None where it does not ask for any."""
    if not param.output_directory:
        return None
    for field in ("label_map_file", "name_size_file"):
        if not getattr(param, field):
            logger.warning("Provide %s if output results to files.", field)
            return None
    return DetectionFiles(param, background)


class DetectionFiles:
    """Collects detections, image by image in the order of `name_size_file`, and writes them.

    Raises:
        DataError: a file cannot be read or written.  LayerError: num_test_image is larger than the list.
    """

    def __init__(self, param: Any, background: int) -> None:
        self.folder, self.prefix, self.format = param.output_directory, param.output_name_prefix, param.output_format
        self.resize = param.resize_param if param.HasField("resize_param") else None
        self.labels = names_by_label(read_label_map(param.label_map_file), strict=True)
        self.background = background
        self.images = read_image_sizes(param.name_size_file)
        self.count = param.num_test_image if param.HasField("num_test_image") else len(self.images)
        if not 0 < self.count <= len(self.images):
            raise LayerError(f"Check failed: num_test_image_ <= names_.size() ({self.count} vs. {len(self.images)}).")
        self.seen = 0
        self.detections: list[tuple[str, int, float, tuple[float, ...]]] = []

    def add(self, rows: Array) -> None:
        """Takes one image's rows (n, 7) of the layer's top."""
        name, height, width = self.images[self.seen]
        boxes, _ = output_boxes(rows[:, 3:], (height, width), self.resize)
        for row, box in zip(rows, boxes):
            label = int(row[1])
            if label not in self.labels:
                raise LayerError(f"Cannot find label: {label} in the label map.")
            corner_and_size = (box[0], box[1], box[2] - box[0], box[3] - box[1])
            rounded = tuple(round(float(value) * 100) / 100 for value in corner_and_size)
            self.detections.append((name, label, float(row[2]), rounded))
        self.seen += 1
        if self.seen == self.count:
            self._write()
            self.seen, self.detections = 0, []

    def _write(self) -> None:
        if self.format == "VOC":
            for label, name in self.labels.items():
                if label != self.background:
                    self._write_file(f"{name}.txt", "".join(self._lines(label)))
        elif self.format == "COCO":
            results = [
                {"image_id": _number(name), "category_id": _number(self.labels[label]), "bbox": box, "score": score}
                for name, label, score, box in self.detections
            ]
            self._write_file(".json", json.dumps(results, indent=4) + "\n")
        elif self.format == "ILSVRC":
            self._write_file(".txt", "".join(self._lines(None)))

    def _lines(self, wanted: int | None) -> list[str]:
        """`image [label] score xmin ymin xmax ymax`, in whole pixels, of one label, or with it of all."""
        lines = []
        for name, label, score, box in self.detections:
            if wanted in (None, label):
                x, y, width, height = map(int, box)
                what = f"{name} {label}" if wanted is None else name
                lines.append(f"{what} {score:g} {x} {y} {x + width} {y + height}\n")
        return lines

    def _write_file(self, name: str, text: str) -> None:
        path = os.path.join(self.folder, self.prefix + name)
        try:
            os.makedirs(self.folder, exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise DataError(f"Failed to write detections to {path!r}: {error}.") from error


def _number(text: str) -> str | int | float:
    """The number that a name consists of, for JSON, or the name."""
    if not NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)
