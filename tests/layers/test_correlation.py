"""Correlation: a loop from the formula, the gradient, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer


def layer(param: str) -> str:
    return (
        f'layer {{ name: "l" type: "Correlation" bottom: "b0" bottom: "b1" top: "t0" correlation_param {{ {param} }} }}'
    )


def correlated(
    a: np.ndarray, b: np.ndarray, kernel: int, reach: int, pad: int, stride: int, step: int, subtract: bool
) -> np.ndarray:
    num, channels, *size = a.shape
    a, b = (np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad))) for x in (a, b))
    radius, border = reach // step, reach + (kernel - 1) // 2
    height, width = (math.ceil((extent + 2 * pad - 2 * border) / stride) for extent in size)
    side = 2 * radius + 1
    out = np.zeros((num, side * side, height, width))
    for n, q, y, x in np.ndindex(out.shape):
        moved = (q // side - radius) * step, (q % side - radius) * step
        for j, i, c in np.ndindex(kernel, kernel, channels):
            row, column = y * stride + reach + j, x * stride + reach + i
            first, second = a[n, c, row, column], b[n, c, row + moved[0], column + moved[1]]
            out[n, q, y, x] += abs(first - second) if subtract else first * second
    return out / (kernel * kernel * channels)


@pytest.mark.parametrize("subtract", [False, True])
@pytest.mark.parametrize(
    ("kernel", "reach", "pad", "stride", "step"),
    [(1, 2, 2, 1, 1), (3, 2, 3, 1, 2), (1, 3, 3, 2, 2), (3, 1, 0, 2, 1), (1, 0, 0, 3, 1), (1, 3, 1, 1, 2)],
)
def test_loop(kernel: int, reach: int, pad: int, stride: int, step: int, subtract: bool) -> None:
    generator = np.random.default_rng(6)
    bottoms = [generator.standard_normal((2, 3, 7, 8)) for _ in range(2)]
    text = layer(
        f"kernel_size: {kernel} max_displacement: {reach} pad: {pad} stride_1: {stride} stride_2: {step} "
        f"correlation_type: {'SUBTRACT' if subtract else 'MULTIPLY'}"
    )
    check_layer(text, bottoms, expect=lambda a, b: correlated(a, b, kernel, reach, pad, stride, step, subtract))


def test_many_displacements_are_left_to_torch() -> None:
    generator = np.random.default_rng(6)
    bottoms = [generator.standard_normal((1, 2, 3, 4)) for _ in range(2)]
    text = layer("kernel_size: 1 max_displacement: 16 pad: 16")
    check_layer(
        text,
        bottoms,
        expect=lambda a, b: correlated(a, b, 1, 16, 16, 1, 1, False),
        lowers=False,
        gradient=False,
    )


def test_bad_input() -> None:
    shape = (2, 3, 7, 8)
    with pytest.raises(LayerError, match="Filter kernel_size is not set"):
        build(layer("max_displacement: 2"), shape, shape)
    with pytest.raises(LayerError, match="Max displacement is required"):
        build(layer("kernel_size: 1"), shape, shape)
    with pytest.raises(LayerError, match=r"Odd kernel size required. Got 2"):
        build(layer("kernel_size: 2 max_displacement: 1"), shape, shape)
    with pytest.raises(LayerError, match="Strides cannot be zero"):
        build(layer("kernel_size: 1 max_displacement: 1 stride_2: 0"), shape, shape)
    with pytest.raises(ShapeError, match="Neighborhood and kernel don't fit in blob"):
        build(layer("kernel_size: 1 max_displacement: 4"), shape, shape)
    with pytest.raises(ShapeError, match="Both bottom blobs must have same width, height and channels"):
        build(layer("kernel_size: 1 max_displacement: 1"), shape, (2, 3, 8, 7))
    with pytest.raises(ShapeError, match="blob size exceeds INT_MAX"):
        build(layer("kernel_size: 1 max_displacement: 0 pad: 1000000000 stride_1: 1000000000"), shape, shape)
