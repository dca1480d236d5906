from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import assert_close, build, check_layer

TEXT = 'layer { name: "l" type: "LSTMUnit" bottom: "b0" bottom: "b1" bottom: "b2" top: "c" top: "h" }'


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def expect(cell: np.ndarray, gates: np.ndarray, cont: np.ndarray) -> list[np.ndarray]:
    depth = cell.shape[2]
    new_cell, hidden = np.zeros_like(cell), np.zeros_like(cell)
    for n in range(cell.shape[1]):
        for d in range(depth):
            i, f, o = (sigmoid(gates[0, n, k * depth + d]) for k in range(3))
            g = np.tanh(gates[0, n, 3 * depth + d])
            new_cell[0, n, d] = cont[0, n] * f * cell[0, n, d] + i * g
            hidden[0, n, d] = o * np.tanh(new_cell[0, n, d])
    return [new_cell, hidden]


def test_one_step() -> None:
    generator = np.random.default_rng(10)
    cell, gates = generator.standard_normal((1, 4, 3)), generator.standard_normal((1, 4, 12))
    check_layer(TEXT, [cell, gates, [[1, 0, 1, 0]]], expect=expect)


def test_the_gradient_for_a_fractional_cont_is_the_original_s() -> None:
    net = check_layer(TEXT, [[[[2]]], [[[0, 0, 0, 0]]], [[0.5]]], expect=expect, gradient=False)
    net.blobs["c"].diff[...] = 1
    net.backward()
    forget = 0.5 * 0.5
    want = [0, 2 * forget * (1 - forget), 0, 0.5]
    assert_close("gates", np.reshape(want, (1, 1, 4)), net.blobs["b1"].diff, rtol=1e-5, atol=1e-7)
    assert net.blobs["b0"].diff.item() == pytest.approx(forget)
    assert net.blobs["b2"].diff.item() == 0


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 4, 3), (1, 4, 11), (1, 4)), r"4 \* hidden_dim_ == bottom\[1\]->shape\(2\) \(12 vs. 11\)"),
        (((2, 4, 3), (1, 4, 12), (1, 4)), r"1 == bottom\[0\]->shape\(0\)"),
        (((1, 4, 3), (1, 5, 12), (1, 4)), r"num_instances == bottom\[1\]->shape\(1\) \(4 vs. 5\)"),
        (((1, 4, 3), (1, 4, 12), (1, 4, 1)), r"2 == bottom\[2\]->num_axes\(\) \(2 vs. 3\)"),
    ],
)
def test_wrong_shapes(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        build(TEXT, *shapes)


def test_refuses_the_gradient_of_cont() -> None:
    layer = build(TEXT, (1, 4, 3), (1, 4, 12), (1, 4)).layers[-1]
    assert [layer.allow_force_backward(i) for i in range(3)] == [True, True, False]
    with pytest.raises(LayerError, match="Cannot backpropagate to sequence indicators"):
        layer.backward([], [], [], [], [True, True, True])
