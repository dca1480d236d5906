"""What the workers of `caffe detect` do before and behind the net."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pycaffe.cli._drawing import Drawing
from pycaffe.cli._sinks.coco import SIDES
from pycaffe.detection import Detector
from pycaffe.images import ImagePreprocess, decode
from pycaffe.workers import WithContext

__all__ = ["FindObjects", "Photograph", "ReadImage"]


class Photograph(NamedTuple):
    """A path, and the size of the image there."""

    path: str
    height: int
    width: int


class ReadImage:
    """`preprocess` of the pool: the net's input, and the size that the image had."""

    def __init__(self, images: ImagePreprocess) -> None:
        self._images = images

    def __call__(self, path: str) -> WithContext:
        """Raises InputError where the image cannot be used."""
        pixels = decode(path, grey=self._images.grey)
        return WithContext(self._images(pixels), Photograph(path, *pixels.shape[:2]))


class FindObjects:
    """`postprocess` of the pool: the record's values, and the drawing."""

    def __init__(self, detector: Detector, drawing: Drawing | None) -> None:
        self._detector = detector
        self._drawing = drawing

    def __call__(self, outputs: dict[str, npt.NDArray[Any]], image: Photograph) -> dict[str, npt.NDArray[Any]]:
        """See `Objects` for the values.

        Raises:
            InputError: `--decode` returned something else than rows, or the image is gone.
            OSError: the drawing cannot be written.
        """
        found = self._detector(outputs, (image.height, image.width))
        if self._drawing is not None:
            self._drawing.draw(image.path, found)
        return {
            "width": np.array(image.width),
            "height": np.array(image.height),
            "class": found.classes,
            "score": found.scores,
            **dict(zip(SIDES, found.boxes.T)),
        }
