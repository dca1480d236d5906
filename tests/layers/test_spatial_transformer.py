"""SpatialTransformer: a loop from the formula, the gradient, values that are given, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer


def layer(param: str = "") -> str:
    return (
        f'layer {{ name: "l" type: "SpatialTransformer" bottom: "b0" bottom: "b1" top: "t0" st_param {{ {param} }} }}'
    )


def transformed(u: np.ndarray, theta: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    num, channels, height, width = u.shape
    out = np.zeros((num, channels, *size))
    for n, s, t in np.ndindex(num, *size):
        grid = np.array([s / size[0] * 2 - 1, t / size[1] * 2 - 1, 1])
        p, q = theta[n].reshape(2, 3).astype(np.float64) @ grid
        x, y = (p + 1) / 2 * height, (q + 1) / 2 * width
        for i in {math.floor(x), math.ceil(x)}:
            for j in {math.floor(y), math.ceil(y)}:
                if 0 <= i < height and 0 <= j < width:
                    out[n, :, s, t] += (1 - abs(x - i)) * (1 - abs(y - j)) * u[n, :, i, j]
    return out


def bottoms(theta_shape: tuple[int, ...] = (3, 6)) -> list[np.ndarray]:
    generator = np.random.default_rng(9)
    theta = np.array([1, 0, 0, 0, 1, 0][: theta_shape[1]]) + 0.3 * generator.standard_normal((3, theta_shape[1]))
    return [generator.standard_normal((3, 2, 5, 7)), theta.reshape(theta_shape)]


@pytest.mark.parametrize("size", [(5, 7), (4, 9), (1, 1), (11, 3)])
def test_loop(size: tuple[int, int]) -> None:
    text = layer(f"output_H: {size[0]} output_W: {size[1]}")
    check_layer(text, bottoms(), expect=lambda u, theta: transformed(u, theta, size))


def test_size_of_the_bottom_by_default() -> None:
    check_layer(layer(), bottoms((3, 6, 1, 1)), expect=lambda u, theta: transformed(u, theta, (5, 7)))


def test_values_that_are_given() -> None:
    def expect(u: np.ndarray, theta: np.ndarray) -> np.ndarray:
        whole = np.zeros((3, 6))
        whole[:, 1], whole[:, 3], whole[:, [0, 2, 4, 5]] = 0.25, -0.5, theta
        return transformed(u, whole, (5, 7))

    check_layer(layer("theta_1_2: 0.25 theta_2_1: -0.5"), bottoms((3, 4)), expect=expect)


def test_identity() -> None:
    net = build(layer(), (3, 2, 5, 7), (3, 6))
    net.blobs["b0"].data[...] = bottoms()[0]
    net.blobs["b1"].data[...] = [1, 0, 0, 0, 1, 0]
    net.forward()
    np.testing.assert_allclose(net.blobs["t0"].data, net.blobs["b0"].data, atol=1e-5)


def test_no_gradient_to_the_image_where_it_is_not_wanted() -> None:
    for wanted in (True, False):
        net = build(layer(f"to_compute_dU: {str(wanted).lower()}"), (3, 2, 5, 7), (3, 6), engine="torch")
        net.blobs["b0"].data[...], net.blobs["b1"].data[...] = bottoms()
        net.forward()
        net.blobs["t0"].diff[...] = 1
        net.backward()
        assert net.blobs["b0"].diff.any() == wanted
        assert net.blobs["b1"].diff.any()


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -3e38, 1e9])
def test_positions_out_of_reach_give_zeros(engine: str, value: float) -> None:
    net = build(layer(), (1, 2, 5, 7), (1, 6), engine=engine)
    net.blobs["b0"].data[...] = 1
    net.blobs["b1"].data[...] = [0, 0, value, 0, 0, 0]
    net.forward()
    assert not net.blobs["t0"].data.any()


def test_bad_input() -> None:
    with pytest.raises(LayerError, match="transform_type only supports affine now! Got 'tps'"):
        build(layer('transform_type: "tps"'), (3, 2, 5, 7), (3, 6))
    with pytest.raises(LayerError, match="output_H and output_W must be positive"):
        build(layer("output_H: -4"), (3, 2, 5, 7), (3, 6))
    with pytest.raises(ShapeError, match="The dimension of theta is not six! Expected 5 values an item"):
        build(layer("theta_1_1: 1"), (3, 2, 5, 7), (3, 6))
    with pytest.raises(ShapeError, match="The first dimension of theta and U should be the same"):
        build(layer(), (3, 2, 5, 7), (2, 6))
    with pytest.raises(ShapeError, match="blob size exceeds INT_MAX"):
        build(layer("output_H: 1000000000 output_W: 1000000000"), (3, 2, 5, 7), (3, 6))
