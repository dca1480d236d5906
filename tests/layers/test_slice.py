from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_golden
from tests.layers.diffs import bottom_diffs

X = np.random.default_rng(1).standard_normal((2, 6, 5, 4))


def slice_(param: str, tops: int = 2) -> str:
    names = " ".join(f'top: "t{i}"' for i in range(tops))
    return f'layer {{ name: "l" type: "Slice" bottom: "b0" {names} slice_param {{ {param} }} }}'


@pytest.mark.parametrize("case", ["slice_even", "slice_points"])
def test_golden(case: str) -> None:
    assert run_golden(case) == ["torch", "onnxruntime"]


@pytest.mark.parametrize(
    ("param", "axis", "points"),
    [
        ("", 1, [2, 4]),
        ("slice_dim: 1", 1, [2, 4]),
        ("axis: -2 slice_point: 1 slice_point: 4", 2, [1, 4]),
        ("slice_dim: 3 slice_point: 1 slice_point: 2", 3, [1, 2]),
    ],
)
def test_against_numpy(param: str, axis: int, points: list[int]) -> None:
    check_layer(slice_(param, 3), [X], expect=lambda x: np.split(x, points, axis=axis))


@pytest.mark.parametrize("param", ["axis: 0", "axis: 0 slice_point: 1"])
def test_along_the_batch(param: str) -> None:
    check_layer(slice_(param), [X], expect=lambda x: np.split(x, [1], axis=0))


def test_one_top_is_the_bottom() -> None:
    check_layer(slice_("", 1), [X], expect=np.copy)


def test_the_gradients_are_put_together() -> None:
    diffs = [np.float32([[1, 2]]), np.float32([[3]]), np.float32([[4, 5, 6]])]
    (diff,) = bottom_diffs(slice_("slice_point: 2 slice_point: 3", 3), [np.zeros((1, 6), np.float32)], diffs)
    np.testing.assert_array_equal(diff, [[1, 2, 3, 4, 5, 6]])


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("axis: 1 slice_dim: 1", "Either axis or slice_dim should be specified; not both."),
        ("slice_dim: 4", "slice_dim out of range. Got 4"),
        ("slice_dim: 4294967294", "casting slice_dim from uint32 to int32 produced negative result"),
        ("axis: 4", "axis 4 out of range"),
    ],
)
def test_bad_axis(param: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        build(slice_(param), (2, 6, 5, 4))


@pytest.mark.parametrize(
    ("param", "tops", "message"),
    [
        ("axis: 2", 2, r"Number of top blobs \(2\) should evenly divide input slice axis \(5\)"),
        ("slice_point: 1 slice_point: 2", 2, r"slice_point_.size\(\) == top.size\(\) - 1 \(2 vs. 1\)"),
        ("axis: 0 slice_point: 1 slice_point: 2", 3, r"top.size\(\) <= bottom_slice_axis \(3 vs. 2\)"),
        ("slice_point: 3 slice_point: 3", 3, r"slice_point_\[i\] > prev"),
        ("slice_point: 0", 2, r"slice_point_\[i\] > prev"),
        ("slice_point: 7", 2, "past the end"),
    ],
)
def test_bad_points(param: str, tops: int, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        build(slice_(param, tops), (2, 6, 5, 4))
