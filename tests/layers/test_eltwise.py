from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_golden
from tests.layers.diffs import bottom_diffs

BLOBS = list(np.random.default_rng(1).standard_normal((3, 2, 3, 5, 4)))


def eltwise(param: str, bottoms: int = 3) -> str:
    names = " ".join(f'bottom: "b{i}"' for i in range(bottoms))
    return f'layer {{ name: "l" type: "Eltwise" {names} top: "t0" eltwise_param {{ {param} }} }}'


@pytest.mark.parametrize("case", [f"eltwise_{i}" for i in range(5)])
def test_golden(case: str) -> None:
    assert run_golden(case) == ["torch", "onnxruntime"]


def test_sum_against_numpy() -> None:
    check_layer(eltwise(""), BLOBS, expect=lambda a, b, c: a + b + c)
    check_layer(eltwise("coeff: 1 coeff: -1", 2), BLOBS[:2], expect=lambda a, b: a - b)
    check_layer(eltwise("coeff: 0.5 coeff: 1 coeff: -2"), BLOBS, expect=lambda a, b, c: a / 2 + b - 2 * c)


def test_product_against_numpy() -> None:
    check_layer(eltwise("operation: PROD", 2), BLOBS[:2], expect=lambda a, b: a * b)
    check_layer(eltwise("operation: PROD"), BLOBS, expect=lambda a, b, c: a * b * c)
    check_layer(eltwise("operation: PROD stable_prod_grad: false"), BLOBS, expect=lambda a, b, c: a * b * c)


def test_maximum_against_numpy() -> None:
    check_layer(eltwise("operation: MAX", 2), BLOBS[:2], expect=np.maximum)
    check_layer(eltwise("operation: MAX"), BLOBS, expect=lambda a, b, c: np.maximum(np.maximum(a, b), c))


def test_of_equal_values_one_bottom_gets_the_gradient_of_the_maximum() -> None:
    bottoms = [np.float32(values) for values in ([1, 5, 2, 7, 9], [1, 3, 2, 7, 0], [0, 5, 2, 8, 9])]
    diffs = bottom_diffs(eltwise("operation: MAX"), bottoms, [np.float32([10, 20, 30, 40, 50])])
    np.testing.assert_array_equal(diffs, [[0, 20, 0, 0, 50], [10, 0, 30, 0, 0], [0, 0, 0, 40, 0]])


def test_the_gradient_of_a_product_with_zeros() -> None:
    bottoms = [np.float32([0, 2, 0]), np.float32([3, 4, 0])]
    diffs = bottom_diffs(eltwise("operation: PROD", 2), bottoms, [np.float32([5, 5, 5])])
    np.testing.assert_array_equal(diffs, [[15, 20, 0], [0, 10, 0]])
    diffs = bottom_diffs(eltwise("operation: PROD stable_prod_grad: false", 2), bottoms, [np.float32([5, 5, 5])])
    np.testing.assert_array_equal(diffs, [[np.nan, 20, np.nan], [0, 10, np.nan]])


def test_a_bottom_given_twice() -> None:
    text = 'layer { name: "l" type: "Eltwise" bottom: "b0" bottom: "b0" top: "t0" eltwise_param { operation: PROD } }'
    (diff,) = bottom_diffs(text, [np.float32([3, -2])], [np.float32([1, 10])])
    np.testing.assert_array_equal(diff, [6, -40])


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("coeff: 1", r"Eltwise Layer takes one coefficient per bottom blob\. Expected 3 entries of coeff, got \[1.0\]"),
        ("operation: PROD coeff: 1 coeff: 1 coeff: 2", "Eltwise layer only takes coefficients for summation"),
    ],
)
def test_bad_coefficients(param: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        build(eltwise(param), (2, 3), (2, 3), (2, 3))


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"bottom\[0\]: \(2, 3\), bottom\[1\]: \(3, 2\)"):
        build(eltwise("", 2), (2, 3), (3, 2))
