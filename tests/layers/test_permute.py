"""Permute on both engines."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import FORKS, build, check_layer, run_fork_golden

X = np.random.default_rng(3).standard_normal((2, 3, 4, 5), dtype=np.float32)


def layer(order: str, top: str = "t0") -> str:
    return f'layer {{ name: "l" type: "Permute" bottom: "b0" top: "{top}" permute_param {{ {order} }} }}'


@pytest.mark.parametrize("name", sorted(path.stem for path in FORKS.glob("permute*.prototxt")))
def test_golden(name: str) -> None:
    assert run_fork_golden(name) == ["torch", "onnxruntime"]


def test_value_by_hand() -> None:
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    want = np.array([[[0, 3], [1, 4], [2, 5]]], np.float32)
    check_layer(layer("order: 0 order: 2 order: 1"), [x], expect=lambda x: want)


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (3, 1, 0, 2), (0, 1, 2, 3)])
def test_against_a_loop(order: tuple[int, ...]) -> None:
    def loop(x: np.ndarray) -> np.ndarray:
        y = np.empty([x.shape[axis] for axis in order], np.float32)
        for index in np.ndindex(*y.shape):
            source = [0] * 4
            for i, axis in enumerate(order):
                source[axis] = index[i]
            y[index] = x[tuple(source)]
        return y

    check_layer(layer(" ".join(f"order: {axis}" for axis in order)), [X], expect=loop)


def test_axes_that_are_not_named_follow() -> None:
    check_layer(layer("order: 2"), [X], expect=lambda x: x.transpose(2, 0, 1, 3))
    check_layer(layer(""), [X], expect=lambda x: x)


def test_other_extents_of_the_bottom() -> None:
    net = build(layer("order: 0 order: 2 order: 3 order: 1"), X.shape)
    net.blobs["b0"].reshape(3, 2, 6, 1)
    x = np.arange(36, dtype=np.float32).reshape(3, 2, 6, 1)
    net.blobs["b0"].data[...] = x
    np.testing.assert_array_equal(net.forward()["t0"], x.transpose(0, 2, 3, 1))


def test_bad_inputs() -> None:
    with pytest.raises(LayerError, match=r"order should be less than the input dimension. Got 4 for shape"):
        build(layer("order: 0 order: 4"), X.shape)
    with pytest.raises(LayerError, match=r"there are duplicate orders. Got \[1, 2, 1\]"):
        build(layer("order: 1 order: 2 order: 1"), X.shape)
    with pytest.raises(LayerError, match="does not allow in-place"):
        build(layer("order: 0", top="b0"), X.shape)
    net = build(layer("order: 0"), X.shape)
    net.blobs["b0"].reshape(2, 3)
    with pytest.raises(ShapeError, match=r"num_axes_ == orders.size\(\) \(2 vs. 4\)"):
        net.reshape()
