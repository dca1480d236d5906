from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer


def layer(param: str) -> str:
    return f'layer {{ name: "l" type: "ResizeBilinear" bottom: "b0" top: "t0" resize_bilinear_param {{ {param} }} }}'


def resized(x, size):
    y = np.zeros((*x.shape[:2], *size), np.float64)
    ratio = [extent / wanted for extent, wanted in zip(x.shape[2:], size)]
    for i, j in np.ndindex(*size):
        top, left = int(i * ratio[0]), int(j * ratio[1])
        low, right = min(top + 1, x.shape[2] - 1), min(left + 1, x.shape[3] - 1)
        a, b = i * ratio[0] - top, j * ratio[1] - left
        y[:, :, i, j] = (1 - a) * ((1 - b) * x[:, :, top, left] + b * x[:, :, top, right])
        y[:, :, i, j] += a * ((1 - b) * x[:, :, low, left] + b * x[:, :, low, right])
    return y


@pytest.mark.parametrize(
    ("param", "size"),
    [
        ("factor: 2", (10, 14)),
        ("factor: 0.5", (2, 3)),
        ("factor: 1.7", (8, 11)),
        ("height: 4 width: 9", (4, 9)),
        ("height: 1 width: 7", (1, 7)),
    ],
)
def test_against_a_loop(param: str, size: tuple[int, int]) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 7))
    check_layer(layer(param), [x], expect=lambda x: resized(x, size))


def test_by_hand() -> None:
    net = build(layer("factor: 2"), (1, 1, 2, 2))
    net.blobs["b0"].data[...] = [[[[1, 3], [4, 9]]]]
    net.forward()
    assert net.blobs["t0"].data.tolist() == [
        [[[1, 2, 3, 3], [2.5, 4.25, 6, 6], [4, 6.5, 9, 9], [4, 6.5, 9, 9]]],
    ]


@pytest.mark.parametrize(
    "param", ["", "factor: 0", "factor: -2", "factor: inf", "height: 4", "factor: 2 height: 4 width: 4"]
)
def test_bad_parameters(param: str) -> None:
    with pytest.raises(LayerError, match="Only supports factor greater than 0, or height and width"):
        build(layer(param), (2, 3, 5, 7))


def test_bad_shapes() -> None:
    with pytest.raises(ShapeError, match=r"output height and width should be positive. Got \(0, 1\)"):
        build(layer("factor: 0.15"), (2, 3, 5, 7))
    with pytest.raises(ShapeError, match="ResizeBilinear's bottom has 4 axes"):
        build(layer("factor: 2"), (5, 7))
    with pytest.raises(ShapeError, match="blob size exceeds INT_MAX"):
        build(layer("factor: 1e9"), (2, 3, 5, 7))
