"""Boxes drawn into a photograph, with their names, in a fixed colour for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.images.decode import load_cv2

__all__ = ["PALETTE", "colour_of", "draw_boxes"]

Colour = tuple[int, int, int]

# Blue, green, red. The first seven are Okabe and Ito's, which can be told apart by the colour-blind, too.
PALETTE: tuple[Colour, ...] = (
    (115, 158, 0),
    (0, 94, 213),
    (178, 114, 0),
    (0, 159, 230),
    (167, 121, 204),
    (233, 180, 86),
    (66, 228, 240),
    (60, 20, 220),
    (113, 179, 60),
    (200, 60, 120),
    (128, 128, 0),
    (42, 42, 165),
)
DARK = 140  # mean of a colour below which white is read more easily on it than black


def colour_of(number: int) -> Colour:
    """Blue, green, red for a class, the same in every image; they come again after the last."""
    return PALETTE[number % len(PALETTE)]


def draw_boxes(
    image: npt.NDArray[np.uint8],
    boxes: npt.NDArray[np.float32],
    classes: Sequence[int],
    texts: Sequence[str] | None = None,
) -> npt.NDArray[np.uint8]:
    """A copy of the image with boxes in it, the first one uppermost.

    Args:
        image: (H, W, 3), blue green red.
        boxes: (n, 4), left, top, right, bottom in its pixels.
        classes: number of each box's class, for its colour.
        texts: to stand on the boxes. Letters that OpenCV's font lacks become question marks.
    """
    cv2 = load_cv2("drawing boxes")
    drawn: npt.NDArray[np.uint8] = np.ascontiguousarray(image).copy()
    height, width = drawn.shape[:2]
    thick = max(1, round(max(height, width) / 300))
    for index in reversed(range(len(boxes))):
        colour = colour_of(classes[index])
        left, top, right, bottom = (round(float(value)) for value in boxes[index])
        right, bottom = min(right, width - 1), min(bottom, height - 1)
        cv2.rectangle(drawn, (left, top), (right, bottom), colour, thick)
        if texts is not None:
            _write(cv2, drawn, texts[index], (left, top), colour)
    return drawn


def _write(cv2: Any, image: npt.NDArray[np.uint8], text: str, corner: tuple[int, int], colour: Colour) -> None:
    """Text on a bar above the box, or within where there is no room above."""
    text = text.encode("ascii", "replace").decode("ascii")
    scale = max(0.35, max(image.shape[:2]) / 1200)
    thick = max(1, round(scale * 1.5))
    font = cv2.FONT_HERSHEY_SIMPLEX
    (width, height), below = cv2.getTextSize(text, font, scale, thick)
    high = height + below + 2
    left = max(0, min(corner[0], image.shape[1] - width - 4))
    top = corner[1] - high if corner[1] >= high else corner[1]
    cv2.rectangle(image, (left, top), (left + width + 4, top + high), colour, -1)
    ink = (255, 255, 255) if sum(colour) / 3 < DARK else (0, 0, 0)
    cv2.putText(image, text, (left + 2, top + height + 1), font, scale, ink, thick, cv2.LINE_AA)
