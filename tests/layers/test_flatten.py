from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_golden

X = np.random.default_rng(1).standard_normal((2, 3, 5, 4))


def flatten(param: str) -> str:
    return f'layer {{ name: "l" type: "Flatten" bottom: "b0" top: "t0" flatten_param {{ {param} }} }}'


@pytest.mark.parametrize("case", [f"flatten_{i}" for i in range(4)])
def test_golden(case: str) -> None:
    assert run_golden(case) == ["torch", "onnxruntime"]


@pytest.mark.parametrize(
    ("param", "shape"),
    [
        ("", (2, 60)),
        ("axis: 0", (120,)),
        ("axis: 2", (2, 3, 20)),
        ("axis: -1", (2, 3, 5, 4)),
        ("axis: 0 end_axis: 2", (30, 4)),
        ("axis: 1 end_axis: -2", (2, 15, 4)),
        ("axis: 2 end_axis: 1", (2, 3, 1, 5, 4)),
    ],
)
def test_against_numpy(param: str, shape: tuple[int, ...]) -> None:
    check_layer(flatten(param), [X], expect=lambda x: x.reshape(shape))


def test_it_follows_a_new_shape() -> None:
    net = build(flatten(""), (2, 3, 5, 4))
    net.blobs["b0"].reshape(7, 2, 1, 3)
    assert net.forward()["t0"].shape == (7, 6)


def test_axes_out_of_range() -> None:
    with pytest.raises(LayerError, match=r"axis 4 out of range"):
        build(flatten("axis: 4"), (2, 3, 5, 4))
    with pytest.raises(LayerError, match=r"end_axis 4 out of range"):
        build(flatten("end_axis: 4"), (2, 3, 5, 4))
    with pytest.raises(ShapeError, match=r"start_axis <= end_axis \(3 vs. 2\)\. Got axis 3, end_axis 1"):
        build(flatten("axis: 3 end_axis: 1"), (2, 3, 5, 4))


def test_not_in_place() -> None:
    with pytest.raises(LayerError, match="Flatten Layer does not allow in-place computation"):
        build('layer { name: "l" type: "Flatten" bottom: "b0" top: "b0" }', (2, 3))
