"""Codes and matching of boxes (layers/_boxes.py)."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError
from pycaffe.layers._boxes import (
    CENTER_SIZE,
    CORNER,
    CORNER_SIZE,
    cross_boundary,
    decode_boxes,
    encode_boxes,
    jaccard_overlaps,
    match_boxes,
)

PRIOR = np.array([[0.2, 0.2, 0.6, 0.4]])
BOX = np.array([[0.3, 0.1, 0.5, 0.5]])
VARIANCE = np.array([[0.1, 0.2, 0.5, 0.25]])


@pytest.mark.parametrize(
    ("code_type", "want"),
    [
        (CORNER, [0.1, -0.1, -0.1, 0.1]),
        (CENTER_SIZE, [0.0, 0.0, np.log(0.5), np.log(2.0)]),
        (CORNER_SIZE, [0.25, -0.5, -0.25, 0.5]),
    ],
)
def test_codes_and_back(code_type: int, want: list[float]) -> None:
    codes = encode_boxes(BOX, PRIOR, None, code_type)
    np.testing.assert_allclose(codes, [want], atol=1e-12)
    np.testing.assert_allclose(encode_boxes(BOX, PRIOR, VARIANCE, code_type), codes / VARIANCE)
    for variances in (None, VARIANCE):
        codes = encode_boxes(BOX, PRIOR, variances, code_type)
        np.testing.assert_allclose(decode_boxes(codes, PRIOR, variances, code_type), BOX)


def test_what_is_not_positive_is_named() -> None:
    empty = np.array([[0.2, 0.2, 0.2, 0.4]])
    with pytest.raises(InputError, match=r"prior_width and prior_height > 0 \(0 vs. 0\).*box 0"):
        encode_boxes(BOX, empty, None, CENTER_SIZE)
    with pytest.raises(InputError, match="prior_width"):
        decode_boxes(BOX, empty, None, CORNER_SIZE)
    with pytest.raises(InputError, match="bbox_width and bbox_height > 0"):
        encode_boxes(empty, PRIOR, None, CENTER_SIZE)
    with pytest.raises(InputError, match=r"prior_variance\[i\] > 0 \(nan"):
        encode_boxes(BOX, PRIOR, np.full((1, 4), np.nan), CORNER)


def test_overlaps_by_hand() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [2, 0, 3, 1], [3, 3, 1, 1]], np.float64)
    want = [[1, 1 / 7, 0, 0], [1 / 7, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]  # the last one is inverted
    np.testing.assert_allclose(jaccard_overlaps(boxes, boxes), want)
    assert jaccard_overlaps(boxes, boxes[:0]).shape == (4, 0)


def test_cross_boundary() -> None:
    boxes = np.array([[0, 0, 1, 1], [-0.1, 0, 1, 1], [0, 0, 1, 1.1]])
    assert cross_boundary(boxes).tolist() == [False, True, True]


def plain_match(overlaps: np.ndarray, threshold: float | None) -> tuple[list[int], list[float]]:
    """MatchBBox as loops."""
    predictions, objects = overlaps.shape
    found, best = [-1] * predictions, [max([0.0, *(v for v in row if v > 1e-6)]) for row in overlaps.tolist()]
    pool = list(range(objects))
    while pool:
        top = (-1.0, -1, -1)
        for i in range(predictions):
            for j in pool:
                if found[i] == -1 and overlaps[i, j] > 1e-6 and overlaps[i, j] > top[0]:
                    top = (float(overlaps[i, j]), i, j)
        if top[1] < 0:
            break
        found[top[1]], best[top[1]] = top[2], top[0]
        pool.remove(top[2])
    for i in range(predictions if threshold is not None else 0):
        top = (-1.0, -1, -1)
        for j in range(objects):
            if found[i] == -1 and overlaps[i, j] > 1e-6 and threshold <= overlaps[i, j] > top[0]:
                top = (float(overlaps[i, j]), i, j)
        if top[1] >= 0:
            found[i], best[i] = top[2], top[0]
    return found, best


@pytest.mark.parametrize("seed", range(40))
def test_matching_equals_loops_ties_included(seed: int) -> None:
    generator = np.random.default_rng(seed)
    shape = (int(generator.integers(0, 12)), int(generator.integers(0, 6)))
    overlaps = generator.integers(0, 5, shape) / 4
    for threshold in (None, 0.5, 0.75):
        found, best = match_boxes(overlaps, threshold)
        want, want_best = plain_match(overlaps, threshold)
        assert found.tolist() == want
        assert best.tolist() == want_best
