"""Im2col on both engines."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_golden


def layer(param: str) -> str:
    return f'layer {{ name: "l" type: "Im2col" bottom: "b0" top: "t0" convolution_param {{ {param} }} }}'


def columns(x, kernel, stride=1, pad=0, dilation=1):
    out = [int((size + 2 * pad - dilation * (k - 1) - 1) / stride) + 1 for size, k in zip(x.shape[2:], kernel)]
    y = np.zeros((len(x), x.shape[1] * int(np.prod(kernel)), *out), np.float32)
    for n, c, (i, tap), at in itertools.product(
        range(len(x)), range(x.shape[1]), enumerate(np.ndindex(*kernel)), np.ndindex(*out)
    ):
        source = [stride * a + dilation * t - pad for a, t in zip(at, tap)]
        if all(0 <= s < size for s, size in zip(source, x.shape[2:])):
            y[(n, c * int(np.prod(kernel)) + i, *at)] = x[(n, c, *source)]
    return y


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(shape, dtype=np.float32)


def test_golden() -> None:
    assert run_golden("im2col") == ["torch", "onnxruntime"]


@pytest.mark.parametrize(
    ("param", "shape", "options"),
    [
        ("kernel_size: 3 stride: 2 pad: 1", (2, 3, 4, 7), {"kernel": (3, 3), "stride": 2, "pad": 1}),
        ("kernel_h: 1 kernel_w: 2 dilation: 2 force_nd_im2col: true", (2, 3, 4, 5), {"kernel": (1, 2), "dilation": 2}),
        ("kernel_size: 3", (2, 3, 5), {"kernel": (3,)}),
        ("kernel_size: 2 pad: 1 stride: 2", (2, 3, 2, 4, 5), {"kernel": (2, 2, 2), "pad": 1, "stride": 2}),
        ("kernel_size: 2", (2, 1, 2, 3, 4, 2), {"kernel": (2, 2, 2, 2)}),
        ("kernel_size: 3 stride: 2", (2, 3, 2, 5), {"kernel": (3, 3), "stride": 2}),
    ],
    ids=["2d", "dilation", "1d", "3d", "4d", "overhang"],
)
def test_against_loop(param, shape, options) -> None:
    check_layer(layer(param), [normal(*shape)], expect=lambda x: columns(x, **options))


def test_axis() -> None:
    check_layer(layer("kernel_size: 2 axis: 0"), [normal(3, 4, 5)], expect=lambda x: columns(x[None], (2, 2))[0])
    check_layer(
        layer("kernel_size: 2 axis: 2"),
        [normal(2, 3, 2, 4, 5)],
        expect=lambda x: columns(x.reshape(6, 2, 4, 5), (2, 2)).reshape(2, 3, 8, 3, 4),
    )


def test_bad_input() -> None:
    with pytest.raises(LayerError, match="num_spatial_axes_ >= 1"):
        build(layer("kernel_size: 2"), (2, 3))
    with pytest.raises(LayerError, match="kernel_size must be specified once"):
        build(layer("stride: 2"), (2, 3, 4, 5))
    with pytest.raises(ShapeError, match=r"extents \(-1, 0\)"):
        build(layer("kernel_size: 6"), (2, 3, 4, 5))
    net = build(layer("kernel_size: 2"), (2, 3, 4, 5))
    net.blobs["b0"].reshape(2, 3, 4)
    with pytest.raises(ShapeError, match="bottom num_axes may not change"):
        net.reshape()
