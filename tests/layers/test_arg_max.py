from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_golden
from tests.layers.diffs import run_backward

X = np.random.default_rng(1).standard_normal((2, 3, 5, 4))
TIED = np.random.default_rng(2).integers(0, 3, (2, 3, 5, 4))  # many equal values


def arg_max(param: str) -> str:
    return f'layer {{ name: "l" type: "ArgMax" bottom: "b0" top: "t0" argmax_param {{ {param} }} }}'


def best(row: np.ndarray, k: int) -> list[tuple[float, int]]:
    """The k largest (value, index) pairs of a row, largest first."""
    return sorted(((float(value), i) for i, value in enumerate(row)), reverse=True)[:k]


def along_axis(axis: int, k: int, values: bool) -> Callable[[np.ndarray], np.ndarray]:
    def expect(x: np.ndarray) -> np.ndarray:
        rows = np.moveaxis(x, axis, -1)
        pairs = np.array([best(row, k) for row in rows.reshape(-1, rows.shape[-1])], np.float32)
        return np.moveaxis(pairs[:, :, 0 if values else 1].reshape(*rows.shape[:-1], k), -1, axis)

    return expect


@pytest.mark.parametrize("case", [f"argmax_{i}" for i in range(5)])
def test_golden(case: str) -> None:
    assert run_golden(case) == ["torch", "onnxruntime"]


@pytest.mark.parametrize("x", [X, TIED], ids=["different", "tied"])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -2, 3])
def test_along_an_axis(x: np.ndarray, k: int, values: bool, axis: int) -> None:
    if axis == 0:
        k = min(k, 2)
    text = arg_max(f"axis: {axis} top_k: {k} out_max_val: {str(values).lower()}")
    check_layer(text, [x], expect=along_axis(axis, k, values), gradient=False)


@pytest.mark.parametrize("x", [X, TIED], ids=["different", "tied"])
@pytest.mark.parametrize("k", [1, 7])
@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 3, 20), (2, 60), (2, 3, 5, 2, 2)])
def test_over_whole_items(x: np.ndarray, k: int, values: bool, shape: tuple[int, ...]) -> None:
    def expect(x: np.ndarray) -> np.ndarray:
        pairs = np.array([best(row, k) for row in x.reshape(2, -1)], np.float32)  # (N, k, value and index)
        indices_then_values = pairs[:, :, ::-1].transpose(0, 2, 1)
        rows = indices_then_values if values else indices_then_values[:, :1]
        return rows.reshape(2, 2 if values else 1, k, *[1] * (len(shape) - 3))

    text = arg_max(f"top_k: {k} out_max_val: {str(values).lower()}")
    check_layer(text, [x.reshape(shape)], expect=expect, gradient=False)


def test_one_axis_alone() -> None:
    check_layer(
        arg_max("out_max_val: true"), [[5, 6, 7]], expect=lambda x: np.float32([[[0], [v]] for v in x]), gradient=False
    )


def test_force_backward_stops_here() -> None:
    net = run_backward(arg_max(""), [np.float32([[1, -1]])], [np.float32([[[3]]])])
    np.testing.assert_array_equal(net.blobs["b0"].diff, [[0, 0]])


def test_it_has_no_gradient() -> None:
    scale = 'layer { name: "s" type: "Scale" bottom: "b0" top: "a" }'
    text = f'{scale} layer {{ name: "l" type: "ArgMax" bottom: "a" top: "t0" loss_weight: 1 }}'
    with pytest.raises(LayerError, match="Not Implemented Yet: ArgMax has no gradient"):
        run_backward(text, [np.float32([[1, -1]])], [])


@pytest.mark.parametrize(
    ("param", "error", "message"),
    [
        ("top_k: 0", LayerError, "top k must not be less than 1. Got 0"),
        ("axis: 4", LayerError, "axis 4 out of range"),
        ("axis: 1 top_k: 4", ShapeError, r"top_k must be less than or equal to the dimension of the axis\. Got 4"),
        ("top_k: 61", ShapeError, r"the dimension of the flattened bottom blob per instance\. Got 61"),
    ],
)
def test_bad_parameters(param: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(arg_max(param), (2, 3, 5, 4))
