"""The overlaps that Yolov3 trains by: their values by hand, and darknet's derivatives where they are derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.layers._iou_gradient import CIOU, DIOU, GIOU, IOU, MSE, generalized_overlap, overlap_gradient

NEAR, FAR = np.array([0.5, 0.5, 0.2, 0.2]), np.array([0.9, 0.5, 0.2, 0.1])


def test_values_by_hand() -> None:
    assert generalized_overlap(NEAR, NEAR, IOU) == pytest.approx(1)
    assert generalized_overlap(NEAR, FAR, MSE) == 0
    assert generalized_overlap(NEAR, FAR, GIOU) == pytest.approx(-(0.12 - 0.06) / 0.12)
    assert generalized_overlap(NEAR, FAR, DIOU) == pytest.approx(-((0.16 / (0.36 + 0.04)) ** 0.6))
    term = 4 / np.pi**2 * (np.arctan(2) - np.arctan(1)) ** 2
    assert generalized_overlap(NEAR, FAR, CIOU) == pytest.approx(-0.4 - term * term / (1 + term), rel=1e-5)


def random_pair(generator: np.random.Generator) -> np.ndarray:
    return generator.random((2, 4)) * (0.2, 0.2, 0.3, 0.3) + (0.4, 0.4, 0.3, 0.3)


@pytest.mark.parametrize("kind", [IOU, GIOU])
@pytest.mark.parametrize("seed", range(20))
def test_is_the_derivative_but_for_a_factor_in_width_and_height(kind: int, seed: int) -> None:
    box, truth = random_pair(np.random.default_rng(seed))
    step = 1e-6
    slopes = [
        (generalized_overlap(box + step * unit, truth, kind) - generalized_overlap(box - step * unit, truth, kind))
        / (2 * step)
        for unit in np.eye(4)
    ]
    np.testing.assert_allclose(
        overlap_gradient(box, truth, kind), np.multiply(slopes, (1, 1, 2, 2)), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("kind", [DIOU, CIOU])
def test_moves_the_centre_of_a_distant_box_towards_the_truth(kind: int) -> None:
    gradient = overlap_gradient(NEAR, FAR, kind)
    assert gradient[0] > 0
    assert gradient[1] == 0


@pytest.mark.parametrize("kind", [IOU, GIOU, DIOU, CIOU])
def test_boxes_without_area(kind: int) -> None:
    assert overlap_gradient(np.zeros(4), np.zeros(4), kind).shape == (4,)
