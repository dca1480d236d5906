"""Boxes of YOLO's layers against plain loops, and what hostile labels get."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError, LayerError, ShapeError
from pycaffe.layers._yolo import anchors, cells, check_cells, detections, intersection_over_union, sigmoid, truths


def overlap(a, b):
    width = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    height = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    common = width * height if width > 0 and height > 0 else 0
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def random_boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    return generator.random((count, 4)) * (1, 1, 0.6, 0.6) + (0, 0, 0.05, 0.05)


def test_intersection_over_union() -> None:
    generator = np.random.default_rng(1)
    a, b = random_boxes(generator, 30), random_boxes(generator, 20)
    want = [[overlap(x, y) for y in b] for x in a]
    np.testing.assert_allclose(intersection_over_union(a[:, None], b[None]), want, atol=1e-12)
    assert intersection_over_union(np.array([0.5, 0.5, 0.2, 0.2]), np.array([0.6, 0.5, 0.2, 0.2])) == pytest.approx(
        1 / 3
    )


def test_boxes_without_area_have_no_overlap() -> None:
    assert np.isnan(intersection_over_union(np.zeros(4), np.zeros(4)))


@pytest.mark.parametrize("seed", range(20))
def test_detections_against_a_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 60))
    boxes, labels = random_boxes(generator, count).astype(np.float32), generator.integers(0, 4, count)
    scores = generator.integers(0, 9, count).astype(np.float32) / 8  # with ties
    kept: list[int] = []
    for index in sorted(range(count), key=lambda i: -scores[i]):
        if all(overlap(boxes[other].astype(float), boxes[index].astype(float)) < 0.4 for other in kept):
            kept.append(index)
    rows = detections(boxes, labels, scores, 0.4, 2)
    assert rows.shape == (1, 1, len(kept), 7)
    np.testing.assert_array_equal(rows[0, 0, :, :3], [[0, labels[i] + 1, scores[i]] for i in kept])
    x, y, width, height = boxes[kept].T
    sides = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    np.testing.assert_allclose(rows[0, 0, :, 3:], np.transpose(sides), rtol=1e-6)


def test_nothing_found() -> None:
    rows = detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0), 0.4, 2)
    assert rows.tolist() == [[[[0, -1, -1, -1, -1, -1, -1], [1, -1, -1, -1, -1, -1, -1]]]]


def test_sigmoid_of_large_numbers() -> None:
    assert sigmoid(np.array([-1000.0, 0.0, 1000.0], np.float32)).tolist() == [0, 0.5, 1]


def test_cells() -> None:
    x = np.arange(2 * 6 * 2 * 3).reshape(2, 6, 2, 3)
    by_cell = cells(x, 2)
    assert by_cell.shape == (2, 2, 3, 2, 3)
    assert by_cell[1, 0, 2, 1, 2] == x[1, 1 * 3 + 2, 0, 2]


@pytest.mark.parametrize(("shape", "boxes"), [((2, 6, 3), 2), ((2, 7, 3, 4), 2), ((2, 6, 3, 4), 0), ((2, 6, 3, 4), 3)])
def test_channels_that_do_not_fit(shape: tuple[int, ...], boxes: int) -> None:
    with pytest.raises(ShapeError, match=rf"T: the channels hold 3 values for each of {boxes} boxes"):
        check_cells("T", shape, boxes, 3)


def test_anchors() -> None:
    assert anchors([1, 2, 3, 4], 2).tolist() == [[1, 2], [3, 4]]
    for numbers, needed in (([1, 2, 3], 1), ([1, 2], 2), ([], 4_000_000_000)):
        with pytest.raises(LayerError, match=f"Expected at least {2 * needed} numbers, got {len(numbers)}"):
            anchors(numbers, needed)


GOOD = [1, 0.5, 0.5, 0.2, 0.3]


def test_truths_end_with_zeros() -> None:
    labels = np.array([[GOOD, [0, 0, 0.5, 0.2, 0.2], GOOD, [0, 0, 0, 0, 0], [np.nan] * 5]])
    boxes, rows = truths(labels, 0, 3)
    assert boxes.tolist() == [GOOD[1:]]
    assert len(rows) == 3


@pytest.mark.parametrize(
    "row",
    [
        [3, 0.5, 0.5, 0.2, 0.3],
        [-1, 0.5, 0.5, 0.2, 0.3],
        [1, 1.5, 0.5, 0.2, 0.3],
        [1, 0.5, -0.5, 0.2, 0.3],
        [1, 0.5, 0.5, -0.2, 0.3],
        [1, 0.5, 0.5, 0.2, 0],
        [np.nan, 0.5, 0.5, 0.2, 0.3],
        [1, 0.5, 0.5, np.inf, 0.3],
    ],
)
def test_labels_that_are_no_boxes(row: list[float]) -> None:
    with pytest.raises(InputError, match=r"with a class below 3.*label 1 of image 0"):
        truths(np.array([[GOOD, row, [0] * 5]]), 0, 3)
