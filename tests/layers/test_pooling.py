"""Pooling on both engines: golden cases, every odd geometry against a loop, STOCHASTIC against its distribution."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pycaffe import rng
from pycaffe.errors import LayerError, ShapeError
from pycaffe.net import TRAIN
from tests.layers.case import build, check_layer, run_golden

GOLDEN = [f"pool_{method}_{i}" for method in ("ave", "max") for i in range(7)]


def layer(param: str, tops: str = 'top: "t0"') -> str:
    return f'layer {{ name: "l" type: "Pooling" bottom: "b0" {tops} pooling_param {{ {param} }} }}'


def windows(size, kernel, stride, pad, rounding):
    """Begin and end of each window on one axis, before clipping."""
    out = rounding((size + 2 * pad - kernel) / stride) + 1
    if (out - 1) * stride >= size + pad:
        out -= 1
    return [(i * stride - pad, i * stride - pad + kernel) for i in range(out)]


def pool(x, reduce, kernel, stride, pad, rounding=math.ceil):
    """`reduce(pixels, padded_pixels, first, width)` of each window."""
    rows, columns = (windows(s, k, t, p, rounding) for s, k, t, p in zip(x.shape[2:], kernel, stride, pad))
    y = np.zeros((*x.shape[:2], len(rows), len(columns)), np.float64)
    (height, width), (pad_h, pad_w) = x.shape[2:], pad
    for (n, c), (i, (top, bottom)), (j, (left, right)) in itertools.product(
        np.ndindex(*x.shape[:2]), enumerate(rows), enumerate(columns)
    ):
        padded = (min(bottom, height + pad_h) - top) * (min(right, width + pad_w) - left)
        top, left = max(top, 0), max(left, 0)
        y[n, c, i, j] = reduce(x[n, c, top:bottom, left:right], padded, (top, left), width)
    return y


def maximum(pixels, padded, first, width):
    return pixels.max()


def average(pixels, padded, first, width):
    return pixels.sum(dtype=np.float64) / padded


def where_maximum(pixels, padded, first, width):
    row, column = np.unravel_index(pixels.argmax(), pixels.shape)
    return (first[0] + row) * width + first[1] + column


def expected_value(pixels, padded, first, width):
    return (pixels**2).sum() / pixels.sum() if pixels.sum() > 0 else 0.0


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(6).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("name", [*GOLDEN, "pool_mask"])
def test_golden(name: str) -> None:
    assert run_golden(name) == ["torch", "onnxruntime"]


def test_values_by_hand() -> None:
    x = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)
    check_layer(layer("kernel_size: 2 stride: 2"), [x], expect=lambda x: np.array([[[[5, 7], [9, 11]]]], np.float32))
    check_layer(
        layer("kernel_size: 2 stride: 2 pool: AVE"),
        [x],
        expect=lambda x: np.array([[[[2.5, 4.5], [8.5, 10.5]]]], np.float32),
    )


GEOMETRIES = [
    (size, kernel, stride, pad)
    for size, kernel, stride, pad in itertools.product(
        ((5, 8), (1, 6)), ((3, 2), (4, 5)), ((1, 3), (2, 4)), ((0, 0), (1, 1), (2, 1), (3, 4))
    )
    if pad[0] < kernel[0]
    and pad[1] < kernel[1]
    and all(s + 2 * p + t > k for s, k, t, p in zip(size, kernel, stride, pad))
]


@pytest.mark.parametrize("mode", ["CEIL", "FLOOR"])
@pytest.mark.parametrize(("size", "kernel", "stride", "pad"), GEOMETRIES)
def test_geometry(size, kernel, stride, pad, mode: str) -> None:
    rounding = math.ceil if mode == "CEIL" else math.floor
    if any(s + 2 * p < k for s, k, p in zip(size, kernel, pad)) and mode == "FLOOR":
        with pytest.raises(ShapeError, match="output would have extents"):
            build(layer(f"kernel_h: {kernel[0]} kernel_w: {kernel[1]} round_mode: FLOOR"), (2, 3, *size))
        return
    window = (
        f"kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]} stride_w: {stride[1]} "
        f"pad_h: {pad[0]} pad_w: {pad[1]} round_mode: {mode}"
    )
    x, arguments = normal(2, 3, *size), (kernel, stride, pad, rounding)
    check_layer(
        layer(window, 'top: "t0" top: "mask"'),
        [x],
        expect=lambda x: [pool(x, maximum, *arguments), pool(x, where_maximum, *arguments)],
        gradient=False,
    )
    check_layer(layer(window), [x], expect=lambda x: pool(x, maximum, *arguments))
    check_layer(layer(f"{window} pool: AVE"), [x], expect=lambda x: pool(x, average, *arguments))


def test_last_window_outside_the_image_is_dropped_without_pad() -> None:
    for method, reduce in (("MAX", maximum), ("AVE", average)):
        net = check_layer(
            layer(f"kernel_size: 1 stride: 2 pool: {method}"),
            [normal(2, 3, 4, 5)],
            expect=lambda x, reduce=reduce: pool(x, reduce, (1, 1), (2, 2), (0, 0)),
        )
        assert net.blobs["t0"].data.shape == (2, 3, 2, 3)


@pytest.mark.parametrize(("method", "reduce"), [("MAX", maximum), ("AVE", average)])
def test_global_pooling_follows_the_image(method: str, reduce) -> None:
    net = check_layer(
        layer(f"global_pooling: true pool: {method}"),
        [normal(2, 3, 4, 5)],
        expect=lambda x: pool(x, reduce, x.shape[2:], (1, 1), (0, 0)),
    )
    net.blobs["b0"].reshape(1, 2, 6, 3)
    net.blobs["b0"].data[...] = normal(1, 2, 6, 3)
    net.forward()
    want = pool(normal(1, 2, 6, 3), reduce, (6, 3), (1, 1), (0, 0))
    np.testing.assert_allclose(net.blobs["t0"].data, want, rtol=1e-5)


def test_global_mask() -> None:
    check_layer(
        layer("global_pooling: true", 'top: "t0" top: "t1"'),
        [normal(2, 3, 4, 5)],
        expect=lambda x: [pool(x, f, (4, 5), (1, 1), (0, 0)) for f in (maximum, where_maximum)],
    )


def test_first_of_equal_maxima_gets_the_gradient() -> None:
    net = build(layer("kernel_size: 2 stride: 2"), (1, 1, 2, 4), engine="torch")
    net.blobs["b0"].data[...] = [[[[1, 1, 0, 2], [1, 1, 2, 2]]]]
    net.forward()
    net.blobs["t0"].diff[...] = [[[[3, 5]]]]
    net.backward()
    assert net.blobs["b0"].diff.tolist() == [[[[3, 0, 0, 5], [0, 0, 0, 0]]]]


def test_stochastic_test_phase_is_the_expected_value() -> None:
    x = np.abs(normal(2, 3, 5, 6))
    x[0, 1, :2, :2] = 0  # a window without any activation
    net = check_layer(
        layer("pool: STOCHASTIC kernel_size: 2 stride: 2"),
        [x],
        expect=lambda x: pool(x, expected_value, (2, 2), (2, 2), (0, 0)),
        gradient=False,
    )
    assert net.blobs["t0"].data[0, 1, 0, 0] == 0
    check_layer(
        layer("pool: STOCHASTIC kernel_size: 3 stride: 2"),
        [x + 1],
        expect=lambda x: pool(x, expected_value, (3, 3), (2, 2), (0, 0)),
    )


def test_stochastic_train_phase_draws_in_proportion() -> None:
    rng.seed(11)
    draws = 20000
    net = build(layer("pool: STOCHASTIC kernel_size: 2 stride: 2"), (draws, 1, 2, 3), phase=TRAIN)
    # the second window holds one column: the image ends there
    net.blobs["b0"].data[...] = [[[1, 0, 6], [2, 5, 2]]]
    net.forward()
    top = net.blobs["t0"].data
    assert top.shape == (draws, 1, 1, 2)
    for column, values in ((0, (1, 2, 5)), (1, (6, 2))):
        for value in values:
            share, p = np.mean(top[:, 0, 0, column] == value), value / sum(values)
            assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / draws)
    assert abs(np.corrcoef(top[:, 0, 0, 0], top[:, 0, 0, 1])[0, 1]) < 0.04
    first = top.copy()
    net.forward()
    assert (top != first).any()


def test_stochastic_gradient_goes_to_the_pixel_drawn() -> None:
    rng.seed(12)
    net = build(layer("pool: STOCHASTIC kernel_size: 2 stride: 1"), (2, 3, 4, 5), phase=TRAIN)
    x = 1 + np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    net.blobs["b0"].data[...] = x
    net.forward()
    net.blobs["t0"].diff[...] = normal(2, 3, 3, 4)
    want = np.zeros(120)
    np.add.at(want, net.blobs["t0"].data.astype(int).ravel() - 1, net.blobs["t0"].diff.ravel())
    net.backward()
    np.testing.assert_allclose(net.blobs["b0"].diff.ravel(), want, rtol=1e-6, atol=1e-6)


def test_stochastic_of_zeros_takes_the_first_pixel() -> None:
    net = build(layer("pool: STOCHASTIC kernel_size: 2"), (1, 1, 2, 2), phase=TRAIN)
    net.forward()
    net.blobs["t0"].diff[...] = 2
    net.backward()
    assert net.blobs["b0"].diff.tolist() == [[[[2, 0], [0, 0]]]]


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("kernel_size: 2 global_pooling: true", "With Global_pooling: true Filter size cannot specified"),
        ("stride: 2 global_pooling: true", r"With Global_pooling: true; only pad = 0 and stride = 1.*stride \(2, 2\)"),
        ("pool: MAX", "Filter size is kernel_size OR kernel_h and kernel_w; not both"),
        ("kernel_h: 2", r"Filter size is kernel_size OR kernel_h and kernel_w; not both. Got \['kernel_h'\]"),
        ("kernel_size: 2 kernel_h: 2 kernel_w: 2", "Filter size is kernel_size OR"),
        ("kernel_size: 0", "Filter dimensions cannot be zero"),
        ("kernel_size: 2 stride: 0", "Stride dimensions cannot be zero"),
        ("kernel_size: 2 pad: 1 pad_h: 1 pad_w: 1", "pad is pad OR pad_h and pad_w are required"),
        ("kernel_size: 2 stride_w: 1", r"Stride is stride OR stride_h and stride_w are required. Got \['stride_w'\]"),
        ("kernel_size: 2 pad: 2", r"pad_h_ < kernel_h_, pad_w_ < kernel_w_. Got pad \(2, 2\), kernel \(2, 2\)"),
        ("kernel_size: 2 pad: 1 pool: STOCHASTIC", "Padding implemented only for average and max pooling"),
    ],
)
def test_bad_parameters(param: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        build(layer(param), (2, 3, 4, 5))


def test_mask_is_for_max() -> None:
    with pytest.raises(LayerError, match="at most 1 top"):
        build(layer("kernel_size: 2 pool: AVE", 'top: "t0" top: "t1"'), (2, 3, 4, 5))


def test_bad_shapes() -> None:
    with pytest.raises(ShapeError, match=r"Input must have 4 axes.*\(2, 3, 4\)"):
        build(layer("kernel_size: 2"), (2, 3, 4))
    with pytest.raises(ShapeError, match=r"extents \(-1, 0\)"):
        build(layer("kernel_size: 6"), (2, 3, 4, 5))


@pytest.mark.parametrize(("param", "width"), [("", 4), ("ceil_mode: true", 4), ("ceil_mode: false", 3)])
def test_ceil_mode_is_the_forks_name_for_round_mode(param: str, width: int) -> None:
    text = f"""layer {{ name: "l" type: "Pooling" bottom: "b0" top: "t0"
                       pooling_param {{ kernel_size: 2 stride: 2 {param} }} }}"""
    assert build(text, (2, 3, 5, 7)).blobs["t0"].shape == (2, 3, 2 if width == 3 else 3, width)
