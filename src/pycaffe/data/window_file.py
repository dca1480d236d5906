"""Window files, R-CNN's lists of object proposals (window_data_layer.cpp).

# image_index
path
channels
height
width
number of windows
class overlap x1 y1 x2 y2      once a window
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pycaffe.data.image_list import read_lines
from pycaffe.errors import DataError

__all__ = ["Window", "WindowFile", "read_window_file"]


class Window(NamedTuple):
    """A box in an image; both corners belong to it."""

    image: int
    label: int
    x1: int
    y1: int
    x2: int
    y2: int


class WindowFile(NamedTuple):
    """The images and their windows; those between the thresholds are left out."""

    images: list[str]
    channels: int
    foreground: list[Window]
    background: list[Window]


def read_window_file(path: str, fg_threshold: float, bg_threshold: float) -> WindowFile:
    """Reads a window file; overlap >= fg_threshold is foreground, else < bg_threshold is background (label 0).

    Raises:
        DataError: the file is missing, empty, ends early or has a word where a number should be; a foreground window
            has no positive label; image indices do not count from 0.
    """
    words = iter(" ".join(read_lines(path, "Failed to open window file")).split())
    result = WindowFile([], 0, [], [])
    channels = 0
    for word in words:
        if word != "#":
            raise DataError(f'Check failed: hashtag == "#" ({word} vs. #) in {path!r}, image {len(result.images)!r}.')
        where = f"{path!r}, image {len(result.images)!r}"
        index = int(_number(words, where))
        if index != len(result.images):
            raise DataError(f"Image indices must count from 0: got {index!r} in {where}.")
        result.images.append(_word(words, where))
        channels, _height, _width = (int(_number(words, where)) for _ in range(3))
        for _ in range(int(_number(words, where))):
            label, overlap, *corners = (_number(words, where) for _ in range(6))
            box = [int(corner) for corner in corners]
            if overlap >= fg_threshold:
                if label <= 0:
                    raise DataError(f"Check failed: label > 0 ({label:g} vs. 0) for a foreground window of {where}.")
                result.foreground.append(Window(index, int(label), *box))
            elif overlap < bg_threshold:
                result.background.append(Window(index, 0, *box))
    if not result.images:
        raise DataError(f"Window file is empty: {path!r}.")
    return result._replace(channels=channels)


def _word(words: Iterator[str], where: str) -> str:
    word = next(words, None)
    if word is None:
        raise DataError(f"The window file ends early: {where}.")
    return word


def _number(words: Iterator[str], where: str) -> float:
    word = _word(words, where)
    try:
        return float(word)
    except ValueError as error:
        raise DataError(f"Expected a number, got {word!r} in the window file {where}.") from error
