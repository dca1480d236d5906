"""PSROIPooling: R-FCN's answers, a loop from the formula, the gradient, and bad input."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_fork_golden
from tests.layers.test_roi_pooling import ROIS, SCALE, c_round, features


def layer(param: str = "spatial_scale: 0.0625 output_dim: 4 group_size: 3") -> str:
    return (
        f'layer {{ name: "l" type: "PSROIPooling" bottom: "b0" bottom: "b1" top: "t0"'
        f"psroi_pooling_param {{ {param} }} }}"
    )


def pooled(x: np.ndarray, rois: np.ndarray, depth: int, group: int) -> np.ndarray:
    _, _, height, width = x.shape
    out = np.zeros((len(rois), depth, group, group))
    single = np.float32
    for n, (image, *corners) in enumerate(rois):
        x1, y1, x2, y2 = (c_round(float(v)) for v in corners)
        starts = [single(y1) * single(SCALE), single(x1) * single(SCALE)]
        ends = [single(y2 + 1) * single(SCALE), single(x2 + 1) * single(SCALE)]
        steps = [max(end - start, single(0.1)) / single(group) for start, end in zip(starts, ends)]
        for d, i, j in np.ndindex(depth, group, group):
            low = [int(np.floor(single(k) * s + a)) for k, s, a in zip((i, j), steps, starts)]
            high = [int(np.ceil(single(k + 1) * s + a)) for k, s, a in zip((i, j), steps, starts)]
            (top, left), (end, right) = (
                [min(max(v, 0), extent) for v, extent in zip(side, (height, width))] for side in (low, high)
            )
            if end > top and right > left:
                channel = (d * group + i) * group + j
                out[n, d, i, j] = x[int(image), channel, top:end, left:right].astype(np.float64).mean()
    return out


@pytest.mark.parametrize("name", [f"psroipooling_{i}" for i in range(5)])
def test_golden(name: str) -> None:
    assert run_fork_golden(name) == ["torch", "onnxruntime"]


@pytest.mark.parametrize(("depth", "group"), [(4, 3), (2, 7), (5, 1)])
def test_loop(depth: int, group: int) -> None:
    text = layer(f"spatial_scale: {SCALE} output_dim: {depth} group_size: {group}")
    bottoms = [features(2, depth * group**2, 9, 12), np.array(ROIS, np.float32)]
    check_layer(text, bottoms, expect=lambda x, rois: pooled(x, rois, depth, group), gradient=False)


def test_large_values_do_not_cancel() -> None:
    x = features(1, 4, 50, 70) + 1e4
    rois = np.array([[0, 640, 320, 700, 380], [0, 0, 0, 1100, 780]], np.float32)
    text = layer(f"spatial_scale: {SCALE} output_dim: 1 group_size: 2")
    check_layer(text, [x, rois], expect=lambda x, rois: pooled(x, rois, 1, 2), gradient=False, rtol=1e-7)


def test_gradient_in_double_precision() -> None:
    bottoms = [features(2, 36, 9, 12), np.array(ROIS, np.float32)]
    text = layer()
    check_layer(text, bottoms, expect=lambda x, rois: pooled(x, rois, 4, 3))


def test_bad_input() -> None:
    with pytest.raises(LayerError, match=r"output_dim must be > 0. Got -4"):
        build(layer("spatial_scale: 1 output_dim: -4 group_size: 3"), (2, 36, 9, 12), (7, 5))
    with pytest.raises(LayerError, match=r"group_size must be > 0. Got 0"):
        build(layer("spatial_scale: 1 output_dim: 4"), (2, 36, 9, 12), (7, 5))
    with pytest.raises(LayerError, match="spatial_scale is required"):
        build(layer("output_dim: 4 group_size: 3"), (2, 36, 9, 12), (7, 5))
    with pytest.raises(ShapeError, match=r"\(35 vs. 36\) input channel number does not match layer parameters"):
        build(layer(), (2, 35, 9, 12), (7, 5))
