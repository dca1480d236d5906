"""Detections as COCO's JSON: `images`, `annotations` (each with its score), `categories`.

It is what annotation tools and `COCO(file)` of pycocotools read, and its list of annotations is what `loadRes` takes.
The boxes are x, y, width, height in pixels, rounded to hundredths. Images are numbered from 1. Failed ones stand in
`errors`, which COCO's readers ignore.

There is one object a line, so that the file can be made, and read again for a job that goes on, line by line. Images
and annotations are in the same order.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from pycaffe.cli._sinks.rows import Column, Row
from pycaffe.errors import DataError

__all__ = ["CocoFormat", "Detections"]

SIDES = ("left", "top", "right", "bottom")
Section = Iterator[dict[str, Any]]
_BEGIN = '{\n"info": {"description": "caffe detect"}'


class Detections(Protocol):
    """A table with the columns width and height, and for each detection class, perhaps label, score and the SIDES."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """See `Table`."""

    @property
    def names(self) -> Mapping[int, str]:
        """The classes that have a name."""


class CocoFormat:
    """Makes and reads COCO's files of a table of detections."""

    def __init__(self, table: Detections) -> None:
        self._names = table.names
        self._labels = any(column.name == "label" for column in table.columns)

    def make(self, rows: Callable[[], Iterable[Row]], target: Any) -> None:
        """Writes rows, which are read several times, to a name or a binary file."""
        classes = set(self._names)
        with _text(target) as file:
            file.write(_BEGIN)
            _write(file, "images", _images(rows()))
            _write(file, "annotations", _annotations(rows(), classes))
            known = ({"id": number, "name": self._names.get(number, str(number))} for number in sorted(classes))
            _write(file, "categories", known)
            failed = ({"file_name": row.path, "error": row.error} for row in rows() if row.values is None)
            _write(file, "errors", failed)
            file.write("\n}\n")

    def good_rows(self, name: str) -> Iterator[Row]:
        """The rows of a file that did not fail, one of them in memory."""
        with _section(name, "images") as images, _section(name, "annotations") as annotations:
            waiting = next(annotations, None)
            for image in images:
                own = []
                while waiting is not None and waiting["image_id"] == image["id"]:
                    own.append(waiting)
                    waiting = next(annotations, None)
                yield self._row(image, own)

    def paths(self, name: str) -> Iterator[tuple[str, bool]]:
        """Path and whether it failed, for each row."""
        for section in ("images", "errors"):
            with _section(name, section) as objects:
                for each in objects:
                    yield each["file_name"], section == "errors"

    def _row(self, image: dict[str, Any], annotations: list[dict[str, Any]]) -> Row:
        boxes = np.array([each["bbox"] for each in annotations]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        classes = np.array([each["category_id"] for each in annotations], np.int64)
        values = {
            "width": np.array(image["width"]),
            "height": np.array(image["height"]),
            "class": classes,
            "score": np.array([each["score"] for each in annotations], np.float32),
            **dict(zip(SIDES, boxes.astype(np.float32).T)),
        }
        if self._labels:
            values["label"] = np.array([self._names.get(number, "") for number in classes.tolist()], dtype=object)
        return Row(image["file_name"], values)


def _images(rows: Iterable[Row]) -> Section:
    number = 0
    for row in rows:
        if row.values is not None:
            number += 1
            size = {key: int(row.values[key]) for key in ("width", "height")}
            yield {"id": number, "file_name": row.path, **size}


def _annotations(rows: Iterable[Row], classes: set[int]) -> Section:
    """The annotations of all rows; their classes are added to `classes`."""
    image = number = 0
    for row in rows:
        if row.values is None:
            continue
        image += 1
        for kind, score, left, top, right, bottom in zip(
            *(row.values[key].tolist() for key in ("class", "score", *SIDES))
        ):
            number += 1
            classes.add(kind)
            x, y, width, height = (round(value, 2) for value in (left, top, right - left, bottom - top))
            yield {
                "id": number,
                "image_id": image,
                "category_id": kind,
                "bbox": [x, y, width, height],
                "area": round(width * height, 2),
                "iscrowd": 0,
                "score": float(f"{score:.7g}"),
            }


def _write(file: io.TextIOWrapper, key: str, objects: Iterable[dict[str, Any]]) -> None:
    file.write(f',\n"{key}": [')
    separator = "\n"
    for each in objects:
        file.write(separator + json.dumps(each, allow_nan=False))
        separator = ",\n"
    file.write("\n]")


@contextlib.contextmanager
def _text(target: Any) -> Iterator[io.TextIOWrapper]:
    """A name, or a binary file that stays open, as a file of ASCII."""
    if isinstance(target, str):
        with open(target, "w", encoding="ascii", newline="\n") as file:
            yield file
        return
    wrapper = io.TextIOWrapper(target, encoding="ascii", newline="\n")
    try:
        yield wrapper
        wrapper.flush()
    finally:
        wrapper.detach()


@contextlib.contextmanager
def _section(name: str, key: str) -> Iterator[Section]:
    with open(name, encoding="ascii", errors="replace") as file:
        yield _objects(file, name, key)


def _objects(file: io.TextIOWrapper, name: str, key: str) -> Section:
    """The objects of one list.

    Raises:
        DataError: the file is damaged or another program's.
    """
    if file.read(len(_BEGIN)) != _BEGIN:
        raise DataError(f"{name!r} is not a file of this command: it does not begin with {_BEGIN!r}.")
    inside = False
    for line in file:
        if not inside:
            inside = line == f'"{key}": [\n'
        elif line.startswith("]"):
            return
        else:
            try:
                yield json.loads(line.rstrip(",\n"))
            except ValueError as error:
                raise DataError(f"{name!r} is damaged: {line[:60]!r} is no JSON object.") from error
    raise DataError(f"{name!r} is damaged: it ends before its {key!r} do.")
