"""AnnotatedDatum messages, the records of SSD's databases: an image and the objects in it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from pycaffe.data.boxes import Array
from pycaffe.errors import DataError
from pycaffe.proto import schema

__all__ = ["Annotations", "annotations_of", "parse_annotated_datum"]


class Annotations(NamedTuple):
    """The objects in an image, one an element: label, number among those of its label, box (n, 4), difficult or not."""

    label: npt.NDArray[np.int64]
    instance: npt.NDArray[np.int64]
    box: Array
    difficult: npt.NDArray[np.bool_]

    def select(self, which: npt.NDArray[np.bool_]) -> Annotations:
        """The objects for which `which` holds."""
        return Annotations(self.label[which], self.instance[which], self.box[which], self.difficult[which])

    def rows(self, item: int) -> Array:
        """As AnnotatedData gives them, (n, 8), for the image `item` of a batch."""
        columns = (np.full(len(self.label), item), self.label, self.instance, self.box, self.difficult)
        return np.column_stack(columns).astype(np.float32)


def parse_annotated_datum(value: bytes, name: str) -> Any:
    """The AnnotatedDatum in a record's value; `name` says for messages where it came from.

    Raises:
        DataError: the bytes are no AnnotatedDatum.
    """
    try:
        record = schema.AnnotatedDatum.FromString(value)
    except DecodeError as error:
        raise DataError(f"{name} is no AnnotatedDatum: {error}.") from error
    if not record.HasField("datum"):
        raise DataError(
            f"{name} is no AnnotatedDatum: it holds no image. Databases for AnnotatedData come from caffe "
            "convert_annoset; those of convert_imageset are for Data."
        )
    return record


def annotations_of(record: Any, name: str) -> Annotations:
    """The objects of an AnnotatedDatum.

    Raises:
        DataError: a coordinate is not finite.
    """
    found = [(group.group_label, each) for group in record.annotation_group for each in group.annotation]
    boxes = [(each.bbox.xmin, each.bbox.ymin, each.bbox.xmax, each.bbox.ymax) for _, each in found]
    box = np.array(boxes, np.float32).reshape(-1, 4)
    if not np.isfinite(box).all():
        raise DataError(f"{name} has an object whose box is not finite.")
    return Annotations(
        np.array([label for label, _ in found], np.int64),
        np.array([each.instance_id for _, each in found], np.int64),
        box,
        np.array([each.bbox.difficult for _, each in found], bool),
    )
