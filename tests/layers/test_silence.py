from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import build
from tests.layers.diffs import bottom_diffs

SILENCE = 'layer { name: "l" type: "Silence" bottom: "b0" bottom: "b1" }'


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_its_bottoms_are_no_outputs(engine: str) -> None:
    relu = 'layer { name: "r" type: "ReLU" bottom: "b0" top: "y" }'
    net = build(relu + 'layer { name: "l" type: "Silence" bottom: "b1" }', (2, 3), (4,), engine=engine)
    net.blobs["b0"].data[...] = [[-1, 2, -3], [4, -5, 6]]
    assert net.outputs == ["y"]
    np.testing.assert_array_equal(net.forward()["y"], [[0, 2, 0], [4, 0, 6]])


def test_the_gradients_are_zero() -> None:
    bottoms = [np.ones((2, 3), np.float32), np.ones((4, 1, 5), np.float32)]
    for diff, bottom in zip(bottom_diffs(SILENCE, bottoms, []), bottoms):
        np.testing.assert_array_equal(diff, np.zeros_like(bottom))


def test_a_silenced_branch_adds_nothing_to_the_gradient() -> None:
    text = 'layer { name: "s" type: "Silence" bottom: "b0" } layer { name: "l" type: "Power" bottom: "b0" top: "t0" }'
    (diff,) = bottom_diffs(text, [np.ones((2, 3), np.float32)], [np.full((2, 3), 7, np.float32)])
    np.testing.assert_array_equal(diff, np.full((2, 3), 7))


def test_it_has_no_top() -> None:
    with pytest.raises(LayerError, match="0 top"):
        build('layer { name: "l" type: "Silence" bottom: "b0" top: "t0" }', (2, 3))
