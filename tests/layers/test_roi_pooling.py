"""ROIPooling: R-FCN's answers, a loop from the formula, the gradient of ties, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_fork_golden

SCALE = 0.0625
ROIS = [
    [0, 10.3, 20.1, 100.7, 90.9],
    [1, -30.3, -40.1, 50.2, 60.3],
    [1, 100.1, 99.9, 400.2, 300.3],
    [0, 17.1, 33.3, 44.4, 55.5],
    [1, 8, 24, 40, 56],  # halves after scaling
    [0, 90, 80, 20, 10],  # inverted
    [1, 1e6, 1e6, 2e6, 2e6],
]


def layer(param: str = "pooled_h: 3 pooled_w: 2 spatial_scale: 0.0625") -> str:
    return (
        f'layer {{ name: "l" type: "ROIPooling" bottom: "b0" bottom: "b1" top: "t0"roi_pooling_param {{ {param} }} }}'
    )


def features(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape, dtype=np.float32)


def c_round(x: float) -> int:
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


def pooled(x: np.ndarray, rois: np.ndarray, bins: tuple[int, int], pad_ratio: float = 0.0) -> np.ndarray:
    """A loop over regions and bins, in the single precision of the original."""
    _, channels, height, width = x.shape
    out = np.zeros((len(rois), channels, *bins), np.float32)
    for n, (image, *corners) in enumerate(rois):
        x1, y1, x2, y2 = map(float, corners)
        pads = (x2 - x1 + 1) * pad_ratio, (y2 - y1 + 1) * pad_ratio
        starts = [c_round((y1 - pads[1]) * SCALE), c_round((x1 - pads[0]) * SCALE)]
        ends = [c_round((y2 + pads[1]) * SCALE), c_round((x2 + pads[0]) * SCALE)]
        if pad_ratio:
            starts = [max(0, start) for start in starts]
            ends = [min(end, c_round(extent / SCALE) - 1) for end, extent in zip(ends, (height, width))]
        steps = [np.float32(max(end - start + 1, 1)) / np.float32(b) for start, end, b in zip(starts, ends, bins)]
        for ph in range(bins[0]):
            for pw in range(bins[1]):
                low = [int(np.floor(np.float32(i) * s)) + a for i, s, a in zip((ph, pw), steps, starts)]
                high = [int(np.ceil(np.float32(i + 1) * s)) + a for i, s, a in zip((ph, pw), steps, starts)]
                (top, left), (end, right) = (
                    [min(max(v, 0), extent) for v, extent in zip(side, (height, width))] for side in (low, high)
                )
                if end > top and right > left:
                    out[n, :, ph, pw] = x[int(image), :, top:end, left:right].max((1, 2))
    return out


@pytest.mark.parametrize("name", [f"roipooling_{i}" for i in range(5)] + [f"roipooling_bw_{i}" for i in range(4)])
def test_golden(name: str) -> None:
    assert run_fork_golden(name) == ["torch", "onnxruntime"]


@pytest.mark.parametrize("bins", [(3, 2), (1, 1), (7, 5), (2, 13)])
def test_loop(bins: tuple[int, int]) -> None:
    text = layer(f"pooled_h: {bins[0]} pooled_w: {bins[1]} spatial_scale: {SCALE}")
    bottoms = [features(2, 4, 9, 12), np.array(ROIS, np.float32)]
    check_layer(text, bottoms, expect=lambda x, rois: pooled(x, rois, bins), gradient=False)


def test_bins_end_where_single_precision_says() -> None:
    extents = range(1, 60)
    rois = np.array([[0, 0, 0, 16 * (w - 1), 16 * (h - 1)] for h in extents for w in (h, 60 - h)], np.float32)
    text = layer("pooled_h: 7 pooled_w: 6 spatial_scale: 0.0625")
    check_layer(text, [features(1, 2, 60, 61), rois], expect=lambda x, r: pooled(x, r, (7, 6)), gradient=False)


def test_pad_ratio_widens_and_cuts() -> None:
    text = layer("pooled_h: 3 pooled_w: 2 spatial_scale: 0.0625 pad_ratio: 0.25")
    bottoms = [features(2, 4, 9, 12), np.array(ROIS, np.float32)]
    check_layer(text, bottoms, expect=lambda x, rois: pooled(x, rois, (3, 2), 0.25), gradient=False)


def test_gradient_in_double_precision() -> None:
    bottoms = [features(2, 4, 9, 12), np.array(ROIS[:4], np.float32)]
    text = layer()
    check_layer(text, bottoms, expect=lambda x, rois: pooled(x, rois, (3, 2)))


def test_of_equal_values_the_first_gets_the_gradient() -> None:
    text = layer("pooled_h: 1 pooled_w: 2 spatial_scale: 1")
    net = build(text, (1, 1, 3, 4), (2, 5), engine="torch")
    net.blobs["b0"].data[...] = [[[[0, 0, 0, 0], [0, 0, 2, 2], [0, 0, 2, 2]]]]
    net.blobs["b1"].data[...] = [[0, 0, 0, 3, 2], [0, 1, 1, 0, 0]]  # the second is inverted: pooled, but no gradient
    net.forward()
    net.blobs["t0"].diff[...] = [[[[3, 5]]], [[[7, 7]]]]
    net.backward()
    assert net.blobs["t0"].data.tolist() == [[[[0, 2]]], [[[0, 0]]]]
    assert net.blobs["b0"].diff.tolist() == [[[[3, 0, 0, 0], [0, 0, 5, 0], [0, 0, 0, 0]]]]
    assert not net.blobs["b1"].diff.any()


def test_bad_input() -> None:
    with pytest.raises(LayerError, match=r"pooled_h must be > 0. Got 0"):
        build(layer("pooled_w: 2"), (2, 3, 9, 12), (7, 5))
    with pytest.raises(LayerError, match="spatial_scale must be positive and pad_ratio must not be negative"):
        build(layer("pooled_h: 3 pooled_w: 2 spatial_scale: 0"), (2, 3, 9, 12), (7, 5))
    with pytest.raises(ShapeError, match=r"expected shape \(R, 5\), got \(7, 4\)"):
        build(layer(), (2, 3, 9, 12), (7, 4))
    with pytest.raises(ShapeError, match="Input must have 4 axes"):
        build(layer(), (2, 3, 9), (7, 5))
    with pytest.raises(ShapeError, match="blob size exceeds INT_MAX"):
        build(layer("pooled_h: 1000000000 pooled_w: 2"), (2, 3, 9, 12), (7, 5))
