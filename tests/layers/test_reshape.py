from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_golden

X = np.random.default_rng(1).standard_normal((2, 3, 5, 4))


def reshape(param: str) -> str:
    return f'layer {{ name: "l" type: "Reshape" bottom: "b0" top: "t0" reshape_param {{ {param} }} }}'


def dims(*extents: int) -> str:
    return "shape { " + " ".join(f"dim: {extent}" for extent in extents) + " }"


@pytest.mark.parametrize("case", [f"reshape_{i}" for i in range(5)])
def test_golden(case: str) -> None:
    assert run_golden(case) == ["torch", "onnxruntime"]


@pytest.mark.parametrize(
    ("param", "shape"),
    [
        (dims(0, 0, 0, 0), (2, 3, 5, 4)),
        (dims(0, -1), (2, 60)),
        (dims(-1), (120,)),
        (dims(4, 0, 10), (4, 3, 10)),
        (dims(5, 3) + " axis: 1 num_axes: 2", (2, 5, 3, 4)),
        (dims(-1) + " axis: 1 num_axes: 2", (2, 15, 4)),
        (dims(1, 1) + " axis: -1", (2, 3, 5, 4, 1, 1)),
        (dims(2, -1) + " axis: -2", (2, 3, 5, 2, 2)),
        (dims(1) + " axis: 0 num_axes: 0", (1, 2, 3, 5, 4)),
        (dims(20) + " axis: 2", (2, 3, 20)),
    ],
)
def test_against_numpy(param: str, shape: tuple[int, ...]) -> None:
    check_layer(reshape(param), [X], expect=lambda x: x.reshape(shape))


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_zero_and_minus_one_follow_a_new_shape(engine: str) -> None:
    net = build(reshape(dims(0, -1, 2)), (2, 3, 5, 4), engine=engine)
    net.blobs["b0"].reshape(7, 2, 3, 1)
    assert net.forward()["t0"].shape == (7, 3, 2)


@pytest.mark.parametrize(
    ("param", "message"),
    [
        (dims(-1, -1), r"multiple -1 dims; at most a single \(1\) value of -1 may be specified\. Got \[-1, -1\]"),
        (dims(1) + " axis: 5", "axis 5 out of range for 4-D input blob"),
        (dims(1) + " axis: -6", "axis -6 out of range"),
        (dims(1) + " num_axes: -2", "num_axes must be >= 0, or -1 for all. Got -2"),
        (dims(1) + " axis: 3 num_axes: 2", r"end_axis = axis \+ num_axes is out of range"),
    ],
)
def test_bad_parameters(param: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        build(reshape(param), (2, 3, 5, 4))


@pytest.mark.parametrize(
    ("param", "message"),
    [
        (dims(2, 3, 5, 4, 0), "new shape contains a 0, but there was no corresponding bottom axis to copy"),
        (dims(7, -1), r"bottom count \(120\) must be divisible by the product of the specified dimensions \(7\)"),
        (dims(2, 3), r"output count must match input count\. Got 6 for 120"),
        (dims(-2, -60), "output count must match input count"),
    ],
)
def test_shapes_that_do_not_fit(param: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        build(reshape(param), (2, 3, 5, 4))


def test_not_in_place() -> None:
    with pytest.raises(LayerError, match="Reshape Layer does not allow in-place computation"):
        build('layer { name: "l" type: "Reshape" bottom: "b0" top: "b0" }', (2, 3))
