"""Files that say what an image shows, to AnnotatedDatum's groups: VOC's XML, COCO's JSON, plain text (util/io.cpp).

Boxes outside of the image or inverted are stored as they are, with a warning, as in the fork; AnnotatedData clips the
first and drops the second.
"""

from __future__ import annotations

import json
import logging
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pycaffe.data.image_list import read_lines
from pycaffe.errors import DataError, did_you_mean

__all__ = [
    "AnnotatedFile",
    "Annotation",
    "READERS",
    "add_annotations",
]

logger = logging.getLogger(__name__)


class Annotation(NamedTuple):
    """An object as its file says: its class by name, or by label where the file gives that; corners in pixels."""

    name: str | int
    corners: tuple[float, float, float, float]
    difficult: bool


class AnnotatedFile(NamedTuple):
    """The objects of a file, and the height and width of the image as it says (None: it does not)."""

    size: tuple[int, int] | None
    objects: list[Annotation]


def add_annotations(record: Any, path: str, kind: str, original: tuple[int, int], labels: Mapping[str, int]) -> None:
    """Adds to an AnnotatedDatum the objects of a file, grouped by label in the order in which labels come first.

    Args:
        record: an AnnotatedDatum.
        path: of the file.
        kind: "xml", "json" or "txt".
        original: height and width of the image, before it was resized.
        labels: by name of a class.

    Raises:
        DataError: the file cannot be read or is no such file, or names a class that is not in `labels`.
    """
    annotated = READERS[kind](path)
    height, width = annotated.size or original
    if annotated.size is None and kind != "txt":
        _warn(f"When parsing {path}: No such node (image height and width).")
    for side, said, real in (("height", height, original[0]), ("width", width, original[1])):
        if said != real:
            _warn(f"{path} inconsistent image {side}. It says {said!r}, the image has {real!r}.")
    if height <= 0 or width <= 0:
        raise DataError(f"{path} no valid image width/height. It says width {width!r}, height {height!r}.")
    groups = {group.group_label: group for group in record.annotation_group}
    for each in annotated.objects:
        label = each.name if isinstance(each.name, int) else _label_of(each.name, labels, path)
        if label not in groups:
            groups[label] = record.annotation_group.add(group_label=label)
        _warn_of_box(each.corners, height, width, path)
        annotation = groups[label].annotation.add(instance_id=len(groups[label].annotation))
        for index, field in enumerate(("xmin", "ymin", "xmax", "ymax")):
            setattr(annotation.bbox, field, each.corners[index] / (width, height)[index % 2])
        annotation.bbox.difficult = each.difficult


def _label_of(name: str, labels: Mapping[str, int], path: str) -> int:
    if name not in labels:
        raise DataError(
            f"Unknown name: {name}. {path} names a class that the label map lacks.{did_you_mean(name, labels)}"
        )
    return labels[name]


def _warn_of_box(corners: tuple[float, float, float, float], height: int, width: int, path: str) -> None:
    xmin, ymin, xmax, ymax = corners
    if min(corners) < 0 or max(xmin, xmax) > width or max(ymin, ymax) > height:
        _warn(f"{path} bounding box exceeds image boundary.")
    if xmin > xmax or ymin > ymax:
        _warn(f"{path} bounding box irregular.")


def _warn(message: str) -> None:
    logger.warning(message, extra={"place": "io.cpp:316"})


def _read_xml(path: str) -> AnnotatedFile:
    """VOC's and ILSVRC's: annotation/object with name, difficult, bndbox."""
    try:
        root = ElementTree.fromstring("\n".join(read_lines(path, "Could not open the annotation")).encode())
        size = root.find("size")
        extents = None if size is None else (int(_text(size, "height")), int(_text(size, "width")))
        objects = []
        for each in root.iter("object"):
            box = each.find("bndbox")
            if box is None:
                raise ValueError("an object has no bndbox")
            xmin, ymin, xmax, ymax = (int(float(_text(box, name))) for name in ("xmin", "ymin", "xmax", "ymax"))
            difficult = each.findtext("difficult", "").strip() == "1"
            objects.append(Annotation(_text(each, "name"), (xmin, ymin, xmax, ymax), difficult))
    except (ElementTree.ParseError, ValueError, OverflowError) as error:
        raise DataError(f"{path} is no annotation in VOC's XML: {error}.") from error
    return AnnotatedFile(extents, objects)


def _text(element: ElementTree.Element, name: str) -> str:
    text = element.findtext(name)
    if text is None or not text.strip():
        raise ValueError(f"{element.tag} has no {name}")
    return text.strip()


def _read_json(path: str) -> AnnotatedFile:
    """COCO's, one file an image: {"image": {"height", "width"}, "annotation": [{"category_id", "bbox", "iscrowd"}]}."""
    try:
        content = json.loads("\n".join(read_lines(path, "Could not open the annotation")))
        image = content.get("image", {})
        known = "height" in image and "width" in image
        return AnnotatedFile(
            (int(image["height"]), int(image["width"])) if known else None, list(_json_objects(content["annotation"]))
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no annotation in COCO's JSON: {error!r}.") from error


def _json_objects(annotations: list[dict[str, Any]]) -> Iterator[Annotation]:
    for each in annotations:
        x, y, width, height = (float(value) for value in each["bbox"])
        yield Annotation(str(each["category_id"]), (x, y, x + width, y + height), bool(int(each.get("iscrowd", 0))))


def _read_txt(path: str) -> AnnotatedFile:
    """Lines `label xmin ymin xmax ymax`."""
    objects = []
    for number, line in enumerate(read_lines(path, "Cannot open"), 1):
        words = line.split()
        if not words:
            continue
        try:
            label = int(words[0])
            xmin, ymin, xmax, ymax = (float(word) for word in words[1:])
        except ValueError as error:
            raise DataError(f"{path}:{number}: {line!r} is not `label xmin ymin xmax ymax`.") from error
        objects.append(Annotation(label, (xmin, ymin, xmax, ymax), False))
    return AnnotatedFile(None, objects)


READERS = {"xml": _read_xml, "json": _read_json, "txt": _read_txt}
