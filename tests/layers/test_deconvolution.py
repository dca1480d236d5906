"""Deconvolution on both engines: golden cases, a loop written from the formula, bad shapes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pycaffe.errors import ShapeError
from tests.layers.case import build, check_layer, run_golden

RNG = np.random.default_rng(4)


def layer(param: str, bottoms: int = 1) -> str:
    ends = " ".join(f'bottom: "b{i}" top: "t{i}"' for i in range(bottoms))
    return f'layer {{ name: "l" type: "Deconvolution" {ends} convolution_param {{ {param} }} }}'


def deconvolution(x, weight, bias=None, stride=1, pad=0, dilation=1, group=1):
    """Every pixel adds its multiple of a filter; what falls outside is lost."""
    kernel, spatial = weight.shape[2:], x.shape[2:]
    out = [stride * (size - 1) + dilation * (k - 1) + 1 - 2 * pad for size, k in zip(spatial, kernel)]
    outputs, inputs = weight.shape[1], len(weight) // group
    y = np.zeros((len(x), outputs * group, *out))
    for n, c, o in itertools.product(range(len(x)), range(len(weight)), range(outputs)):
        for at, tap in itertools.product(np.ndindex(*spatial), np.ndindex(*kernel)):
            target = [stride * a + dilation * t - pad for a, t in zip(at, tap)]
            if all(0 <= t < size for t, size in zip(target, out)):
                y[(n, c // inputs * outputs + o, *target)] += weight[(c, o, *tap)] * x[(n, c, *at)]
    return y if bias is None else y + bias.reshape(-1, *[1] * len(out))


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("name", ["deconv_0", "deconv_1", "deconv_2", "deconv_3"])
def test_golden(name: str) -> None:
    assert run_golden(name) == ["torch", "onnxruntime"]


def test_values_by_hand() -> None:
    check_layer(
        layer("num_output: 1 kernel_h: 1 kernel_w: 2 stride: 2"),
        [np.array([[[[1, 2], [3, 4]]]], np.float32)],
        [np.array([[[[1, 10]]]], np.float32), np.array([100], np.float32)],
        expect=lambda *_: np.array([[[[101, 110, 102, 120], [100] * 4, [103, 130, 104, 140]]]], np.float32),
    )


@pytest.mark.parametrize(
    ("param", "shape", "weight", "options"),
    [
        (
            "num_output: 6 kernel_size: 3 stride: 2 pad: 1 group: 2",
            (2, 4, 3, 5),
            (4, 3, 3, 3),
            {"stride": 2, "pad": 1, "group": 2},
        ),
        (
            "num_output: 2 kernel_size: 2 dilation: 3 stride: 2",
            (2, 3, 4, 3),
            (3, 2, 2, 2),
            {"dilation": 3, "stride": 2},
        ),
        ("num_output: 2 kernel_size: 4 stride: 3 pad: 1", (2, 3, 5), (3, 2, 4), {"stride": 3, "pad": 1}),
        ("num_output: 2 kernel_size: 2 stride: 2", (2, 3, 2, 3, 4), (3, 2, 2, 2, 2), {"stride": 2}),
        ("num_output: 4 kernel_size: 1", (2, 3, 4, 5), (3, 4, 1, 1), {}),
    ],
    ids=["groups", "dilation", "1d", "3d", "1x1"],
)
def test_against_loop(param: str, shape: tuple[int, ...], weight: tuple[int, ...], options: dict[str, int]) -> None:
    params = [normal(*weight), normal(weight[1] * options.get("group", 1))]
    check_layer(layer(param), [normal(*shape)], params, expect=lambda x, w, b: deconvolution(x, w, b, **options))


def test_four_spatial_axes() -> None:
    check_layer(
        layer("num_output: 4 kernel_size: 2 stride: 2 pad: 1 dilation: 2 group: 2"),
        [normal(2, 4, 2, 3, 2, 3)],
        [normal(4, 2, 2, 2, 2, 2), normal(4)],
        expect=lambda x, w, b: deconvolution(x, w, b, stride=2, pad=1, dilation=2, group=2),
    )


def test_two_bottoms_without_bias() -> None:
    check_layer(
        layer("num_output: 2 kernel_size: 2 bias_term: false", bottoms=2),
        [normal(2, 3, 4, 5), normal(2, 3, 4, 5)],
        [normal(3, 2, 2, 2)],
        expect=lambda a, b, w: [deconvolution(a, w), deconvolution(b, w)],
    )


def test_axis_and_no_spatial_axes() -> None:
    check_layer(
        layer("num_output: 2 kernel_size: 3 axis: 0"),
        [normal(3, 4, 5)],
        [normal(3, 2, 3, 3), normal(2)],
        expect=lambda x, w, b: deconvolution(x[None], w, b)[0],
    )
    check_layer(
        layer("num_output: 4 kernel_size: 1"),
        [normal(2, 3)],
        [normal(3, 4), normal(4)],
        expect=lambda x, w, b: x @ w + b,
    )


def test_padding_that_leaves_nothing() -> None:
    with pytest.raises(ShapeError, match=r"output would have extents \(0, 1\)"):
        build(layer("num_output: 2 kernel_size: 3 pad: 3"), (2, 3, 4, 5))
