"""Convolution on both engines: golden cases, a loop written from the formula, odd geometry, bad parameters."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_golden

RNG = np.random.default_rng(3)
GOLDEN = [
    "conv_0",
    "conv_1",
    "conv_1d",
    "conv_2",
    "conv_3",
    "conv_3d",
    "conv_4",
    "conv_5",
    "conv_6",
    "conv_two_bottoms",
]


def layer(param: str, bottoms: int = 1) -> str:
    ends = " ".join(f'bottom: "b{i}" top: "t{i}"' for i in range(bottoms))
    return f'layer {{ name: "l" type: "Convolution" {ends} convolution_param {{ {param} }} }}'


def convolution(x, weight, bias=None, stride=1, pad=0, dilation=1, group=1):
    """Window by window; outside the image are zeros, before it `pad` of them."""
    axes = weight.ndim - 2
    extents = [dilation * (k - 1) + 1 for k in weight.shape[2:]]
    out = [int((size + 2 * pad - e) / stride) + 1 for size, e in zip(x.shape[2:], extents)]
    y = np.zeros((len(x), len(weight), *out))
    per_group, outputs = weight.shape[1], len(weight) // group
    for n, o, at in itertools.product(range(len(x)), range(len(weight)), np.ndindex(*out)):
        first = o // outputs * per_group
        for c, tap in itertools.product(range(per_group), np.ndindex(*weight.shape[2:])):
            source = [stride * a + dilation * t - pad for a, t in zip(at, tap)]
            if all(0 <= s < size for s, size in zip(source, x.shape[2:])):
                y[(n, o, *at)] += weight[(o, c, *tap)] * x[(n, first + c, *source)]
    return y if bias is None else y + bias.reshape(-1, *[1] * axes)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    assert run_golden(name) == ["torch", "onnxruntime"]


def test_values_by_hand() -> None:
    x = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    weight = np.array([1, -2], np.float32).reshape(1, 1, 1, 2)
    check_layer(
        layer("num_output: 1 kernel_h: 1 kernel_w: 2"),
        [x],
        [weight, np.array([10], np.float32)],
        expect=lambda *_: np.array([[[[8, 7], [5, 4]]]], np.float32),
    )


@pytest.mark.parametrize(
    ("param", "shape", "weight", "options"),
    [
        (
            "num_output: 6 kernel_size: 3 stride: 2 pad: 1 group: 3",
            (2, 3, 5, 7),
            (6, 1, 3, 3),
            {"stride": 2, "pad": 1, "group": 3},
        ),
        ("num_output: 4 kernel_size: 2 dilation: 3 pad: 2", (2, 3, 6, 5), (4, 3, 2, 2), {"dilation": 3, "pad": 2}),
        ("num_output: 4 kernel_size: 3 force_nd_im2col: true", (2, 3, 5, 4), (4, 3, 3, 3), {}),
        (
            "num_output: 2 kernel_size: 3 kernel_size: 2 kernel_size: 1 pad: 1",
            (2, 3, 4, 5, 2),
            (2, 3, 3, 2, 1),
            {"pad": 1},
        ),
        (
            "num_output: 4 kernel_size: 2 stride: 2 group: 2",
            (2, 4, 4, 3, 2, 5),
            (4, 2, 2, 2, 2, 2),
            {"stride": 2, "group": 2},
        ),
    ],
    ids=["groups", "dilation", "force_nd", "3d", "4d"],
)
def test_against_loop(param: str, shape: tuple[int, ...], weight: tuple[int, ...], options: dict[str, int]) -> None:
    params = [normal(*weight), normal(weight[0])]
    check_layer(layer(param), [normal(*shape)], params, expect=lambda x, w, b: convolution(x, w, b, **options))


@pytest.mark.parametrize(
    ("param", "shape", "folded"),
    [
        ("num_output: 5 kernel_size: 2 axis: 0", (3, 4, 6), (1, 3, 4, 6)),
        ("num_output: 5 kernel_size: 2 axis: -3", (2, 3, 4, 6), (2, 3, 4, 6)),
        ("num_output: 5 kernel_size: 2 axis: 2", (2, 4, 3, 5, 6), (8, 3, 5, 6)),
    ],
)
def test_axis_makes_all_before_it_a_batch(param: str, shape: tuple[int, ...], folded: tuple[int, ...]) -> None:
    def expect(x, w, b):
        y = convolution(x.reshape(folded), w, b)
        return y.reshape(*shape[: len(shape) - 3], *y.shape[1:])

    check_layer(layer(param), [normal(*shape)], [normal(5, 3, 2, 2), normal(5)], expect=expect)


def test_without_spatial_axes_it_is_an_inner_product() -> None:
    check_layer(
        layer("num_output: 4 kernel_size: 1 group: 2"),
        [normal(3, 6)],
        [normal(4, 3), normal(4)],
        expect=lambda x, w, b: np.concatenate([x[:, :3] @ w[:2].T, x[:, 3:] @ w[2:].T], 1) + b,
    )


def test_kernel_that_overhangs_by_less_than_a_stride_gives_one_output() -> None:
    net = check_layer(
        layer("num_output: 2 kernel_size: 3 stride: 2"),
        [normal(2, 3, 2, 5)],
        [normal(2, 3, 3, 3), normal(2)],
        expect=lambda x, w, b: convolution(x, w, b, stride=2),
    )
    assert net.blobs["t0"].data.shape == (2, 2, 1, 2)


@pytest.mark.parametrize("batch", [1, 2])
def test_filters_as_large_as_the_input(batch: int) -> None:
    """One place to stand: compiled as a product of matrices from batch 2 on."""
    x, weight, bias = RNG.normal(size=(batch, 4, 3, 5)), RNG.normal(size=(6, 4, 3, 5)), RNG.normal(size=6)
    check_layer(
        layer("num_output: 6 kernel_h: 3 kernel_w: 5"),
        [x.astype(np.float32)],
        [weight.astype(np.float32), bias.astype(np.float32)],
        expect=lambda x, w, b: (np.einsum("nchw,ochw->no", x, w) + b)[..., None, None],
    )


def test_two_bottoms_share_weights() -> None:
    check_layer(
        layer("num_output: 2 kernel_size: 2 bias_term: false", bottoms=2),
        [normal(2, 3, 4, 5), normal(2, 3, 4, 5)],
        [normal(2, 3, 2, 2)],
        expect=lambda a, b, w: [convolution(a, w), convolution(b, w)],
    )


@pytest.mark.parametrize(
    ("param", "message"),
    [
        (
            "num_output: 2",
            r"kernel_size must be specified once, or once per spatial dimension .*0 times; 2 spatial dims",
        ),
        ("num_output: 2 kernel_size: 3 kernel_h: 3", r"Either kernel_size or kernel_h/w should be specified; not both"),
        ("num_output: 2 kernel_h: 3", r"Filter dimensions must be nonzero.*\(3, 0\)"),
        ("num_output: 2 kernel_size: 1 stride: 0", r"Stride dimensions must be nonzero.*\(0, 0\)"),
        ("num_output: 2 kernel_size: 1 stride: 1 stride_h: 1 stride_w: 1", r"Either stride or stride_h/w"),
        ("num_output: 2 kernel_size: 1 pad: 1 pad: 1 pad: 1", r"pad must be specified once.*3 times"),
        ("num_output: 2 kernel_size: 1 dilation: 0", r"Dilation must be nonzero"),
        ("kernel_size: 1", r"num_output_ > 0"),
        ("num_output: 2 kernel_size: 1 group: 2", r"channels_ % group_ == 0.*3 channels and group 2"),
        ("num_output: 2 kernel_size: 1 group: 3", r"Number of output should be multiples of group"),
        ("num_output: 2 kernel_size: 1 axis: 4", r"axis 4 out of range for a 4-D Blob"),
    ],
)
def test_bad_parameters(param: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        build(layer(param), (2, 3, 4, 5))


def test_height_and_width_names_are_for_two_dimensions() -> None:
    with pytest.raises(LayerError, match="kernel_h & kernel_w can only be used for 2D convolution"):
        build(layer("num_output: 2 kernel_h: 3 kernel_w: 3"), (2, 3, 4))


def test_bad_shapes() -> None:
    with pytest.raises(ShapeError, match=r"output would have extents \(0, 1\)"):
        build(layer("num_output: 2 kernel_size: 5"), (2, 3, 4, 5))
    with pytest.raises(
        ShapeError, match=r"shape mismatch - bottom\[0\]: \(2, 3, 4, 5\) vs. bottom\[1\]: \(2, 3, 4, 6\)"
    ):
        build(layer("num_output: 2 kernel_size: 3", bottoms=2), (2, 3, 4, 5), (2, 3, 4, 6))
    net = build(layer("num_output: 2 kernel_size: 3"), (2, 3, 4, 5))
    net.blobs["b0"].reshape(2, 4, 4, 5)
    with pytest.raises(
        ShapeError, match=r"Input size incompatible with convolution kernel. Expected 3 channels, got 4"
    ):
        net.reshape()
    net.blobs["b0"].reshape(2, 3, 4)
    with pytest.raises(ShapeError, match="bottom num_axes may not change"):
        net.reshape()


@pytest.mark.parametrize(
    ("param", "dilation"), [("hole: 2", (2, 2)), ("hole: 1 hole: 3", (1, 3)), ("hole_h: 3 hole_w: 2", (3, 2))]
)
def test_deeplabs_hole_is_dilation(param: str, dilation: tuple[int, int]) -> None:
    x, weight = normal(2, 3, 9, 8), normal(4, 3, 2, 2)
    spread = np.zeros((4, 3, dilation[0] + 1, dilation[1] + 1), np.float32)
    spread[:, :, :: dilation[0], :: dilation[1]] = weight
    text = layer(f"num_output: 4 kernel_size: 2 bias_term: false {param}")
    check_layer(text, [x], [weight], expect=lambda x, _: convolution(x, spread))


def test_hole_and_dilation_contradict_each_other() -> None:
    with pytest.raises(LayerError, match=r"Either dilation or hole.*not both. Got dilation \[2\], hole \[2\]"):
        build(layer("num_output: 4 kernel_size: 3 hole: 2 dilation: 2"), (2, 3, 9, 8))
    with pytest.raises(LayerError, match=r"Dilation must be nonzero. Got dilation \(3, 0\)"):
        build(layer("num_output: 4 kernel_size: 3 hole_h: 3"), (2, 3, 9, 8))
