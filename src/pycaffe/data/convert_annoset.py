"""From images, annotations and a list of both to a database for AnnotatedData (SSD's tools/convert_annoset.cpp)."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import Any, NamedTuple

from pycaffe.data.annotation_files import READERS, add_annotations
from pycaffe.data.convert_imageset import ImageFormat, StoredImage, store_image
from pycaffe.data.image_list import read_image_list, read_lines
from pycaffe.data.label_map import labels_by_name, read_label_map
from pycaffe.data.listed_records import Record, ToolLog, write_listed_records
from pycaffe.errors import DataError, InputError
from pycaffe.proto import schema

__all__ = ["AnnotationFormat", "convert_annoset"]

BBOX = 0  # AnnotatedDatum.AnnotationType
NO_LABEL = -1
logger = logging.getLogger(__name__)
LOG = ToolLog(logger, "convert_annoset.cpp", shuffling=118, total=121, encode_type=124, progress=195, end=201)


class AnnotationFormat(NamedTuple):
    """What the list's second column is.

    Attributes:
        anno_type: "classification": a label; "detection": the path of a file with the objects in the image.
        label_type: "xml" (VOC), "json" (COCO, one file an image) or "txt" (lines `label xmin ymin xmax ymax`).
        label_map_file: a LabelMap prototxt, for detection: the labels of the classes that XML and JSON name.
        check_label: a name that comes twice in the label map is an error.
    """

    anno_type: str = "classification"
    label_type: str = "xml"
    label_map_file: str = ""
    check_label: bool = False


def convert_annoset(
    root_folder: str,
    list_file: str,
    path: str,
    annotation_format: AnnotationFormat = AnnotationFormat(),  # noqa: B008 (it is immutable)
    image_format: ImageFormat = ImageFormat(),  # noqa: B008
    *,
    backend: str = "lmdb",
    shuffle: bool = False,
    check_size: bool = False,
) -> int:
    """Makes a database of AnnotatedDatum messages. An image that cannot be read is left out, and logged; one whose
    annotation does not exist is stored without objects, as in the fork, and logged.

    Args:
        root_folder: put before each path as it is: end it with a slash.
        list_file: lines `image label`, or `image annotation`.
        path: the database's folder; nothing may be there yet.
        annotation_format: what the list's second column is.
        image_format: how images are stored.
        backend: "lmdb" or "leveldb".
        shuffle: the images are stored in random order.
        check_size: an image of another size than the first is an error.

    Returns:
        The number of records. Their keys are the line's number and path, `00000007_some/path.jpg`.

    Raises:
        DataError: the list, the label map, an annotation or the database is not as it should be, no image could be
            read, or with `check_size` two differ.
        MissingExtra: OpenCV, `lmdb` or `plyvel` is not installed.
    """
    lines, labels = _read_list(list_file, annotation_format)
    return write_listed_records(
        list_file,
        lines,
        path,
        partial(_record, root_folder, annotation_format.label_type, image_format, labels),
        _log_failure,
        LOG,
        assumes_encoded=bool(image_format.encode_type) and not image_format.encoded,
        backend=backend,
        shuffle=shuffle,
        check_size=check_size,
    )


def _log_failure(name: str, error: InputError) -> None:
    logger.warning(f"Failed to read {name}. {error}", extra={"place": f"{LOG.file}:170"})


Line = tuple[str, int | str]
"""A path, and its label or the path of its annotation."""


def _read_list(list_file: str, annotations: AnnotationFormat) -> tuple[list[Line], dict[str, int]]:
    """The list's lines, and the labels of the label map by name."""
    if annotations.anno_type == "classification":
        return [(name, label) for name, label in read_image_list(list_file)], {}
    if annotations.anno_type != "detection":
        raise DataError(f"Unknown anno_type: {annotations.anno_type!r} (known: classification, detection).")
    if annotations.label_type not in READERS:
        raise DataError(f"Unknown label type: {annotations.label_type!r} (known: {', '.join(READERS)}).")
    labels = labels_by_name(read_label_map(annotations.label_map_file), annotations.check_label)
    lines: list[Line] = []
    for number, line in enumerate(read_lines(list_file, "File is empty: could not open the image list"), 1):
        words = line.split()
        if words and len(words) != 2:
            raise DataError(f"{list_file}:{number}: {line!r} is not `image annotation`, two paths without spaces.")
        lines += [(words[0], words[1])] if words else []
    if not lines:
        raise DataError(f"File is empty: the image list {list_file!r} names no image.")
    return lines, labels


def _record(root_folder: str, label_type: str, image_format: ImageFormat, labels: dict[str, int], line: Line) -> Record:
    """ReadRichImageToAnnotatedDatum of io.cpp."""
    name, second = line
    detection = isinstance(second, str)
    label = NO_LABEL if isinstance(second, str) else second
    stored = store_image(root_folder, name, label, image_format, f"{LOG.file}:146")
    record = schema.AnnotatedDatum(datum=_with_shape(stored))
    if detection:
        record.type = BBOX
        annotation = f"{root_folder}{second}"
        if os.path.exists(annotation):
            add_annotations(record, annotation, label_type, stored.original, labels)
        else:
            text = f"{annotation} does not exist: {name} is stored without objects."
            logger.warning(text, extra={"place": f"{LOG.file}:166"})
    return Record(record, stored.shape)


def _with_shape(stored: StoredImage) -> Any:
    """The Datum, which in the fork says an encoded image's shape, too."""
    stored.datum.height, stored.datum.width, stored.datum.channels = stored.shape
    return stored.datum
