from __future__ import annotations

import pathlib
import sys
import types
from typing import Any

import cv2
import numpy as np
import pytest

import caffe
from pycaffe.errors import InputError, MissingExtra

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 2 bias_term: false } }
"""
RNG = np.random.default_rng(29)
WEIGHTS = RNG.standard_normal((2, 3 * 8 * 8)).astype(np.float32)


@pytest.fixture
def files(tmp_path: pathlib.Path) -> tuple[str, str]:
    prototxt, weights = str(tmp_path / "deploy.prototxt"), str(tmp_path / "w.caffemodel")
    pathlib.Path(prototxt).write_text(NET)
    net = caffe.Net(prototxt, caffe.TEST)
    net.params["ip"][0].data[...] = WEIGHTS
    net.save(weights)
    return prototxt, weights


@pytest.fixture
def photograph(tmp_path: pathlib.Path) -> str:
    path = str(tmp_path / "photo.png")
    cv2.imwrite(path, RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    return path


def score(window: np.ndarray) -> np.ndarray:
    """What the net gives for a window (H, W, 3)."""
    result: np.ndarray = WEIGHTS @ caffe.io.resize_image(window, (8, 8)).transpose(2, 0, 1).ravel()
    return result


def test_windows_are_warped_and_scored(files: tuple[str, str], photograph: str) -> None:
    detector = caffe.Detector(*files)
    windows = [np.array([0, 0, 20, 30]), [3, 4, 11, 12], (2.0, 5.0, 9.0, 25.0)]
    found = detector.detect_windows([(photograph, windows[:2]), (photograph, windows[2:])])
    image = caffe.io.load_image(photograph)
    assert [detection["filename"] for detection in found] == [photograph] * 3
    for detection, window, cut in zip(found, windows, (image, image[3:11, 4:12], image[2:9, 5:25])):
        assert detection["window"] is window
        np.testing.assert_allclose(detection["prediction"], score(cut), rtol=1e-4, atol=1e-4)


def test_a_generator_of_windows(files: tuple[str, str], photograph: str) -> None:
    found = caffe.Detector(*files).detect_windows((photograph, iter([(0, 0, 5, 6)])) for _ in range(2))
    assert len(found) == 2
    np.testing.assert_array_equal(found[0]["prediction"], found[1]["prediction"])


def test_context_inside_the_image(files: tuple[str, str]) -> None:
    detector = caffe.Detector(*files, context_pad=2)
    image = RNG.random((40, 50, 3)).astype(np.float32)
    # 9 x 13 pixels, doubled (8 / (8 - 2 * 2)) around (14.5, 26.5): rows 5 to 23 (even), columns 13 to 39 (even).
    rows, columns = np.round([14.5 - 9, 14.5 + 9]), np.round([26.5 - 13, 26.5 + 13])
    expected = np.zeros((8, 8, 3), np.float32)
    cut = image[int(rows[0]) : int(rows[1]), int(columns[0]) : int(columns[1])]
    expected[...] = caffe.io.resize_image(cut, (8, 8))
    np.testing.assert_allclose(detector.crop(image, [10, 20, 18, 32]), expected, rtol=1e-6)


def test_context_outside_the_image_is_the_mean(files: tuple[str, str]) -> None:
    detector = caffe.Detector(
        *files, mean=np.array([10.0, 20.0, 30.0]), raw_scale=10, channel_swap=(2, 1, 0), context_pad=2
    )
    np.testing.assert_allclose(np.broadcast_to(detector.crop_mean, (1, 1, 3)), [[[3, 2, 1]]])
    image = RNG.random((20, 20, 3)).astype(np.float32)
    crop = detector.crop(image, [0, 0, 7, 7])
    # 8 x 8 pixels doubled around (4, 4): -4 to 12, 17 pixels onto 8. So round(4 * 8 / 17) = 2 rows lie outside.
    assert crop.shape == (8, 8, 3)
    np.testing.assert_allclose(crop[:2], np.broadcast_to([3, 2, 1], (2, 8, 3)), rtol=1e-6)
    np.testing.assert_allclose(crop[:, :2], np.broadcast_to([3, 2, 1], (8, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(crop[2:, 2:], caffe.io.resize_image(image[:12, :12], (6, 6)), rtol=1e-6)


def test_context_without_a_mean_is_zero(files: tuple[str, str]) -> None:
    detector = caffe.Detector(*files, context_pad=2)
    assert not detector.crop(np.ones((20, 20, 3), np.float32), [0, 0, 7, 7])[:2].any()


def test_selective_search(files: tuple[str, str], photograph: str, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = caffe.Detector(*files)
    monkeypatch.setitem(sys.modules, "selective_search_ijcv_with_python", None)
    with pytest.raises(MissingExtra, match="selective_search_ijcv_with_python, which is not importable"):
        detector.detect_selective_search([photograph])
    module: Any = types.ModuleType("selective_search_ijcv_with_python")
    module.get_windows = lambda paths, cmd: (
        [[(0, 0, 10, 10)] for _ in paths] if cmd == "selective_search_rcnn" else None
    )
    monkeypatch.setitem(sys.modules, "selective_search_ijcv_with_python", module)
    found = detector.detect_selective_search([photograph])
    np.testing.assert_allclose(
        found[0]["prediction"], score(caffe.io.load_image(photograph)[:10, :10]), rtol=1e-4, atol=1e-4
    )


def test_bad_windows(files: tuple[str, str], photograph: str) -> None:
    with pytest.raises(InputError, match="at least one window"):
        caffe.Detector(*files).detect_windows([(photograph, [])])
    for pad in (None, 2):
        with pytest.raises(InputError, match=r"Window \[90, 0, 95, 5\] holds no pixel of an image of 20 x 30"):
            caffe.Detector(*files, context_pad=pad).detect_windows([(photograph, [[90, 0, 95, 5]])])
