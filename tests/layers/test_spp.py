"""SPP on both engines."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from pycaffe.net import TRAIN
from tests.layers.case import build, check_layer, run_golden
from tests.layers.test_pooling import average, expected_value, maximum, pool


def layer(param: str) -> str:
    return f'layer {{ name: "l" type: "SPP" bottom: "b0" top: "t0" spp_param {{ {param} }} }}'


def pyramid(x, reduce, height):
    levels = []
    for level in range(height):
        kernel = [math.ceil(size / 2**level) for size in x.shape[2:]]
        pad = [math.ceil((k * 2**level - size) / 2) for k, size in zip(kernel, x.shape[2:])]
        levels.append(pool(x, reduce, kernel, kernel, pad).reshape(len(x), -1))
    return np.concatenate(levels, 1)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(8).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("name", ["spp_ave", "spp_max"])
def test_golden(name: str) -> None:
    assert run_golden(name) == ["torch", "onnxruntime"]


@pytest.mark.parametrize(("method", "reduce"), [("MAX", maximum), ("AVE", average)])
@pytest.mark.parametrize("size", [(7, 11), (8, 4), (13, 9)])
def test_against_loop(method: str, reduce, size: tuple[int, int]) -> None:
    net = check_layer(
        layer(f"pyramid_height: 3 pool: {method}"), [normal(2, 3, *size)], expect=lambda x: pyramid(x, reduce, 3)
    )
    assert net.blobs["t0"].data.shape == (2, 3 * 21)


def test_one_level_is_not_flattened() -> None:
    check_layer(layer("pyramid_height: 1"), [normal(2, 3, 4, 5)], expect=lambda x: x.max((2, 3), keepdims=True))


def test_the_length_does_not_depend_on_the_image() -> None:
    net = build(layer("pyramid_height: 2"), (2, 3, 5, 7))
    net.blobs["b0"].reshape(1, 3, 9, 6)
    x = normal(1, 3, 9, 6)
    net.blobs["b0"].data[...] = x
    net.forward()
    np.testing.assert_allclose(net.blobs["t0"].data, pyramid(x, maximum, 2))


def test_stochastic() -> None:
    x = 1 + np.abs(normal(2, 3, 4, 8))  # sizes that need no padding, which STOCHASTIC has not
    check_layer(
        layer("pyramid_height: 2 pool: STOCHASTIC"),
        [x],
        expect=lambda x: pyramid(x, expected_value, 2),
    )
    net = build(layer("pyramid_height: 2 pool: STOCHASTIC"), (2, 3, 4, 8), phase=TRAIN)
    net.blobs["b0"].data[...] = x
    net.forward()
    top = net.blobs["t0"].data
    assert top.shape == (2, 15)
    assert np.isin(top, x).all()
    assert len(np.unique(top)) > 10


@pytest.mark.parametrize(
    ("error", "param", "shape", "message"),
    [
        (LayerError, "pool: MAX", (2, 3, 4, 5), "pyramid_height > 0. Got 0"),
        (LayerError, "pyramid_height: 3", (2, 3, 1, 5), "pad_h_ < kernel_h_"),
        (LayerError, "pyramid_height: 2", (2, 3, 0, 5), "Input dimensions cannot be zero"),
        (LayerError, "pyramid_height: 2 pool: STOCHASTIC", (2, 3, 5, 5), "Padding implemented only for"),
        (ShapeError, "pyramid_height: 2", (2, 3, 4), "Input must have 4 axes"),
    ],
)
def test_bad_input(error, param, shape, message) -> None:
    with pytest.raises(error, match=message):
        build(layer(param), shape)
