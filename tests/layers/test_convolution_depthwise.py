from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import build, check_layer


def layer(param: str) -> str:
    return f'layer {{ name: "l" type: "ConvolutionDepthwise" bottom: "b0" top: "t0" convolution_param {{ {param} }} }}'


def convolved(x, weight, bias, stride, pad, dilation):
    """A plain loop over the formula, one channel at a time."""
    (kernel_h, kernel_w), (height, width) = weight.shape[2:], x.shape[2:]
    out_h = (height + 2 * pad - dilation * (kernel_h - 1) - 1) // stride + 1
    out_w = (width + 2 * pad - dilation * (kernel_w - 1) - 1) // stride + 1
    y = np.zeros((*x.shape[:2], out_h, out_w), np.float32)
    for n, c, i, j in np.ndindex(*y.shape):
        y[n, c, i, j] = bias[c]
        for a, b in np.ndindex(kernel_h, kernel_w):
            row, column = i * stride + a * dilation - pad, j * stride + b * dilation - pad
            if 0 <= row < height and 0 <= column < width:
                y[n, c, i, j] += weight[c, 0, a, b] * x[n, c, row, column]
    return y


@pytest.mark.parametrize(
    ("param", "window"),
    [
        ("kernel_size: 3", (1, 0, 1)),
        ("kernel_size: 3 stride: 2 pad: 1 num_output: 3", (2, 1, 1)),
        ("kernel_h: 3 kernel_w: 2 dilation: 2 pad: 2 group: 3 num_output: 3", (1, 2, 2)),
        ("kernel_size: 2 num_output: 7 group: 1", (1, 0, 1)),  # both count for nothing
    ],
)
def test_against_a_loop(param: str, window: tuple[int, int, int]) -> None:
    generator = np.random.default_rng(1)
    x = generator.standard_normal((2, 3, 6, 5))
    shape = build(layer(param), x.shape).params["l"][0].shape
    assert shape[:2] == (3, 1)
    params = [generator.standard_normal(shape), generator.standard_normal(3)]
    check_layer(layer(param), [x], params, expect=lambda x, w, b: convolved(x, w, b, *window))


def test_without_bias() -> None:
    assert len(build(layer("kernel_size: 3 bias_term: false"), (2, 3, 6, 5)).params["l"]) == 1


def test_with_a_capital_w() -> None:
    text = layer("kernel_size: 3").replace("Depthwise", "DepthWise")
    assert build(text, (2, 3, 6, 5)).params["l"][0].shape == (3, 1, 3, 3)


def test_bad_input() -> None:
    with pytest.raises(LayerError, match="Filter dimensions must be nonzero"):
        build(layer("kernel_size: 0"), (2, 3, 6, 5))
