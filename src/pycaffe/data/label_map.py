"""Label maps: prototxt files that give SSD's classes numbers and names."""

from __future__ import annotations

import os
from typing import Any

from pycaffe.errors import DataError, ProtoError
from pycaffe.proto import schema
from pycaffe.proto.prototxt import parse_text, read_text

__all__ = ["labels_by_name", "names_by_label", "read_label_map"]


def read_label_map(path: str | os.PathLike[str]) -> Any:
    """The LabelMap of a prototxt: `item { name: "dog" label: 12 display_name: "Dog" }`, and so on.

    Raises:
        DataError: it is missing, empty, or no LabelMap.
    """
    try:
        return parse_text(schema.LabelMap(), read_text(path), os.fspath(path))
    except ProtoError as error:
        raise DataError(f"Failed to read label map file. {error}") from error


def labels_by_name(label_map: Any, strict: bool = False) -> dict[str, int]:
    """The number of each name; the last one where a name comes twice.

    Raises:
        DataError: with `strict`, a name comes twice.
    """
    labels: dict[str, int] = {}
    for item in label_map.item:
        if strict and item.name in labels:
            raise DataError(
                f"There are many duplicates of name: {item.name}. It has the labels {labels[item.name]!r} and "
                f"{item.label!r}."
            )
        labels[item.name] = item.label
    return labels


def names_by_label(label_map: Any, strict: bool = False, display: bool = False) -> dict[int, str]:
    """The name of each number, or the display_name where one is given and `display` asks for it.

    Raises:
        DataError: with `strict`, a label comes twice.
    """
    names: dict[int, str] = {}
    for item in label_map.item:
        if strict and item.label in names:
            raise DataError(
                f"There are many duplicates of label: {item.label}. It has the names {names[item.label]!r} and "
                f"{item.name!r}."
            )
        names[item.label] = item.display_name if display and item.display_name else item.name
    return names
