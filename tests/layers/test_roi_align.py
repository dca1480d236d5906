"""ROIAlign: a loop from the formula, the gradient, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import build, check_layer
from tests.layers.test_roi_pooling import ROIS, SCALE, features


def layer(param: str = "") -> str:
    return (
        f'layer {{ name: "l" type: "ROIAlign" bottom: "b0" bottom: "b1" top: "t0"'
        f"roi_align_param {{ pooled_h: 3 pooled_w: 2 spatial_scale: 0.0625 {param} }} }}"
    )


def sample(plane: np.ndarray, y: float, x: float) -> np.ndarray:
    """Bilinear interpolation of planes (C, H, W)."""
    _, height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(len(plane))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    low, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = plane[:, top, left] * (1 - x + left) + plane[:, top, right] * (x - left)
    lower = plane[:, low, left] * (1 - x + left) + plane[:, low, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)


def aligned(x: np.ndarray, rois: np.ndarray, ratio: int) -> np.ndarray:
    bins = (3, 2)
    out = np.zeros((len(rois), x.shape[1], *bins))
    for n, (image, *corners) in enumerate(rois):
        x1, y1, x2, y2 = (float(v) * SCALE for v in corners)
        steps = max(y2 - y1, 1) / bins[0], max(x2 - x1, 1) / bins[1]
        counts = [ratio or math.ceil(step) for step in steps]
        for i, j in np.ndindex(bins):
            ys = [y1 + (i + (k + 0.5) / counts[0]) * steps[0] for k in range(counts[0])]
            xs = [x1 + (j + (k + 0.5) / counts[1]) * steps[1] for k in range(counts[1])]
            out[n, :, i, j] = np.mean([sample(x[int(image)].astype(np.float64), a, b) for a in ys for b in xs], 0)
    return out


@pytest.mark.parametrize("ratio", [0, 1, 2, 5])
def test_loop(ratio: int) -> None:
    bottoms = [features(2, 4, 9, 12), np.array(ROIS[:6], np.float32)]
    text = layer(f"sampling_ratio: {ratio or -1}")
    check_layer(text, bottoms, expect=lambda x, rois: aligned(x, rois, ratio))


def test_by_hand() -> None:
    net = build(layer("sampling_ratio: 1"), (1, 1, 4, 5), (1, 5))
    net.blobs["b0"].data[...] = np.arange(20).reshape(1, 1, 4, 5)
    net.blobs["b1"].data[...] = [[0, 16, 0, 48, 48]]  # x from 1 to 3 in two bins, y from 0 to 3 in three
    net.forward()
    assert net.blobs["t0"].data.tolist() == [[[[4, 5], [9, 10], [14, 15]]]]


def test_images_in_any_order() -> None:
    rois = np.array([ROIS[i] for i in (1, 0, 2, 3, 1)], np.float32)
    check_layer(layer(), [features(2, 4, 9, 12), rois], expect=lambda x, r: aligned(x, r, 0), gradient=False)


def test_bad_input() -> None:
    with pytest.raises(LayerError, match=r"sampling_ratio must be at most 1024. Got 1000000000"):
        build(layer("sampling_ratio: 1000000000"), (2, 4, 9, 12), (6, 5))
    with pytest.raises(LayerError, match="spatial_scale must be positive"):
        build(layer("spatial_scale: -1").replace("spatial_scale: 0.0625", ""), (2, 4, 9, 12), (6, 5))
    with pytest.raises(LayerError, match="pooled_w must be > 0"):
        build(layer().replace("pooled_w: 2", ""), (2, 4, 9, 12), (6, 5))
