"""From rows of outputs to boxes in pixels, for every layout that a detection layer has."""

from __future__ import annotations

import pathlib
import pickle
import re
from typing import Any

import numpy as np
import pytest

from pycaffe.detection import Detector
from pycaffe.errors import InputError
from pycaffe.images import ImagePreprocess
from pycaffe.net import TEST, Net

PREPROCESS = ImagePreprocess(mean=None, resize=(4, 6))
SIZE = (100, 200)  # height, width
ROW = [0, 2, 0.75, 0.1, 0.2, 0.3, 0.4]
PIXELS = [20, 20, 60, 40]


def rows_of(detector: Detector, rows: Any, size: tuple[int, int] = SIZE) -> list[list[float]]:
    """Class, score and box of what is found in (1, D, 7), as pools hand it over."""
    found = detector({"found": np.array([rows], np.float32)}, size)
    return np.column_stack([found.classes, found.scores, found.boxes]).round(4).tolist()


@pytest.fixture
def made(detector: tuple[str, str]) -> Detector:
    return Detector(Net(detector[0], TEST), PREPROCESS, 0.5)


@pytest.mark.parametrize(
    "rows",
    [
        [ROW],
        [ROW, [0] * 7, [0] * 7],  # OpenCV's, filled up
        [[0, 1, 0.49, 0, 0, 1, 1], ROW, [0, 1, np.nan, 0, 0, 1, 1], [0, 1, 0.9, 0, np.nan, 1, 1]],
    ],
)
def test_rows_above_the_threshold_in_pixels(made: Detector, rows: Any) -> None:
    assert made.outputs == ["found"]
    assert rows_of(made, rows) == [[2, 0.75, *PIXELS]]


@pytest.mark.parametrize("rows", [[[0, -1, -1, -1, -1, -1, -1]], [[0] * 7], np.empty((0, 7))])
@pytest.mark.parametrize("threshold", [0.5, 0.0, -2.0])
def test_nothing(detector: tuple[str, str], rows: Any, threshold: float) -> None:
    made = Detector(Net(detector[0], TEST), PREPROCESS, threshold)
    assert rows_of(made, rows) == []


def test_the_best_come_first_and_equals_in_their_order(made: Detector) -> None:
    rows = [[0, kind, score, 0, 0, 1, 1] for kind, score in ((1, 0.5), (2, 0.875), (3, 0.5), (4, 0.75))]
    assert [row[0] for row in rows_of(made, rows)] == [2, 4, 1, 3]


def test_boxes_are_clipped_to_the_image(made: Detector) -> None:
    rows = [[0, 1, 1, -0.5, -np.inf, 1.5, np.inf], [0, 1, 1, 0.25, 1.25, 3e38, 0.5]]
    assert [row[2:] for row in rows_of(made, rows)] == [[0, 0, 200, 100], [50, 100, 200, 50]]


def test_what_was_cropped_counts(detector: tuple[str, str]) -> None:
    net = Net(detector[0], TEST)
    cropped = Detector(net, ImagePreprocess(mean=None, resize=(11, 20), crop=4), 0.5)
    # Of 11 x 20 pixels the 4 x 4 from (3, 8); the image is ten times as large.
    assert rows_of(cropped, [[0, 1, 1, 0, 0, 1, 0.5]], (110, 200)) == [[1, 1, 80, 30, 120, 50]]
    as_it_is = Detector(net, ImagePreprocess(mean=None, crop=4), 0.5)
    assert rows_of(as_it_is, [[0, 1, 1, 0, 0.25, 1, 1]], (6, 10)) == [[1, 1, 3, 2, 7, 5]]


def test_several_detection_layers(detector: tuple[str, str], tmp_path: Any) -> None:
    text = pathlib.Path(detector[0]).read_text(encoding="utf-8")
    second = text[text.index('layer { name: "found"') :].replace('"found"', '"other"')
    model = tmp_path / "two.prototxt"
    model.write_text(text + second, encoding="utf-8")
    made = Detector(Net(model, TEST), PREPROCESS, 0.5)
    rows = np.array([[ROW]], np.float32)
    found = made({"found": rows, "other": rows * [[0, 0.5, 1, 1, 1, 1, 1]]}, SIZE)
    assert found.classes.tolist() == [2, 1]


def half(outputs: dict[str, Any]) -> Any:
    return [[3, outputs["conf"].max(), 0.1, 0.2, 0.3, 0.4]]


def test_a_function_decodes_what_no_layer_does(detector: tuple[str, str]) -> None:
    made = pickle.loads(pickle.dumps(Detector(Net(detector[0], TEST), PREPROCESS, 0.5, half)))
    assert made.outputs == ["found"]  # all outputs of the net
    found = made({"conf": np.float32([0.25, 0.625])}, SIZE)
    assert (found.classes.tolist(), found.scores.tolist(), found.boxes.round(4).tolist()) == ([3], [0.625], [PIXELS])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({}, "decode returned dict, not an array of numbers"),
        ("boxes", "decode returned str, not an array of numbers"),
        ([[1, 0.5, 0, 0, 1]], r"rows of class, score, left, top, right, bottom: an array \(n, 6\). Got shape \(1, 5\)"),
        (np.ones((2, 2, 6)), re.escape("Got shape (2, 2, 6)")),
        ([[1e12, 0.5, 0, 0, 1, 1]], "a class that is no whole number of 32 bits"),
        ([[np.nan, 0.5, 0, 0, 1, 1]], "a class that is no whole number of 32 bits"),
    ],
)
def test_a_function_that_returns_something_else(detector: tuple[str, str], returned: Any, message: str) -> None:
    made = Detector(Net(detector[0], TEST), PREPROCESS, 0.5, lambda outputs: returned)
    with pytest.raises(InputError, match=message):
        made({}, SIZE)


@pytest.mark.parametrize("returned", [[], np.empty((0, 6)), np.empty((0, 4))])
def test_a_function_that_finds_nothing(detector: tuple[str, str], returned: Any) -> None:
    made = Detector(Net(detector[0], TEST), PREPROCESS, 0.5, lambda outputs: returned)
    assert made({}, SIZE).boxes.shape == (0, 4)


def test_a_net_without_a_detection_layer(net: tuple[str, str]) -> None:
    with pytest.raises(InputError, match=r"no layer of the types DetectionOutput.* \['score'\] need a `decode`"):
        Detector(Net(net[0], TEST), PREPROCESS, 0.5)
