from __future__ import annotations

import cv2
import numpy as np
import pytest

from pycaffe.errors import InputError
from pycaffe.images.resize import resize_corners, resize_linear, resize_nearest, resize_shorter_side

RNG = np.random.default_rng(11)
ROW = np.array([0.0, 10.0, 30.0], np.float32).reshape(1, 3, 1)


def linear_loop(image: np.ndarray, shape: tuple[int, int], border: float | None) -> np.ndarray:
    """The definition, pixel by pixel in float64."""
    height, width, channels = image.shape
    result = np.zeros((*shape, channels))
    for i in range(shape[0]):
        for j in range(shape[1]):
            y, x = (i + 0.5) * height / shape[0] - 0.5, (j + 0.5) * width / shape[1] - 0.5
            for row in (int(np.floor(y)), int(np.floor(y)) + 1):
                for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                    weight = (1 - abs(y - row)) * (1 - abs(x - column))
                    if border is None or (0 <= row < height and 0 <= column < width):
                        value = image[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
                    else:
                        value = border
                    result[i, j] += weight * value
    return result


def test_linear_by_hand() -> None:
    # x = -0.25, 0.25, 0.75, 1.25, 1.75, 2.25
    assert resize_linear(ROW, (1, 6)).ravel().tolist() == [0, 2.5, 7.5, 15, 25, 30]
    # A quarter of the last pixel lies outside, where there is -10.
    assert resize_linear(ROW, (1, 6), border=-10.0).ravel().tolist() == [-2.5, 2.5, 7.5, 15, 25, 20]


@pytest.mark.parametrize("border", [None, -3.0])
@pytest.mark.parametrize("shape", [(5, 7), (10, 3), (2, 14), (1, 1), (23, 29)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_linear_is_the_loop(border: float | None, shape: tuple[int, int], dtype: type) -> None:
    image = (RNG.random((5, 7, 4)) * 200).astype(dtype)
    before = image.copy()
    result = resize_linear(image, shape, border)
    assert result.dtype == (np.float64 if dtype == np.float64 else np.float32)
    np.testing.assert_allclose(result, linear_loop(image, shape, border), rtol=2e-6, atol=1e-4)
    np.testing.assert_array_equal(image, before)


def test_linear_repeats_the_edge_as_opencv_does() -> None:
    image = RNG.random((31, 17, 3), dtype=np.float32)
    for height, width in ((8, 40), (62, 9), (31, 17)):
        np.testing.assert_allclose(resize_linear(image, (height, width)), cv2.resize(image, (width, height)), atol=2e-6)


def test_a_constant_image_stays_exactly_constant() -> None:
    image = np.full((9, 7, 3), 0.1, np.float32)
    assert np.unique(resize_linear(image, (20, 31))).tolist() == [np.float32(0.1)]


def test_the_same_size_is_a_copy() -> None:
    image = RNG.random((4, 6, 3), dtype=np.float32)
    for resized in (resize_linear(image, (4, 6)), resize_corners(image, (4, 6))):
        np.testing.assert_array_equal(resized, image)
        assert not np.shares_memory(resized, image)


def test_nearest_takes_the_next_pixel_at_a_tie() -> None:
    image = np.arange(6, dtype=np.int16).reshape(1, 6, 1)
    assert resize_nearest(image, (1, 3)).ravel().tolist() == [1, 3, 5]
    assert resize_nearest(image, (2, 4)).tolist() == [[[0], [2], [3], [5]]] * 2
    assert resize_nearest(image, (1, 12)).ravel().tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_corners_stay_corners() -> None:
    assert resize_corners(ROW, (1, 5)).ravel().tolist() == [0, 5, 10, 20, 30]
    assert resize_corners(ROW, (3, 2)).tolist() == [[[0], [30]]] * 3
    assert resize_corners(ROW, (1, 1)).ravel().tolist() == [0]


@pytest.mark.parametrize(
    ("shape", "expected"), [((10, 15, 3), (4, 6, 3)), ((15, 10, 2), (6, 4, 2)), ((3, 3, 1), (4, 4, 1))]
)
def test_shorter_side(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    image = RNG.random(shape, dtype=np.float32)
    result = resize_shorter_side(image, 4)
    assert result.shape == expected
    np.testing.assert_allclose(result, linear_loop(image, result.shape[:2], None), atol=1e-5)


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match=r"\(height, width, channels\), all positive, not \(4, 5\)"):
        resize_linear(np.zeros((4, 5)), (2, 2))
    with pytest.raises(InputError, match=r"not \(0, 5, 3\)"):
        resize_nearest(np.zeros((0, 5, 3)), (2, 2))
    with pytest.raises(InputError, match=r"both positive, not \(0, 2\)"):
        resize_corners(np.zeros((4, 5, 3)), (0, 2))
