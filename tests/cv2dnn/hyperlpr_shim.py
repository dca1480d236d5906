"""What else has broken the package hyperlpr 0.0.2 since 2019, put back while a test runs it.

The package itself is not changed. Beside `cv2.dnn.readNetFromCaffe`, which is what the test is about:

- `cv2.estimateRigidTransform` left with OpenCV 4. Here the affine map of least squares, which for the package's four
  points is what it wants.
- `np.int` left with NumPy 1.24; it was `int`.
- `cv2.CascadeClassifier` left OpenCV 5's main modules for opencv-contrib. The package makes two for another mode, and
  `plate_recognition` never uses them.
- `cv2.findContours` gives two values since OpenCV 4; the package expects three unless the version begins with "4".
- `int` of an array with one value left with NumPy 2.4; `fine_mapping` calls it on what `cv2.fitLine` gives.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

__all__ = ["hyperlpr_of_2019", "recognise"]

_ABSENT = object()


@contextlib.contextmanager
def hyperlpr_of_2019(folder: pathlib.Path) -> Iterator[Any]:
    """The package's class LPR, with a world around it as it was.

    Importing the package reads its nets already, so `cv2.dnn.readNetFromCaffe` has to be there before.
    """
    replaced: list[tuple[Any, str, Any]] = []

    def put(module: Any, name: str, value: Any) -> None:
        replaced.append((module, name, getattr(module, name, _ABSENT)))
        setattr(module, name, value)

    put(cv2, "estimateRigidTransform", _estimate_rigid_transform)
    put(np, "int", int)
    if not hasattr(cv2, "CascadeClassifier"):
        put(cv2, "CascadeClassifier", _Unused)
    if not cv2.__version__.startswith("4"):
        find_contours = cv2.findContours
        put(cv2, "findContours", lambda *args, **kwargs: (args[0], *find_contours(*args, **kwargs)))
    fit_line = cv2.fitLine
    put(cv2, "fitLine", lambda *args: [float(value[0]) for value in fit_line(*args)])
    sys.path.insert(0, os.fspath(folder))
    try:
        yield importlib.import_module("hyperlpr").LPR
    finally:
        sys.path.remove(os.fspath(folder))
        for name in [name for name in sys.modules if name.split(".")[0] == "hyperlpr"]:
            del sys.modules[name]
        for module, name, value in reversed(replaced):
            if value is _ABSENT:
                delattr(module, name)
            else:
                setattr(module, name, value)


def recognise(lpr: Any, image: Any) -> dict[str, Any]:
    """What the package's pipeline says of an image, and the first row of its detector."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints shapes
        plates = lpr.plate_recognition(image)
        detected = lpr.ssd_detection.forward()
    return {
        "plates": [[text, float(confidence), [int(value) for value in box]] for text, confidence, box in plates],
        "detected": [float(value) for value in detected[0, 0, 0]],
    }


def _estimate_rigid_transform(points: Any, onto: Any, full_affine: bool) -> Any:
    ones = np.ones((len(points), 1))
    solution = np.linalg.lstsq(np.hstack([points, ones]).astype(np.float64), onto.astype(np.float64), rcond=None)
    return solution[0].T


class _Unused:
    def __init__(self, path: str) -> None:
        pass
