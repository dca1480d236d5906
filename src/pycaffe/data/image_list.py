"""Lists of images: text files with `path label` lines, as convert_imageset and ImageData read them."""

from __future__ import annotations

import re

from pycaffe.data.database import working_directory
from pycaffe.errors import DataError

__all__ = ["read_image_list", "read_lines"]


def read_lines(path: str, sentence: str) -> list[str]:
    """The lines of a text file without their ends. Bytes that are not UTF-8 survive, as they may in file names.

    Raises:
        DataError: it cannot be opened; the message begins with `sentence`, the original's.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return [line.rstrip("\n") for line in file]  # splitlines would split names at U+0085 and others, too
    except OSError as error:
        raise DataError(f"{sentence}: {path}. {error.strerror}.{working_directory(path)}") from error


def read_image_list(path: str) -> list[tuple[str, int]]:
    """(path, label) of each line of an image list.

    The label stands after the last space, so paths may hold spaces; a line without a space has label 0. Blank lines are
    skipped.

    Raises:
        DataError: the file is missing or empty, or a label is no number.
    """
    items = []
    for number, line in enumerate(read_lines(path, "File is empty: could not open the image list"), 1):
        if not line.strip():
            continue
        name, space, text = line.rpartition(" ")
        if not space:
            items.append((line, 0))
            continue
        label = re.match(r"\s*([+-]?\d+)", text)  # as atoi: what follows the digits is ignored
        if label is None:
            raise DataError(f"{path}:{number}: {text!r} is no label. Lines are `path label`, with a number as label.")
        items.append((name, int(label[1])))
    if not items:
        raise DataError(f"File is empty: the image list {path!r} names no image.")
    return items
