from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from pycaffe.layers._non_maximum_suppression import suppress
from tests.layers.plain_detection_output import Settings, suppressed


def random_boxes(count: int, side: float, seed: int = 0) -> np.ndarray:
    corners = np.random.default_rng(seed).random((count, 2), np.float32)
    return np.concatenate([corners, corners + np.float32(side)], axis=1)


def test_by_hand() -> None:
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 1], [0, 1, 2, 2], [5, 5, 6, 6]], np.float32)
    assert suppress(boxes, 0.49).tolist() == [0, 3]
    assert suppress(boxes, 0.5).tolist() == [0, 1, 2, 3]  # an overlap of the threshold itself is allowed
    assert suppress(boxes[::-1], 0.3).tolist() == [0, 1, 2]
    assert suppress(np.empty((0, 4), np.float32), 0.5).tolist() == []


def test_the_adaptive_threshold_shrinks_with_each_box_that_stays_while_above_a_half() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60], [50, 50, 60, 56]], np.float32)
    assert suppress(boxes, 0.8).tolist() == [0, 1, 2, 3]
    # 0.8 after the first box becomes 0.64: an overlap of 0.8 is too much, then 0.512: so is 0.6
    assert suppress(boxes, 0.8, eta=0.8).tolist() == [0, 2]


@pytest.mark.parametrize(("count", "side"), [(1, 0.1), (47, 0.2), (48, 0.2), (49, 0.2), (500, 0.05), (300, 0.3)])
@pytest.mark.parametrize(("threshold", "eta"), [(0.3, 1), (0.9, 0.97), (0, 1)])
def test_against_a_loop(count: int, side: float, threshold: float, eta: float) -> None:
    boxes = random_boxes(count, side)
    how = Settings(1, nms_threshold=threshold, eta=eta)
    assert suppress(boxes, threshold, eta).tolist() == suppressed(list(range(count)), list(boxes), how)


def test_boxes_without_area_and_inverted_boxes_overlap_nothing() -> None:
    boxes = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [3, 3, 2, 2], [3, 3, 2, 2], [0, 0, 9, 9]], np.float32)
    assert suppress(boxes, 0).tolist() == [0, 1, 2, 3, 4]


def test_infinite_boxes() -> None:
    boxes = np.array([[-np.inf, 0, np.inf, 1], [0, 0, 1, 1], [-np.inf, 0, np.inf, 1], [0, 2, 1, 3]], np.float32)
    with np.errstate(invalid="ignore"):
        assert suppress(boxes, 0.5).tolist() == suppressed(list(range(4)), list(boxes), Settings(1, nms_threshold=0.5))


def test_the_memory_does_not_grow_with_the_square_of_the_boxes() -> None:
    boxes = np.repeat(random_boxes(20, 0.01), 15000, axis=0)  # 300,000: their matrix would hold 360 GB
    tracemalloc.start()
    assert len(suppress(boxes, 0.5)) == 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
