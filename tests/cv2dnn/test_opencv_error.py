"""Our errors are OpenCV's where it is installed, and stay ours."""

from __future__ import annotations

import sys

import cv2
import pytest

from pycaffe.cv2dnn.opencv_error import as_opencv_error, raises_opencv_errors
from pycaffe.errors import MissingExtra, ShapeError, WeightsError


@raises_opencv_errors
class Thing:
    def __init__(self, broken: bool = False) -> None:
        if broken:
            raise WeightsError("broken")

    def method(self) -> None:
        """Raises."""
        raise ShapeError("no fit")

    def _private(self) -> None:
        raise ShapeError("inside")


def test_public_methods_and_constructors() -> None:
    with pytest.raises(cv2.error, match="no fit") as caught:
        Thing().method()
    assert isinstance(caught.value, ShapeError)
    assert Thing.method.__doc__ == "Raises."
    with pytest.raises(cv2.error, match="broken"):
        Thing(broken=True)
    with pytest.raises(ShapeError) as inside:
        Thing()._private()
    assert not isinstance(inside.value, cv2.error)


def test_converted_once_and_with_what_it_carries() -> None:
    error = ShapeError("no fit")
    error.located = True  # type: ignore[attr-defined]
    converted = as_opencv_error(error)
    assert converted.located is True  # type: ignore[attr-defined]
    assert as_opencv_error(converted) is converted
    assert isinstance(as_opencv_error(MissingExtra("x")), ImportError)


def test_without_opencv_errors_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    error = ShapeError("no fit")
    assert as_opencv_error(error) is error
    with pytest.raises(ShapeError) as caught:
        Thing().method()
    assert type(caught.value) is ShapeError
