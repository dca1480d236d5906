from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import build, check_layer, run_golden


def softmax(param: str) -> str:
    return f'layer {{ name: "l" type: "Softmax" bottom: "b0" top: "t0" softmax_param {{ {param} }} }}'


@pytest.mark.parametrize("case", ["softmax_0", "softmax_1", "softmax_2"])
def test_golden(case: str) -> None:
    assert run_golden(case) == ["torch", "onnxruntime"]


@pytest.mark.parametrize(
    ("param", "axis", "shape"),
    [
        ("", 1, (2, 3, 5, 4)),
        ("", 1, (2, 7)),
        ("axis: 0", 0, (2, 3, 5, 4)),
        ("axis: -2", 2, (2, 3, 5, 4)),
        ("axis: 0 engine: CAFFE", 0, (6,)),
    ],
)
def test_against_numpy(param: str, axis: int, shape: tuple[int, ...]) -> None:
    def expect(x: np.ndarray) -> np.ndarray:
        e = np.exp(x.astype(np.float64))
        return np.float32(e / e.sum(axis=axis, keepdims=True))

    check_layer(softmax(param), [np.random.default_rng(1).standard_normal(shape) * 3], expect=expect)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_large_values_do_not_overflow(engine: str) -> None:
    net = build(softmax(""), (1, 3), engine=engine)
    net.blobs["b0"].data[...] = [[1000, 1000, -1000]]
    np.testing.assert_allclose(net.forward()["t0"], [[0.5, 0.5, 0]])


def test_axis_out_of_range() -> None:
    with pytest.raises(LayerError, match="axis 1 out of range"):
        build(softmax(""), (3,))
